"""Arithmetic and memory that --dry_run counts."""

import torch

from core.cli.config import RunConfig
from core.dry_run import cost


def test_counter_counts_a_storage_until_its_last_view_goes():
    """Views and in-place changes need no more memory."""
    with cost.Counter() as counter:
        x = torch.zeros(1000)
        y = x[:500].view(2, 250)
        y += 1
        assert counter.held == counter.peak == 4000
        z = x * 2
        assert counter.held == counter.peak == 8000
        del z
        assert (counter.held, counter.peak) == (4000, 8000)
        del x
        assert counter.held == 4000  # the view still needs it
        del y
        assert counter.held == 0


def test_augmented_iterations_are_counted(parse):
    plain, augmented = (
        cost.training(RunConfig.from_args(parse("train", f"--num_domains 2 --augment {name}")), 2)
        for name in ("none", "ada")
    )
    assert plain.peak < augmented.peak < 1.5 * plain.peak
    assert plain.flops <= augmented.flops < 1.01 * plain.flops
