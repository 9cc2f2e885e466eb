"""The training loop."""

from core.training.loop import due


def test_due_every_nth_iteration_and_never_for_zero():
    assert [i for i in range(1, 10) if due(i, 3)] == [3, 6, 9]
    assert not any(due(i, 0) for i in range(10))
