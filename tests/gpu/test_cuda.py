"""What only a CUDA GPU can show. Run with `make test-gpu`."""

import copy
import gc
import itertools

import pytest
import torch

import main
from core.checkpoint.steps import OPTIMS
from core.data_loader import InputFetcher, get_train_loader
from core.dry_run import cost
from core.model import Generator
from core.solver import Solver
from core.system import distributed
from core.system.device import CopyToCpu, set_precision
from tests import golden
from tests.command import RUN, call, line_of
from tests.processes import ended, in_ranks, start_ranks
from tests.runs import folders, state, steps
from tests.solvers import golden_solver, random_inputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("default"),  # of the compiler, and of PyTorch about graphs
]
WIDER = "--device cuda --w_hpf 0 --img_size 64 --channel_base 2048 --max_conv_dim 128 --batch_size 4"
GPU = RUN.replace("--device cpu", "--device cuda")
SHORT = f"{GPU} --sample_every 2 --eval_every 0 --val_batch_size 2 --num_outs_per_domain 1 --print_every 1"


def parameters(solver):
    """All weights and averages, in float64 on the CPU."""
    networks = (*solver.nets.values(), *solver.nets_ema.values())
    return torch.cat([p.detach().double().cpu().flatten() for network in networks for p in network.parameters()])


@pytest.mark.parametrize("flags", ["", "--micro_batch 1", "--channels_last", "--compile", "--compile --micro_batch 1"])
def test_three_iterations_equal_golden_numbers(flags):
    solver, expected = golden_solver("training_64_narrow", *f"--batch_size 2 --device cuda {flags}".split())
    for number, figures in enumerate(expected["iterations"]):
        found = solver.train_step(golden.iteration_inputs(number), number)
        assert {name: float(value) for name, value in found.items()} == pytest.approx(figures, rel=1e-8)
    for name, figures in expected["parameters"].items():
        for key, p in solver.nets[name].named_parameters():
            assert p.norm().item() == pytest.approx(figures[key]["norm"], rel=1e-8), f"{name}.{key}"


@pytest.mark.parametrize(("flags", "loss", "weight"), [
    ("--precision fp32", 2e-3, 1e-5), ("--precision tf32", 5e-2, 5e-5), ("--precision bf16", 1e-1, 1e-4),
    ("--precision bf16 --channels_last", 1e-1, 1e-4),
])  # fmt: skip
def test_precisions_agree_with_float64_on_the_cpu(flags, loss, weight):
    """The bounds are several times what an H100 showed (docs/performance.md)."""

    def trained(device, dtype, flags):
        line = f"train --num_domains 2 {WIDER} {flags} --device {device}"
        solver = Solver(main.parse_args(line.split()))
        for network in (*solver.nets.values(), *solver.nets_ema.values()):
            network.to(dtype)
        losses = solver.train_step(random_inputs(solver.config, 0, solver.config.batch_size, dtype), 0)
        return {name: float(value) for name, value in losses.items()}, parameters(solver)

    expected, weights = trained("cpu", torch.float64, "")
    found, others = trained("cuda", torch.float32, flags)
    assert found == pytest.approx(expected, rel=loss, abs=loss / 10)
    assert (others - weights).abs().mean() < weight


def test_outputs_equal_golden_numbers_in_fp32():
    expected = golden.read("networks_64.npz")
    set_precision("fp32", torch.device("cuda"))
    G = golden.fill("generator", Generator(64, w_hpf=0)).cuda()
    with torch.no_grad():
        found = G(golden.image("x").cuda(), expected["style_latent"].cuda()).cpu()
    torch.testing.assert_close(found, expected["fake"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("flags", ["", "--augment ada"])
def test_an_iteration_never_waits_for_the_device(flags):
    solver = Solver(main.parse_args(f"train --num_domains 2 {WIDER} {flags}".split()))
    batches = [
        {k: v.cuda() for k, v in random_inputs(solver.config, number, solver.config.batch_size).items()}
        for number in range(3)
    ]
    solver.train_step(batches[0], 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in (1, 2):
            solver.train_step(batches[number], number)
            copy = CopyToCpu(solver.iteration.skipped)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert copy.read().tolist() == [[0] * 4] * 2


@pytest.mark.parametrize("more", ["", "--compile", "--augment ada"])
def test_a_recorded_iteration_computes_the_same(more, tmp_path):
    """Seven iterations in float64 with other inputs and another lambda_ds each; checkpoints do not change."""
    flags = f"{WIDER} --ds_iter 10 --lambda_ds 2 --checkpoint_dir {tmp_path}"
    usual = Solver(main.parse_args(f"train --num_domains 2 {flags} {more.replace('--compile', '')}".split()))
    recorded = Solver(main.parse_args(f"train --num_domains 2 {flags} --cuda_graph {more}".split()))
    for solver in (usual, recorded):
        solver.augmentation.p.fill_(0.5)
        for network in (*solver.nets.values(), *solver.nets_ema.values()):
            network.double()
    for number in range(7):
        inputs = random_inputs(usual.config, number, usual.config.batch_size, torch.float64)
        if number == 5:
            inputs.x_ref[0, 0, 0, 0] = float("nan")
        expected, found = (solver.train_step(copy.deepcopy(inputs), number) for solver in (usual, recorded))
        expected, found = ({k: float(v) for k, v in losses.items()} for losses in (expected, found))
        assert found == pytest.approx(expected, rel=1e-9, nan_ok=True)
    torch.testing.assert_close(parameters(recorded), parameters(usual), rtol=0, atol=1e-9)
    torch.testing.assert_close(recorded.augmentation.state_dict(), usual.augmentation.state_dict())
    assert torch.equal(recorded.iteration.skipped, usual.iteration.skipped) and recorded.iteration.skipped.sum() > 0
    recorded.save(7)
    optims = torch.load(tmp_path / OPTIMS.format(7), weights_only=True)
    assert not any(group["capturable"] for optimizer in optims.values() for group in optimizer["param_groups"])


def test_a_batch_that_does_not_fit_is_halved(capsys):
    """By PyTorch's own error, with a limit on its memory; the update is that of the full batch."""
    line = f"train --num_domains 2 {WIDER} --batch_size 32"
    usual = Solver(main.parse_args(f"{line} --micro_batch 32".split()))
    estimates = [cost.training(usual.config.with_flags(micro_batch=size), 32).peak for size in (32, 8)]
    inputs = random_inputs(usual.config, 0, usual.config.batch_size)
    expected = usual.train_step(inputs, 0)
    expected = {name: float(value) for name, value in expected.items()}
    del usual
    gc.collect()
    torch.cuda.empty_cache()
    limit = sum(estimates) / 2 + torch.cuda.memory_allocated()
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    try:
        solver = Solver(main.parse_args(line.split()))
        found = solver.train_step(inputs, 0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "Out of memory. Continuing with --micro_batch 16." in capsys.readouterr().err
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=2e-2, abs=2e-3)


def test_pinned_batches_arrive_while_the_device_works(data):
    """Also if earlier batches are dropped while the device still has to use them."""

    def loaders(pin):
        options = {"img_size": 32, "batch_size": 2, "num_workers": 0, "pin_memory": pin}
        return [get_train_loader(data["train_img_dir"], which, **options) for which in ("source", "reference")]

    on_cpu, on_gpu = InputFetcher(*loaders(False)), InputFetcher(*loaders(True), device="cuda")
    busy, sums = torch.rand(8192, 8192, device="cuda"), []
    for number in range(5):
        for _ in range(50):
            busy = (busy @ busy).tanh()
        is_done = torch.cuda.Event()
        is_done.record()
        found = next(on_gpu)
        on_gpu.to_device.stream.synchronize()
        assert not is_done.query(), f"batch {number} waited for the computations"
        assert all(tensor.is_cuda for tensor in found.values())
        sums.append({name: tensor.double().sum() for name, tensor in found.items()})
        del found
    for expected, found in zip(itertools.islice(on_cpu, 5), sums, strict=True):
        assert {k: v.item() for k, v in found.items()} == {k: v.double().sum().item() for k, v in expected.items()}


@pytest.mark.parametrize("flags", ["", "--precision bf16", "--cuda_graph"])
def test_a_resumed_training_continues(flags, data, tmp_path):
    """Up to the order of sums: Adam moves a weight by the learning rate even where its gradient is only rounding."""
    line = f"{SHORT} --save_every 4 {flags}"
    assert call("train", f"{line} --total_iters 8", **folders(tmp_path / "whole", data)) == 0
    where = folders(tmp_path / "parts", data)
    assert call("train", f"{line} --total_iters 4", **where) == 0
    assert call("train", f"{line} --total_iters 8 --resume_iter latest", **where) == 0
    assert steps(tmp_path / "parts") == steps(tmp_path / "whole")
    (parts, _, optims), (whole, _, others), (half, *_) = (
        state(tmp_path / name, step) for name, step in (("parts", 8), ("whole", 8), ("whole", 4))
    )
    assert optims["generator"]["state"][0]["step"] == others["generator"]["state"][0]["step"] == 16
    for name in ("generator", "discriminator", "mapping_network", "style_encoder"):
        differs = sum((parts[name][key] - value).abs().sum() for key, value in whole[name].items())
        moves = sum((half[name][key] - value).abs().sum() for key, value in whole[name].items())
        assert differs < 0.2 * moves, name


def test_a_recording_is_made_while_workers_pin_batches(data, tmp_path):
    line = f"{SHORT} --total_iters 12 --cuda_graph".replace("--num_workers 0", "--num_workers 2")
    assert call("train", line, **folders(tmp_path, data)) == 0
    assert steps(tmp_path) == [12]


def test_train_sample_and_eval(data, tmp_path, torch_cache):
    where = folders(tmp_path, data)
    line = f"{SHORT} --precision bf16"
    assert call("train", f"{line} --total_iters 2", **where) == 0
    checkpoint = {"checkpoint": where["checkpoint_dir"]}
    found = {"src_dir": data["val_img_dir"] / "cat", "ref_dir": data["val_img_dir"], "result_dir": tmp_path / "r"}
    outputs = "--device cuda --num_workers 0 --outputs reference,latent,images,video_ref --seeds 0,1"
    assert call("sample", outputs, **checkpoint, **found) == 0
    assert (tmp_path / "r" / "reference.jpg").is_file() and (tmp_path / "r" / "video_ref.mp4").is_file()
    scores = "--device cuda --num_workers 0 --num_outs_per_domain 2 --val_batch_size 2"
    assert call("eval", scores, **checkpoint, **data, eval_dir=tmp_path / "e") == 0
    assert len(list((tmp_path / "e").glob("*.json"))) >= 4


def reduce_on_gpu(folder):
    """In a rank: a sum by NCCL, and means of gradients."""
    with distributed.process_group():
        tensor = torch.ones(2, device="cuda")
        torch.distributed.all_reduce(tensor)
        torch.save(tensor.cpu(), folder / "sum.pt")


def test_one_rank_with_nccl(data, tmp_path):
    assert in_ranks(1, reduce_on_gpu, tmp_path) == [0]
    assert torch.load(tmp_path / "sum.pt", weights_only=True).tolist() == [1, 1]
    line = line_of("train", f"{SHORT} --total_iters 2", folders(tmp_path, data))
    assert ended(start_ranks(line, tmp_path / "consoles", 1)) == [0]
    assert steps(tmp_path) == [2] and "Device: cuda" in (tmp_path / "consoles" / "0").read_text()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_estimate_of_a_dry_run_is_close(precision):
    line = f"train --num_domains 2 --device cuda --w_hpf 0 --img_size 128 --batch_size 8 --precision {precision}"
    gc.collect()
    others = torch.cuda.memory_allocated()
    solver = Solver(main.parse_args(line.split()))
    inputs = random_inputs(solver.config, 0, solver.config.batch_size)
    for number in range(2):
        torch.cuda.reset_peak_memory_stats()
        solver.train_step(inputs, number)
    estimate = cost.SCRATCH * cost.training(solver.config, 8).peak
    assert torch.cuda.max_memory_allocated() - others == pytest.approx(estimate, rel=0.25)
