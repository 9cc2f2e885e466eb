import copy

import pytest
import torch
from munch import Munch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import plain
from core.solver import Solver
from core.training import iteration
from tests import golden
from tests.solvers import golden_solver, random_inputs

CASES = [  # golden file, --micro_batch
    pytest.param(("training_64_narrow", "auto"), id="narrow"),
    pytest.param(("training_64_narrow", "1"), id="narrow, image by image"),
    pytest.param(("training_64", "2"), id="full", marks=pytest.mark.slow),
    pytest.param(("training_64", "1"), id="full, image by image", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=CASES)
def trained(request):
    """A Solver with golden weights in float64 after three golden iterations."""
    file, micro_batch = request.param
    solver, expected = golden_solver(file, "--device", "cpu", "--micro_batch", micro_batch)
    start = copy.deepcopy(solver.nets)
    losses = [solver.train_step(golden.iteration_inputs(number), number) for number in range(3)]
    probe = golden.read(f"{file}_probe.npz")
    return solver, start, losses, expected, probe


def test_losses_of_three_iterations_equal_golden_numbers(trained):
    _, _, losses, expected, _ = trained
    for found, figures in zip(losses, expected["iterations"], strict=True):
        assert list(found) == list(figures), "names in the order of the console line"
        assert {name: float(value) for name, value in found.items()} == pytest.approx(figures, rel=1e-8)
        assert not any(torch.is_tensor(value) and value.requires_grad for value in found.values())


def test_parameters_after_three_iterations_equal_golden_numbers(trained):
    solver, start, _, expected, _ = trained
    for name, figures in expected["parameters"].items():
        for (key, p), before in zip(solver.nets[name].named_parameters(), start[name].parameters(), strict=True):
            found = {"moved": (p - before).abs().mean(), "mean": p.mean(), "norm": p.norm()}
            assert {k: v.item() for k, v in found.items()} == pytest.approx(figures[key], rel=1e-8), f"{name}.{key}"


@torch.no_grad()
def test_networks_and_averages_after_three_iterations_equal_golden_outputs(trained):
    solver, _, _, _, expected = trained
    nets, ema = solver.nets, solver.nets_ema
    y_org, y_trg = torch.tensor([0, 2]), torch.tensor([1, 0])
    x, z = golden.image("x").double(), golden.code("z").double()
    found = {
        "fake": nets.generator(x, nets.mapping_network(z, y_trg)),
        "fake_ema": ema.generator(x, ema.mapping_network(z, y_trg)),
        "style_ref": nets.style_encoder(x, y_trg),
        "style_ref_ema": ema.style_encoder(x, y_trg),
        "logits": nets.discriminator(x, y_org),
    }
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def parameters(networks):
    return {f"{n}.{k}": p.detach().clone() for n, net in networks.items() for k, p in net.named_parameters()}


def test_only_trained_networks_get_gradients_and_move(parse, monkeypatch):
    solver = Solver(parse("train", "--num_domains 2"))
    seen = {}

    def loss_of_code(batch):
        seen.update({name: p.requires_grad for name, net in solver.nets.items() for p in net.parameters()})
        loss = solver.nets.mapping_network(batch.z_trg, torch.tensor([0, 0])).sum()
        return loss, {"sum": loss.detach()}, {}

    before = parameters(solver.nets)
    monkeypatch.setitem(iteration.UPDATES, "G/ref_", ["mapping_network"])
    losses = solver.iteration.update("G/ref_", loss_of_code, random_inputs(solver.config), is_slow=False)
    moved = {name for name, p in parameters(solver.nets).items() if not torch.equal(p, before[name])}
    assert list(losses) == ["G/ref_sum"]
    assert [name for name, learns in seen.items() if learns] == ["mapping_network"]
    assert moved and all(name.startswith("mapping_network") for name in moved)
    # The unused head has zero gradients, not None, so weight decay still moves it.
    assert "mapping_network.unshared.1.0.weight" in moved


def test_inputs_are_not_changed(parse):
    solver = Solver(parse("train", "--num_domains 2"))
    given = random_inputs(solver.config)
    before = copy.deepcopy(given)
    solver.train_step(given, 0)
    assert all(torch.equal(given[name], before[name]) and not given[name].requires_grad for name in before)


def test_lambda_ds_is_a_function_of_the_iteration(parse):
    solver = Solver(parse("train", "--num_domains 2 --lambda_ds 2 --ds_iter 10"))
    assert [solver.lambda_ds(i) for i in (0, 5, 10, 20)] == [2, 1, 0, 0]


def test_averages_follow_ema_decay(parse):
    solver = Solver(parse("train", "--num_domains 2 --ema_decay 0.75"))
    before = parameters(solver.nets_ema)
    for network in solver.nets.values():
        for p in network.parameters():
            p.data += 1
    solver.iteration.update_averages()
    for name, p in parameters(solver.nets_ema).items():
        torch.testing.assert_close(p, before[name] + 0.25)


@pytest.mark.parametrize("augment", ["none", "ada"])
def test_resume_keeps_optimizers_and_takes_rates_from_the_flags(augment, parse, tmp_path):
    """Two iterations, a save, a load and two more equal four; the learning rate of the flags applies."""
    flags = f"--num_domains 2 --augment {augment}"
    args = parse("train", flags, checkpoint_dir=tmp_path)
    whole, first = Solver(args), Solver(args)
    for solver in (whole, first):
        solver.augmentation.p.fill_(0.5)
        solver.augmentation.sign.fill_(0.9)  # so that p rises
    for i in range(4):
        whole.train_step(random_inputs(args, i), i)
    for i in range(2):
        first.train_step(random_inputs(args, i), i)
    first.save(2)
    other = "" if augment == "ada" else "--seed 1"  # The seed determines the augmentations, but not what is loaded.
    second = Solver(parse("train", f"{flags} {other}", checkpoint_dir=tmp_path))
    second.load(2)
    for i in (2, 3):
        second.train_step(random_inputs(args, i), i)
    for networks, others in ((whole.nets, second.nets), (whole.nets_ema, second.nets_ema)):
        resumed = parameters(others)
        assert all(torch.equal(p, resumed[name]) for name, p in parameters(networks).items())
    if augment == "ada":
        assert second.augmentation.state_dict() == whole.augmentation.state_dict() and whole.augmentation.p > 0.5

    slower = Solver(parse("train", "--num_domains 2 --lr 1e-5", checkpoint_dir=tmp_path))
    slower.load(2)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in slower.optims.items()}
    assert rates == {"generator": 1e-5, "mapping_network": 1e-6, "style_encoder": 1e-5, "discriminator": 1e-5}
    assert slower.optims.generator.state_dict()["state"][0]["step"] == 4  # two updates an iteration


def test_micro_batches_see_the_same_augmentations(parse):
    whole, parts = (
        Solver(parse("train", f"--num_domains 2 --augment ada {flags}")) for flags in ("", "--micro_batch 2")
    )
    for solver in (whole, parts):
        solver.augmentation.p.fill_(0.5)
        for network in (*solver.nets.values(), *solver.nets_ema.values()):
            network.double()
    for i in range(2):
        given = random_inputs(whole.config, i, count=3, dtype=torch.float64)
        expected, found = whole.train_step(given, i), parts.train_step(given, i)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for name, p in parameters(whole.nets).items():
        torch.testing.assert_close(parameters(parts.nets)[name], p, rtol=0, atol=1e-10)
    torch.testing.assert_close(whole.augmentation.state_dict(), parts.augmentation.state_dict())


def test_gradients_of_d_do_not_depend_on_frozen_layers(parse):
    plain, frozen = (Solver(parse("train", f"--num_domains 2 --lr 0 --freeze_d {number}")) for number in (0, 2))
    given = random_inputs(plain.config)
    assert plain.train_step(given, 0) == frozen.train_step(given, 0)
    moments = [solver.optims.discriminator.state_dict()["state"] for solver in (plain, frozen)]
    assert len(moments[0]) > len(moments[1]) > 0
    for number, state in moments[1].items():
        assert torch.equal(state["exp_avg_sq"], moments[0][number]["exp_avg_sq"]) and state["exp_avg_sq"].any()


def test_frozen_layers_of_d_keep_their_weights(parse, tmp_path):
    """A training continues with and without --freeze_d, also after a checkpoint without moments of frozen layers."""
    args = parse("train", "--num_domains 2 --freeze_d 2", checkpoint_dir=tmp_path)
    frozen = Solver(args)
    given, before = random_inputs(args), parameters(frozen.nets)
    frozen.train_step(given, 0)
    moved = {name for name, p in parameters(frozen.nets).items() if not torch.equal(p, before[name])}
    in_d = {name for name in before if name.startswith("discriminator")}
    kept = {name for name in in_d if name.startswith(("discriminator.main.0.", "discriminator.main.1."))}
    assert kept and kept.isdisjoint(moved) and in_d - kept <= moved
    assert {name for name in before if name.startswith("style_encoder")} <= moved
    frozen.save(1)
    frozen.train_step(given, 1)
    for flags in ("--freeze_d 2", "--freeze_d 0"):
        resumed = Solver(parse("train", f"--num_domains 2 {flags}", checkpoint_dir=tmp_path))
        resumed.load(1)
        resumed.train_step(given, 1)
        now = parameters(resumed.nets)
        if flags == "--freeze_d 2":
            assert all(torch.equal(p, now[name]) for name, p in parameters(frozen.nets).items())
        else:
            assert not torch.equal(now["discriminator.main.0.weight"], before["discriminator.main.0.weight"])


def test_only_training_holds_networks_and_optimizers(parse):
    solver = Solver(parse("sample", "--num_domains 2"))
    assert list(solver.nets_ema) == ["generator", "mapping_network", "style_encoder"]
    assert not solver.nets and not solver.optims


def test_one_iteration_equals_the_plain_procedure(parse):
    """The reference's procedure (benchmarks/plain.py), with a micro-batch that does not divide the batch."""
    args = parse("train", "--num_domains 3 --micro_batch 2 --lambda_reg 0.7 --lambda_sty 0.6 --lambda_cyc 1.3")
    given = random_inputs(args, count=3)
    given = Munch({name: value.double() if value.is_floating_point() else value for name, value in given.items()})
    ours, theirs = Solver(args), Solver(args)
    for solver in (ours, theirs):
        for network in [*solver.nets.values(), *solver.nets_ema.values()]:
            network.double()
    losses = ours.train_step(given, 3)
    with plain.plain_arithmetic():
        expected = plain.train_step(theirs, given, 3)
    assert list(losses) == list(expected)
    torch.testing.assert_close(losses, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(parameters(ours.nets), parameters(theirs.nets), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(parameters(ours.nets_ema), parameters(theirs.nets_ema), rtol=1e-9, atol=1e-10)


class Sync(TorchDispatchMode):
    """Refuses to read the value of a tensor, for which a CPU waits for its GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket not in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("flags", ["", "--augment ada"])
def test_an_iteration_never_synchronises_with_the_device(flags, parse):
    solver = Solver(parse("train", f"--num_domains 2 {flags}"))
    with pytest.raises(AssertionError), Sync():
        torch.ones(1).item()
    with Sync():
        solver.train_step(random_inputs(solver.config), 0)


def test_frozen_networks_get_no_weight_gradients(parse, monkeypatch):
    solver = Solver(parse("train", "--num_domains 2"))
    learned = []

    def step(self, name=None):
        learned.append({n for n, net in solver.nets.items() if any(p.requires_grad for p in net.parameters())})

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    solver.train_step(random_inputs(solver.config), 0)
    everyone = {"generator", "mapping_network", "style_encoder"}
    assert learned == [{"discriminator"}] * 2 + [everyone] * 3 + [{"generator"}]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_learner_gets_gradients_from_its_last_update(precision, parse):
    """Also in bf16, where autocast keeps casts of weights: those made without a graph would end gradients."""
    args = parse("train", f"--num_domains 2 --precision {precision}")
    solver = Solver(args)
    solver.train_step(random_inputs(args), 0)
    for name in ("generator", "mapping_network", "style_encoder", "discriminator"):
        trunk = [p.grad for key, p in solver.nets[name].named_parameters() if not key.startswith("unshared")]
        assert all(grad is not None for grad in trunk) and any(grad.abs().max() > 0 for grad in trunk), name


def test_bf16_is_close_and_keeps_weights_and_losses_in_fp32(parse):
    args = parse("train", "--num_domains 2"), parse("train", "--num_domains 2 --precision bf16")
    exact, rough = (Solver(a).train_step(random_inputs(a), 0) for a in args)
    for name, value in exact.items():
        assert float(rough[name]) == pytest.approx(float(value), rel=0.1, abs=0.02), name
    solver = Solver(args[1])
    losses = solver.train_step(random_inputs(args[1]), 0)
    assert all(p.dtype == torch.float32 for network in solver.nets.values() for p in network.parameters())
    assert {value.dtype for value in losses.values() if torch.is_tensor(value)} == {torch.float32}
    # R1 is computed in fp32, so it is equal in the first update, before weights differ.
    assert float(losses["D/latent_reg"]) == pytest.approx(float(exact["D/latent_reg"]), rel=1e-5)


def test_channels_last_computes_the_same(parse):
    args = parse("train", "--num_domains 2"), parse("train", "--num_domains 2 --channels_last")
    usual, other = (Solver(a) for a in args)
    expected, found = (solver.train_step(random_inputs(solver.config), 0) for solver in (usual, other))
    assert other.nets.generator.from_rgb.weight.is_contiguous(memory_format=torch.channels_last)
    for name in ("D/latent_real", "D/latent_fake", "D/latent_reg"):  # before Adam turns rounding into steps
        assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-4)
