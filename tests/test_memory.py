import pytest
import torch

from core.system import memory


def test_chunks():
    assert memory.chunks(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]


def out_of_memory():
    """Ask the system for what no machine has, so that PyTorch's own error comes."""
    torch.empty(2**60, dtype=torch.uint8)


def test_micro_batch_halves_when_memory_runs_out(capsys):
    micro_batch, tried = memory.MicroBatch("auto", 8), []

    def work(size):
        tried.append(size)
        if size > 2:
            out_of_memory()
        return f"done with {size}"

    assert micro_batch.fit(work) == "done with 2"
    assert tried == [8, 4, 2]
    assert "memory ran out: going on with 4 images" in capsys.readouterr().err
    assert micro_batch.fit(work) == "done with 2" and tried == [8, 4, 2, 2], "halved for good"


def test_micro_batch_raises_what_it_cannot_mend():
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        memory.MicroBatch("auto", 1).fit(lambda size: out_of_memory())
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        memory.MicroBatch(4, 8).fit(lambda size: out_of_memory())

    def broken(size):
        raise RuntimeError("another matter")

    with pytest.raises(RuntimeError, match="another matter"):
        memory.MicroBatch("auto", 8).fit(broken)


def test_micro_batch_is_at_most_the_batch():
    assert memory.MicroBatch(16, 8).size == 8
    assert memory.MicroBatch(2, 8).size == 2
    assert memory.MicroBatch("auto", 8).size == 8


def test_pictures_are_drawn_in_small_batches_on_a_cpu():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [memory.images_at_once(cpu, size, 8) for size in (32, 128, 256, 512)] == [8, 8, 2, 1]
    assert memory.images_at_once(gpu, 256, 8) == 8
