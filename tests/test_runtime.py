import pytest
import torch

from core import runtime
from core.errors import UserError


def test_generators_depend_on_their_key_alone():
    def draw(*key):
        return torch.rand(3, generator=runtime.random_generator(*key)).tolist()

    assert draw(777, "z", 5) == draw(777, "z", 5)
    assert len({tuple(draw(*key)) for key in [(777, "z", 5), (777, "z", 6), (778, "z", 5), (777, "source", 5)]}) == 4


def test_devices(monkeypatch):
    assert runtime.select_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.select_device("auto").type == "cpu"
    with pytest.raises(UserError, match="--device cuda: no CUDA device"):
        runtime.select_device("cuda")
    assert "threads" in runtime.describe_device(torch.device("cpu"))


def test_tf32_is_for_cuda():
    with pytest.raises(UserError, match="--precision tf32 needs CUDA, but the networks run on cpu"):
        runtime.set_precision("tf32", torch.device("cpu"))


def test_chunks():
    assert runtime.chunks(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]


def out_of_memory():
    """Ask the system for what no machine has, so that PyTorch's own error comes."""
    torch.empty(2**60, dtype=torch.uint8)


def test_micro_batch_halves_when_memory_runs_out(capsys):
    micro_batch, tried = runtime.MicroBatch("auto", 8), []

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
        runtime.MicroBatch("auto", 1).fit(lambda size: out_of_memory())
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        runtime.MicroBatch(4, 8).fit(lambda size: out_of_memory())

    def broken(size):
        raise RuntimeError("another matter")

    with pytest.raises(RuntimeError, match="another matter"):
        runtime.MicroBatch("auto", 8).fit(broken)


def test_micro_batch_is_at_most_the_batch():
    assert runtime.MicroBatch(16, 8).size == 8
    assert runtime.MicroBatch(2, 8).size == 2
    assert runtime.MicroBatch("auto", 8).size == 8


def test_pictures_are_drawn_in_small_batches_on_a_cpu():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [runtime.images_at_once(cpu, size, 8) for size in (32, 128, 256, 512)] == [8, 8, 2, 1]
    assert runtime.images_at_once(gpu, 256, 8) == 8
