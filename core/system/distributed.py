"""Where the program runs and what chance it sees: device, precision, processes, random generators.

Networks use the device of their input; only the Solver asks this module which one that is. Nobody else knows how
many processes torchrun started: without it each function here means the same for a single one.
"""

import io
import os
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import SimpleNamespace
from uuid import uuid4

import torch
from torch import distributed as dist

from core.system import console
from core.system.errors import PeerError, PeerLost, UserError

PATIENCE = timedelta(hours=2)  # with a process that lives: the first may be looking at a million pictures
BUCKET = 2**25  # bytes of gradients that are sent together

_run = SimpleNamespace(store=None)  # what torchrun keeps for all processes, and from start to start


# Processes. torchrun tells each of them by its environment how many there are and which one it is.


@contextmanager
def process_group():
    """Within the context this process is one of those that torchrun started, if it did; the first one speaks."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        yield
        return
    from torch.distributed.rendezvous import rendezvous  # not every build of PyTorch has it

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _exchange():
        _run.store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        unused = _unused(_run.store, rank, size)
        dist.init_process_group(backend, store=unused, rank=rank, world_size=size, timeout=PATIENCE)
        if not is_main_process():
            console.set_rank_tag(f"[rank {rank}] ")
        over = _run.store.check(["over"]) and int(_run.store.get("over"))
    all_reduce_max(0)  # nobody ends while others still begin
    if over:
        raise SystemExit(over)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()  # after an error others may be gone: then the end of this process does it


def _unused(store, rank, size):
    """The part of the store that belongs to this start alone.

    torchrun hands processes that it starts again the store that the earlier ones have written into. So the first
    calls out a name that nobody had before, and goes on when all have answered with such names of their own.
    """
    name, end = uuid4().hex, time.monotonic() + PATIENCE.total_seconds()
    if rank == 0:
        store.set("call", name)
        for other in range(1, size):
            store.set(f"{name}/heard/{other}", store.get(f"{name}/answer/{other}"))
        return dist.PrefixStore(name, store)
    while time.monotonic() < end:
        call = store.get("call").decode()  # maybe an earlier one
        store.set(f"{call}/answer/{rank}", name)
        heard = f"{call}/heard/{rank}"
        if store.check([heard]) and store.get(heard).decode() == name:
            return dist.PrefixStore(call, store)
        time.sleep(0.02)
    raise PeerLost("the first process of this run does not answer")


# What processes that torchrun starts again, on any machine, find in its store: whether training had begun, and
# whether it is of no use to start again.


def has_begun():
    """Whether this run has begun to train, maybe before torchrun started it again."""
    with suppress(RuntimeError):  # the store went with the process that kept it
        return _run.store is not None and _run.store.check(["begun"])
    return True


def declare_begun():
    """From now on steps in the folder are this run's: when it is started again, it goes on from the newest."""
    if _run.store is not None:
        _run.store.set("begun", "1")


def declare_over(status):
    """Processes started again would end as these: let them end at once, silently, with this exit status."""
    if _run.store is not None:
        with suppress(RuntimeError):  # it went with the process that kept it
            _run.store.set("over", str(status))


def world_size():
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main_process():
    """Whether this is the process that writes and speaks."""
    return not dist.is_initialized() or dist.get_rank() == 0


def release_other_ranks():
    """Whether this is the first process, which goes on alone: the others have nothing more to do."""
    first = is_main_process()
    if dist.is_initialized():
        dist.destroy_process_group()
    return first


def shard(count, unit=1):
    """The part of range(count) that is this process's, as a slice; the parts of all follow each other.

    It begins at a multiple of `unit`, so that what is taken `unit` at a time is taken as in a single process.
    """
    rank, units = dist.get_rank() if dist.is_initialized() else 0, -(-count // unit)
    start, stop = (units * number // world_size() * unit for number in (rank, rank + 1))
    return slice(min(start, count), min(stop, count))


def local_batch_size(batch_size):
    """How many images of a batch are this process's. Raises UserError where they cannot all have as many."""
    each, rest = divmod(batch_size, world_size())
    if rest:
        fit = " or ".join(str(number * world_size()) for number in (each, each + 1) if number)
        raise UserError(f"--batch_size {batch_size} cannot be divided among {world_size()} processes: {fit} would fit")
    return each


def all_reduce_max(number):
    """The highest of the numbers that the processes have."""
    if world_size() == 1:
        return number
    tensor = torch.tensor(number)
    with _exchange():
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.item()


def all_reduce_sum(tensor):
    """The sum of a CPU tensor over processes."""
    if world_size() > 1:
        tensor = tensor.clone()
        with _exchange():
            dist.all_reduce(tensor)
    return tensor


@contextmanager
def sync_errors():
    """Leave the block in step with the other processes: an error in one is an error in all.

    The first that has one shows it; in the others it is PeerError. Such an error is marked as `common`.
    """
    if world_size() == 1:
        yield
        return
    failure = None
    try:
        yield
    except PeerLost:
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is, the others wait)
        failure = error
    own = world_size() - dist.get_rank()
    shown = all_reduce_max(own if failure else 0)
    if not shown:
        return
    error = failure if failure and shown == own else PeerError()
    error.common = True
    raise error


def on_main_process(work):
    """Return work(), done by the first process alone, in all of them.

    It may hold tensors and plain values. An error of it is one in all.
    """
    if world_size() == 1:
        return work()
    value = None
    with sync_errors():
        if is_main_process():
            value = work()
    return _from_first(value)


def _from_first(value):
    file = io.BytesIO()
    if is_main_process():
        torch.save(value, file)
    size = torch.tensor(file.tell())
    with _exchange():
        dist.broadcast(size, 0)
        if is_main_process():
            content = torch.frombuffer(file.getbuffer(), dtype=torch.uint8)
        else:
            content = torch.empty(size, dtype=torch.uint8)
        dist.broadcast(content, 0)
    return (
        value if is_main_process() else torch.load(io.BytesIO(content.numpy()), map_location="cpu", weights_only=True)
    )


def all_reduce_mean(tensors):
    """Make tensors of one type and device, gradients say, their means over processes, in place.

    They are sent in flat buckets, the next one made while the last one is under way. To send them while backward
    still computes others, as DistributedDataParallel does, was not faster (benchmarks/README.md).
    """
    if world_size() == 1:
        return
    tensors = list(tensors)
    if tensors[0].is_cuda:
        all_reduce_max(0)  # a process that is gone is noticed here; NCCL would wait for it
    buckets, sent, size = [], [], BUCKET
    for tensor in tensors:
        if size >= BUCKET:
            buckets.append([])
            size = 0
        buckets[-1].append(tensor)
        size += tensor.nbytes
    for bucket in buckets:
        flat = torch.cat([tensor.flatten() for tensor in bucket]).div_(world_size())
        with _exchange():
            sent.append((flat, dist.all_reduce(flat, async_op=True)))
    for bucket, (flat, work) in zip(buckets, sent, strict=True):
        with _exchange():
            work.wait()
        means = flat.split([tensor.numel() for tensor in bucket])
        torch._foreach_copy_(bucket, [m.view_as(tensor) for m, tensor in zip(means, bucket, strict=True)])


@contextmanager
def _exchange():
    try:
        yield
    except RuntimeError as error:  # the backends have no class of their own
        raise PeerLost(f"the other processes of this run cannot be reached ({error})") from error
