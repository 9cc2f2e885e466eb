import pytest
import torch

from core.system import memory


def test_chunks_cover_all_items():
    assert memory.chunks(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]


def out_of_memory():
    """Ask for more memory than any machine has, so that PyTorch raises its own error."""
    torch.empty(2**60, dtype=torch.uint8)


def run_until_it_fits(micro_batch, work):
    """Attempt work(size) until it fits into memory."""
    for attempt in micro_batch.attempts():
        with attempt:
            result = work(micro_batch.size)
    return result


def test_a_part_that_does_not_fit_is_tried_again_in_halves(capsys):
    """Parts come in order, each once, and those that went well are not repeated."""
    micro_batch, worked = memory.MicroBatch("auto", 4), []

    def network(x, y):
        if len(x) > 2 and x[0] >= 4:
            out_of_memory()
        worked.append(x.tolist())
        return x + y

    x = torch.arange(10)
    outputs = micro_batch.run(network, x, 10 * x)
    assert worked == [[0, 1, 2, 3], [4, 5], [6, 7], [8, 9]]
    assert torch.equal(torch.cat(outputs), 11 * x)
    assert capsys.readouterr().err.count("Out of memory.") == 1 and micro_batch.size == 2


def test_micro_batch_halves_when_memory_runs_out(capsys):
    micro_batch, tried = memory.MicroBatch("auto", 8), []

    def work(size):
        tried.append(size)
        if size > 2:
            out_of_memory()
        return f"done with {size}"

    assert run_until_it_fits(micro_batch, work) == "done with 2"
    assert tried == [8, 4, 2]
    assert "Out of memory. Continuing with --micro_batch 4." in capsys.readouterr().err
    assert run_until_it_fits(micro_batch, work) == "done with 2" and tried == [8, 4, 2, 2], "halved for good"


def test_micro_batch_raises_other_errors_and_out_of_memory_at_its_minimum():
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        run_until_it_fits(memory.MicroBatch("auto", 1), lambda size: out_of_memory())
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        run_until_it_fits(memory.MicroBatch(4, 8), lambda size: out_of_memory())

    def broken(size):
        raise RuntimeError("another matter")

    with pytest.raises(RuntimeError, match="another matter"):
        run_until_it_fits(memory.MicroBatch("auto", 8), broken)


@pytest.mark.parametrize("module", ["torch._inductor.exc", "torch._dynamo.exc", "triton.runtime.errors"])
def test_errors_of_the_compiler_are_named_before_those_of_memory(module):
    """Triton may report too little shared memory of a GPU. DataLoader workers use shared memory of the system."""
    error = type("OutOfResources", (RuntimeError,), {"__module__": module})
    said = memory.explain(error("out of resource: shared memory, Required: 262144\nmore"))
    assert said == "Cannot compile the networks (out of resource: shared memory, Required: 262144). Omit --compile."


def test_micro_batch_is_at_most_the_batch():
    assert memory.MicroBatch(16, 8).size == 8
    assert memory.MicroBatch(2, 8).size == 2
    assert memory.MicroBatch("auto", 8).size == 8


def test_inference_batches_on_cpu_shrink_with_image_size():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [memory.images_at_once(cpu, size, 8) for size in (32, 128, 256, 512)] == [8, 8, 2, 1]
    assert memory.images_at_once(gpu, 256, 8) == 8
