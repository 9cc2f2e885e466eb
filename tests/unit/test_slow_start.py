"""Inherited weights learn at a fraction of the learning rate at first."""

import pytest
import torch
from munch import Munch

from core.training import slow_start
from core.training.iteration import UPDATES
from tests.pretrained import begun, pretrained, save


@pytest.fixture(scope="module")
def trained():
    return pretrained()


def moved(path, scale, iters=1, iterations=1):
    """How far each parameter moves: {network: {key: tensor}}, all in float64."""
    solver, _ = begun(path, "--init_iters", iters, "--init_lr_scale", scale)
    for network in (*solver.nets.values(), *solver.nets_ema.values()):
        network.double()
    generator = torch.Generator().manual_seed(0)
    images = {name: torch.rand(2, 3, 32, 32, generator=generator).double() for name in ("x_src", "x_ref", "x_ref2")}
    codes = {name: torch.randn(2, 16, generator=generator).double() for name in ("z_trg", "z_trg2")}
    labels = {"y_src": torch.tensor([0, 1]), "y_ref": torch.tensor([2, 0])}
    before = {n: {k: p.detach().clone() for k, p in net.named_parameters()} for n, net in solver.nets.items()}
    for iteration in range(iterations):
        solver.iteration.update_averages()
        solver.train_step(Munch(**images, **codes, **labels), iteration)
    return {
        name: {key: p.detach() - before[name][key] for key, p in net.named_parameters()}
        for name, net in solver.nets.items()
    }


def test_inherited_weights_stay_at_scale_zero_for_init_iters(trained, tmp_path):
    """A scale of 0 keeps inherited weights for --init_iters iterations, while new heads learn."""
    path = save(trained, tmp_path)
    full, none = (moved(path, scale)["discriminator"] for scale in (1, 0))
    last = [key for key in full if len(full[key]) == 3 and key.startswith("main.")][-2:]
    for key, step in full.items():
        assert step.abs().max() > 0
        if key in last:  # row 0 is new
            assert none[key][0].abs().max() > 0 and none[key][1:].abs().max() == 0
        else:
            assert none[key].abs().max() == 0
    both = moved(path, 0)
    heads = {key: step for key, step in both["mapping_network"].items() if key.startswith("unshared.")}
    assert all((step.abs().max() > 0) == key.startswith("unshared.0.") for key, step in heads.items())
    assert all(step.abs().max() == 0 for step in both["generator"].values())
    later = moved(path, 0, iters=1, iterations=2)
    assert all(step.abs().max() > 0 for step in later["generator"].values())


def stepped(path, scale, bad=0.0):
    """How far each parameter moves in one update of all networks with the same gradients, the part of a loss `bad`."""
    solver, _ = begun(path, "--init_iters", 1, "--init_lr_scale", scale)
    generator, moves = torch.Generator().manual_seed(0), {}
    for network in solver.nets.values():
        network.double()
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator).double()
    before = {name: {k: p.detach().clone() for k, p in net.named_parameters()} for name, net in solver.nets.items()}
    gradients = [p.grad for net in solver.nets.values() for p in net.parameters()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(UPDATES, "G/ref_", list(solver.nets))
        solver.iteration._step("G/ref_", gradients, [torch.tensor(bad)], is_slow=True)
    for name, network in solver.nets.items():
        moves |= {f"{name} {key}": p.detach() - before[name][key] for key, p in network.named_parameters()}
    return moves


@pytest.mark.parametrize("with_nets", [True, False])
def test_inherited_weights_move_by_the_scale(with_nets, trained, tmp_path):
    """A quarter of the step, except for heads and rows of new domains and for a new D."""
    path = save(trained, tmp_path, with_nets=with_nets)
    full, quarter = (stepped(path, scale) for scale in (1, 0.25))
    for key, step in full.items():
        share = torch.full(step.shape[:1], 0.25, dtype=step.dtype)
        if ".unshared.0." in key.replace(" ", ".") or (key.startswith("discriminator") and not with_nets):
            share[:] = 1
        elif key in ("discriminator main.7.weight", "discriminator main.7.bias"):
            share[0] = 1  # ant
        assert step.abs().min() > 0
        torch.testing.assert_close(quarter[key], step * share.view(-1, *[1] * (step.ndim - 1)), rtol=1e-9, atol=1e-12)


def test_a_skipped_update_stays_skipped(trained, tmp_path):
    moves = stepped(save(trained, tmp_path), 0.25, bad=float("nan"))
    assert all(step.abs().max() == 0 for step in moves.values())


def test_scaled_update_equals_a_lower_learning_rate():
    """Adam with a quarter of the learning rate takes the same steps, weight decay included."""
    ends = []
    for rate, factor in ((0.01, 0.25), (0.0025, 1)):
        torch.manual_seed(0)
        network = torch.nn.Linear(4, 3).double()
        optimizer = torch.optim.Adam(network.parameters(), lr=rate, betas=(0.0, 0.99), weight_decay=0.1, fused=True)
        for number in range(3):
            optimizer.zero_grad()
            network(torch.full((2, 4), number + 1.0).double()).square().sum().backward()
            with slow_start.scaled_update(network, {"weight": factor, "bias": torch.full((3,), factor).double()}):
                optimizer.step()
        ends.append([p.detach() for p in network.parameters()])
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-14)
