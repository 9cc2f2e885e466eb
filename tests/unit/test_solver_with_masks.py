"""A training iteration with masks (w_hpf > 0) against golden numbers."""

import pytest
import torch

import main
from core.model import face_masks
from core.solver import Solver
from tests import golden
from tests.command import as_flags


@pytest.fixture(scope="module")
def trained():
    """A Solver with golden weights in float64 after a golden iteration with masks."""
    expected = golden.read("training_64_narrow_faces.json")
    settings = expected["settings"]
    del settings["batch"]
    settings["ema_decay"] = settings.pop("ema_beta")
    solver = Solver(main.parse_args(["--mode", "train", "--device", "cpu", *as_flags(settings)]))
    for name, network in solver.nets.items():
        golden.fill(name, network)
        if name in solver.nets_ema:
            solver.nets_ema[name].load_state_dict(network.state_dict())
        network.double()
    before = {name: {k: p.clone() for k, p in net.named_parameters()} for name, net in solver.nets.items()}
    for network in solver.nets_ema.values():
        network.double()
    seen = []
    handle = solver.nets.fan.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    losses = [
        solver.train_step(golden.iteration_inputs(n, num_domains=2), n) for n in range(len(expected["iterations"]))
    ]
    handle.remove()
    return solver, before, losses, expected, seen


def test_losses_with_masks_equal_golden_numbers(trained):
    _, _, losses, expected, _ = trained
    for found, figures in zip(losses, expected["iterations"], strict=True):
        assert {name: float(value) for name, value in found.items()} == pytest.approx(figures, rel=1e-8)


def test_parameters_with_masks_equal_golden_numbers(trained):
    solver, before, _, expected, _ = trained
    for name, figures in expected["parameters"].items():
        for key, p in solver.nets[name].named_parameters():
            found = {"moved": (p - before[name][key]).abs().mean(), "mean": p.mean(), "norm": p.norm()}
            assert {k: v.item() for k, v in found.items()} == pytest.approx(figures[key], rel=1e-8), f"{name}.{key}"


def test_the_face_network_is_shared_and_not_trained(trained):
    solver, before, *_ = trained
    assert solver.nets.fan is solver.nets_ema.fan and "fan" not in solver.optims
    assert all(torch.equal(p, before["fan"][key]) for key, p in solver.nets.fan.named_parameters())


def test_an_iteration_computes_each_mask_once(trained):
    """Once for the sources, and once for the outputs of each update of G."""
    assert trained[-1] == [2, 2, 2]


def test_masks_do_not_depend_on_batch_or_autocast(trained):
    """Masks do not depend on the batch, and are computed in full precision under autocast."""
    nets, x = trained[0].nets, golden.image("x").double()
    whole = face_masks(nets, x)
    for number in range(2):
        for part, mask in zip(face_masks(nets, x[number : number + 1]), whole, strict=True):
            torch.testing.assert_close(part, mask[number : number + 1], rtol=1e-9, atol=1e-9)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(face_masks(nets, x), whole, strict=True))
    assert face_masks({}, x) is None
