"""--compile: whole losses as one graph each, with the numbers of the plain ones."""

from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor.config import cpp

from core.model import Content
from core.solver import Solver
from tests import golden
from tests.command import RUN, call
from tests.runs import folders, steps
from tests.solvers import golden_solver, random_inputs

pytestmark = pytest.mark.filterwarnings("default")  # of the compiler


@pytest.fixture(autouse=True)
def nothing_is_compiled_yet():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def pair(parse, flags):
    """A plain and a compiled Solver in float64 with equal weights."""
    solvers = [Solver(parse("train", f"--num_domains 2 {flags} {more}")) for more in ("", "--compile")]
    for solver in solvers:
        for network in (*solver.nets.values(), *solver.nets_ema.values()):
            network.double()
    return solvers


def check_equal(usual, compiled, count, iterations=3):
    for number in range(iterations):
        given = random_inputs(usual.config, number, count, torch.float64)
        expected, found = usual.train_step(given, number), compiled.train_step(given, number)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(compiled.iteration.meters, usual.iteration.meters, rtol=1e-10, atol=1e-12)
    for networks, others in ((usual.nets, compiled.nets), (usual.nets_ema, compiled.nets_ema)):
        for name, network in networks.items():
            torch.testing.assert_close(others[name].state_dict(), network.state_dict(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("backend", "augment"),
    [
        ("aot_eager", "none"),
        pytest.param("aot_eager", "ada", marks=pytest.mark.slow),
        pytest.param("inductor", "none", marks=pytest.mark.slow),
    ],
)
def test_losses_compile_as_three_graphs_and_compute_the_same(backend, augment, parse, monkeypatch):
    """A batch of 3 with --micro_batch 2: the last part is smaller, and gets no graph of its own.

    The backend aot_eager runs the graphs with PyTorch's own kernels, so it needs seconds instead of minutes.
    """
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    flags = f"--img_size 16 --batch_size 3 --micro_batch 2 --ds_iter 10 --lambda_ds 2 --augment {augment}"
    usual, compiled = pair(parse, flags)
    for solver in (usual, compiled):
        solver.augmentation.p.fill_(0.5)
    check_equal(usual, compiled, count=3)
    assert counters["stats"]["unique_graphs"] == 3 and not counters["graph_break"]


def test_bf16_compiles_too(parse, monkeypatch):
    """With the backend aot_eager, see above. Parts of the losses run without autocast."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    flags = "--num_domains 2 --img_size 16 --batch_size 2 --precision bf16"
    usual, compiled = (Solver(parse("train", f"{flags} {more}")) for more in ("", "--compile"))
    given = random_inputs(usual.config)
    expected, found = usual.train_step(given, 0), compiled.train_step(given, 0)
    found, expected = ({k: float(v) for k, v in losses.items()} for losses in (found, expected))
    assert found == pytest.approx(expected, rel=0.02)
    assert counters["stats"]["unique_graphs"] == 3 and not counters["graph_break"]


def test_a_compiler_that_does_not_work_is_one_sentence(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "/no/compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(cpp, "cxx", (None, "/no/compiler"))
    flags = f"{RUN} --img_size 16 --total_iters 1 --eval_every 0 --compile"
    assert call("train", flags, **folders(tmp_path, data)) == 2
    said = capsys.readouterr().err
    assert "Cannot compile the networks (" in said and "/no/compiler')). Omit --compile." in said
    assert "Traceback" not in said and not steps(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", ["1", "2"])
def test_compiled_losses_equal_golden_numbers(micro_batch):
    flags = "--device", "cpu", "--micro_batch", micro_batch, "--compile"
    solver, expected = golden_solver("training_64_narrow", *flags)
    for number, figures in enumerate(expected["iterations"]):
        found = solver.train_step(golden.iteration_inputs(number), number)
        assert {name: float(value) for name, value in found.items()} == pytest.approx(figures, rel=1e-8)
    assert counters["stats"]["unique_graphs"] == 3
    for name, figures in expected["parameters"].items():
        for key, p in solver.nets[name].named_parameters():
            assert p.norm().item() == pytest.approx(figures[key]["norm"], rel=1e-8), f"{name}.{key}"


@pytest.mark.slow
def test_faces_compile_with_their_masks(parse):
    usual, compiled = pair(parse, "--w_hpf 1 --img_size 32 --batch_size 1")
    for solver in (usual, compiled):
        golden.fill("fan", solver.nets.fan.float()).double()
    check_equal(usual, compiled, count=1, iterations=1)
    assert counters["stats"]["unique_graphs"] == 3


@pytest.mark.slow
@torch.no_grad()
def test_a_compiled_generator_translates_batches_of_all_sizes(parse):
    solver, usual = (Solver(parse("sample", f"--num_domains 2 {more}")) for more in ("--compile", ""))
    G = solver.nets_ema.generator
    x, s = torch.rand(5, 3, 32, 32) * 2 - 1, torch.randn(5, 64)
    for count in (3, 2, 5, 1):
        content = usual.nets_ema.generator.content(x[:count])
        expected = usual.nets_ema.generator.render(content, s[:count])
        torch.testing.assert_close(G.render(G.content(x[:count]), s[:count]), expected, rtol=0, atol=1e-5)
    assert isinstance(G.content(x), Content)
    assert list(G.state_dict()) == list(usual.nets_ema.generator.state_dict())
