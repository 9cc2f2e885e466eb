"""Seeded random generators."""

import torch

from core.system import random


def test_generators_depend_only_on_their_key():
    def draw(*key):
        return torch.rand(3, generator=random.random_generator(*key)).tolist()

    assert draw(777, "z", 5) == draw(777, "z", 5)
    assert len({tuple(draw(*key)) for key in [(777, "z", 5), (777, "z", 6), (778, "z", 5), (777, "source", 5)]}) == 4
