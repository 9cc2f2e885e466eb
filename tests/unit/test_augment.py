"""Augmentation of what D sees: known answers, gradients by finite differences, and the adaptive probability."""

import math

import pytest
import torch
from torch import nn

from core import augment
from core.augment import FULL_RANGE, KINDS, LARGEST, NUMBERS, TARGET, WINDOW, Probability, augmented
from core.cli.flags import parse_flag
from core.losses import adversarial_loss, discriminator_loss
from core.model import Discriminator, initialize
from core.solver import Solver
from core.system.errors import UserError
from tests.solvers import random_inputs

SIZE = 16
FIRST = {"shift": 0, "scale": 2, "rotation": 3, "brightness": 4, "contrast": 5, "hue": 6, "saturation": 7, "cutout": 8}


def images(count=3, size=SIZE, dtype=torch.float64):
    x = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (2 * x - 1).to(dtype)


def numbers(*kinds, count=3, dtype=torch.float64, **values):
    """Random numbers with which only some kinds happen at p = 1. values: {kind: its first number, or a tuple}."""
    found = torch.rand(count, NUMBERS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for number, kind in enumerate(KINDS):
        found[:, number] = 0.0 if kind in (*kinds, *values) else 1.0
    for kind, value in values.items():
        for offset, each in enumerate(value if isinstance(value, tuple) else (value,)):
            found[:, len(KINDS) + FIRST[kind] + offset] = each
    return found.to(dtype)


def same(found, expected, atol=1e-12):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_nothing_happens_with_probability_0():
    x = images(dtype=torch.float32)
    random = torch.rand(3, NUMBERS)
    same(augmented(x, random, 0.0), x, atol=1e-5)
    same(augmented(x, random.double(), torch.tensor(0.0)), x, atol=1e-5)
    same(augmented(x, numbers(dtype=torch.float32), 1.0), x, atol=1e-5)


def test_flips_shifts_and_quarter_turns_move_whole_pixels():
    x = images()
    same(augmented(x, numbers("flip"), 1.0), x.flip(3))
    most = round(SIZE / 8)
    found = augmented(x, numbers(shift=(0.999999, 0.5)), 1.0)  # The result shows what was further right.
    same(found[..., :-most], x[..., most:])
    same(found[..., -most:], x[..., -most:].flip(3))  # beyond the edge: a reflection
    found = augmented(x, numbers(shift=(0.5, 0.0)), 1.0)
    same(found[..., most:, :], x[..., :-most, :])
    same(augmented(x, numbers(rotation=0.25), 1.0), x.rot90(1, (2, 3)), atol=1e-10)
    same(augmented(x, numbers("flip", rotation=0.5), 1.0), x.flip(2), atol=1e-10)


def test_scale_resizes_around_the_centre():
    """A horizontal ramp of slope 1 per unit gets the slope of the scale."""
    ramp = torch.linspace(-1 + 1 / SIZE, 1 - 1 / SIZE, SIZE, dtype=torch.float64).expand(1, 3, SIZE, SIZE)
    quantile = torch.special.ndtr(torch.tensor(-2.0, dtype=torch.float64)).item()  # two deviations below the mean
    found = augmented(ramp, numbers(count=1, scale=quantile), 1.0)
    same(found, ramp * 2 ** (-2 * 0.2), atol=1e-10)


def test_colours_change_as_their_names_say():
    x = images()
    grey = x.mean(1, keepdim=True)
    up = torch.special.ndtr(torch.tensor(1.0, dtype=torch.float64)).item()  # one deviation above the mean
    same(augmented(x, numbers(brightness=up), 1.0), x + 0.2, atol=1e-10)
    same(augmented(x, numbers(contrast=up), 1.0), x * 2**0.5, atol=1e-10)
    same(augmented(x, numbers(brightness=up, contrast=up), 1.0), (x + 0.2) * 2**0.5, atol=1e-10)
    same(augmented(x, numbers(saturation=up), 1.0), grey + 2 * (x - grey), atol=1e-10)
    turned = augmented(x, numbers(hue=1 / 3), 1.0)  # a third of a turn: red becomes green, green blue, blue red
    same(turned, x.roll(1, dims=1), atol=1e-10)
    turned = augmented(x, numbers(hue=0.1), 1.0)
    same(turned.mean(1, keepdim=True), grey)
    same((turned - grey).norm(dim=1), (x - grey).norm(dim=1))


def test_cutout_replaces_a_square_by_grey():
    x = images(size=16) + 3  # no grey before
    found = augmented(x, numbers(cutout=(0.5, 0.25)), 1.0)
    expected = x.clone()
    expected[..., 0:8, 4:12] = 0
    same(found, expected)


@pytest.mark.parametrize("kinds", [*[[kind] for kind in KINDS], list(KINDS)], ids=[*KINDS, "all"])
def test_gradients_equal_finite_differences(kinds):
    x = images(2, 8).requires_grad_()
    random = numbers(*kinds, count=2)
    assert torch.autograd.gradcheck(lambda x: augmented(x, random, 1.0), x)
    assert not torch.equal(augmented(x, random, 1.0), x)


def test_each_kind_happens_with_probability_p():
    count, p = 20_000, 0.3
    random = torch.rand(count, NUMBERS, generator=torch.Generator().manual_seed(3))
    x = torch.rand(1, 3, 8, 8).expand(count, 3, 8, 8)
    for number, kind in enumerate(KINDS):
        alone = random.clone()
        alone[:, : len(KINDS)] = 1.0
        alone[:, number] = random[:, number]
        changed = ((augmented(x, alone, p) - x).abs().amax((1, 2, 3)) > 1e-4).float().mean().item()
        # Half of the flips, and a shift of less than half a pixel in both directions, change nothing.
        wanted = {"flip": p / 2, "shift": p * 0.75}.get(kind, p)
        assert changed == pytest.approx(wanted, abs=0.02), kind


def test_half_precision_is_transformed_in_single_precision():
    x = images(dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = augmented(x, numbers(*KINDS, dtype=torch.float32), 1.0)
    assert found.dtype == torch.float32
    same(found, augmented(x.float(), numbers(*KINDS, dtype=torch.float32), 1.0), atol=0)


def test_numbers_depend_on_seed_and_iteration_only():
    first, again = (augment.random_numbers(7, 3, 4, 4) for _ in range(2))
    assert torch.equal(first, again) and first.shape == (4, 4, 2, NUMBERS)
    assert not torch.equal(first, augment.random_numbers(7, 4, 4, 4))
    assert not torch.equal(first, augment.random_numbers(8, 3, 4, 4))
    assert len(first.unique()) > 0.99 * first.numel(), "images, updates or views share numbers"


def test_r1_is_the_gradient_by_the_image_before_the_augmentation():
    """R1 and its gradient by the weights, against autograd through the augmentation as an explicit matrix: PyTorch
    has no second derivative of a resampling."""
    discriminator = Discriminator(SIZE, 2, 16, 256).double()
    initialize(discriminator)
    x, x_fake, y = images(2), images(2) / 2, torch.tensor([0, 1])
    random = torch.stack([numbers(*KINDS, count=2), numbers(*KINDS, count=2).flip(0)], dim=1)
    nets = {"discriminator": discriminator, "generator": nn.Module()}
    nets["generator"].render = lambda content, s_trg: x_fake
    loss, terms, meters = discriminator_loss(nets, x, y, y.flip(0), None, None, 3.0, (random, 0.5))
    discriminator.zero_grad()
    loss.backward()
    found = [p.grad.clone() for p in discriminator.parameters()]

    def affine(x):
        return augmented(x, random[:, 0], 0.5)

    jacobian = torch.autograd.functional.jacobian(affine, x).flatten(4).flatten(0, 3)  # (N C H W, N C H W)
    x_real = x.clone().requires_grad_()
    logits = discriminator((jacobian @ x_real.flatten() + affine(torch.zeros_like(x)).flatten()).view(x.shape), y)
    (gradient,) = torch.autograd.grad(logits.sum(), x_real, create_graph=True)
    penalty = 0.5 * gradient.square().flatten(1).sum(1).mean()
    fake = adversarial_loss(discriminator(augmented(x_fake, random[:, 1], 0.5), y.flip(0)), 0)
    expected = adversarial_loss(logits, 1) + fake + 3.0 * penalty
    assert terms["reg"].item() == pytest.approx(penalty.item(), rel=1e-10)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    assert meters["sign"].item() == logits.sign().mean().item()
    discriminator.zero_grad()
    expected.backward()
    for p, gradient in zip(discriminator.parameters(), found, strict=True):
        torch.testing.assert_close(gradient, p.grad, rtol=1e-9, atol=1e-12)


def test_the_probability_follows_the_sign_of_real_logits():
    probability = Probability()
    means = [1 - (7 / 8) ** number for number in range(1, 9)]  # D is sure: the mean sign rises from 0 towards 1
    for mean in means:
        probability.adapt(torch.tensor(1.0), WINDOW // 8)
        assert probability.sign.item() == pytest.approx(mean)
    rises = sum(mean > TARGET for mean in means)  # Before that, p stays 0.
    assert 0 < rises < 8 and probability.p.item() == pytest.approx(rises * (WINDOW // 8) / FULL_RANGE)
    for _ in range(FULL_RANGE // WINDOW):
        probability.adapt(torch.tensor(1.0), WINDOW)
    assert probability.p.item() == pytest.approx(LARGEST)
    probability.adapt(torch.tensor(TARGET - 0.1), WINDOW)  # a whole window: the mean is that of the last images
    assert probability.p.item() == pytest.approx(LARGEST - WINDOW / FULL_RANGE)
    parse_flag("augment_prob", LARGEST)
    with pytest.raises(UserError, match=f"<= {LARGEST}"):
        parse_flag("augment_prob", LARGEST + 0.01)
    for _ in range(FULL_RANGE // WINDOW):
        probability.adapt(torch.tensor(-1.0), WINDOW)
    assert probability.p.item() == 0


def test_nan_logits_do_not_spoil_the_probability():
    probability = Probability(0.5)
    probability.adapt(torch.tensor(math.nan).sign(), WINDOW)
    probability.adapt(torch.tensor(math.nan), WINDOW)
    assert probability.p.isfinite() and probability.sign.isfinite()


def test_only_d_sees_augmented_images(parse, monkeypatch):
    """Both views of the updates of D and the view of those of G are transformed; E, F and G get plain images."""
    seen = []
    monkeypatch.setattr("core.losses.augmented", lambda x, numbers, p: seen.append((numbers, p)) or x)
    plain, solver = (Solver(parse("train", f"--num_domains 2 {flags}")) for flags in ("", "--augment ada"))
    given = random_inputs(solver.config)
    assert solver.train_step(given, 0) == plain.train_step(given, 0)
    # R1 passes real images twice.
    assert len(seen) == 8 and all(p is solver.augmentation.p for _, p in seen)
    views = [numbers for numbers, _ in seen]
    assert sum(torch.equal(a, b) for i, a in enumerate(views) for b in views[:i]) == 2, "only R1 sees a view again"
    solver.train_step(given, 1)
    assert not torch.equal(seen[0][0], seen[8][0]), "two iterations share numbers"


def test_bf16_trains_with_augmentations(parse):
    solver = Solver(parse("train", "--num_domains 2 --augment fixed --precision bf16"))
    exact = Solver(parse("train", "--num_domains 2 --augment fixed"))
    given = random_inputs(solver.config)
    losses, expected = solver.train_step(given, 0), exact.train_step(given, 0)
    assert all(
        torch.as_tensor(losses[name]).item() == pytest.approx(float(expected[name]), abs=0.05) for name in losses
    )
    assert not solver.iteration.skipped.any()


def test_augmentation_changes_what_d_learns_and_is_measured(parse):
    plain, solver = (Solver(parse("train", f"--num_domains 2 --augment {name}")) for name in ("none", "fixed"))
    given = random_inputs(solver.config)
    losses, others = (each.train_step(given, 0) for each in (plain, solver))
    assert all(losses[name] != others[name] for name in ("D/latent_real", "D/ref_fake", "D/latent_reg"))
    assert "D/augment_p" not in solver.iteration.meters and -1 <= solver.iteration.meters["D/latent_sign"] <= 1
    assert solver.augmentation.p == pytest.approx(0.3)
    ada = Solver(parse("train", "--num_domains 2 --augment ada"))
    ada.augmentation.p.fill_(0.5)
    ada.train_step(given, 0)
    assert ada.iteration.meters["D/augment_p"].item() == pytest.approx(0.5 - 2 / FULL_RANGE)
