"""The ranks (processes) of a torchrun run and their communication. A single process is one rank."""

import io
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import SimpleNamespace
from uuid import uuid4

import torch
from torch import distributed as dist

from core.system import console
from core.system.errors import PeerError, PeerLost, UserError
from core.system.launcher import check_launcher, is_launched

TIMEOUT = timedelta(hours=2)  # for a busy rank: rank 0 may need this long to check a million images

_torchrun = SimpleNamespace(store=None)  # torchrun's key-value store, shared by all ranks and all restarts


@contextmanager
def process_group():
    """Within the context, this process is a rank of the run if torchrun started it. Only rank 0 prints. Raises
    UserError if the variables of the launcher are wrong."""
    if not is_launched():
        yield
        return
    check_launcher()
    from torch.distributed.rendezvous import rendezvous  # Some builds of PyTorch lack it.

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _communication():
        _torchrun.store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
        store = _private_store(_torchrun.store, rank, size)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        if not is_main_process():
            console.set_rank_tag(f"[rank {rank}] ")
        over = _torchrun.store.check(["over"]) and int(_torchrun.store.get("over"))
    all_reduce_max(0)  # Wait until all ranks have started.
    if over:
        raise SystemExit(over)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()  # Not after an error: other ranks may have ended, and this process ends anyway.


def _private_store(store, rank, size):
    """Return torchrun's store with a key prefix that only this start of the ranks uses.

    After a restart by torchrun, the processes get the same store as before. So rank 0 publishes a fresh UUID as prefix
    and acknowledges the UUID of each other rank. The restart count cannot be the prefix: machines may differ in it.
    """
    uuid, end = uuid4().hex, time.monotonic() + TIMEOUT.total_seconds()
    if rank == 0:
        store.set("prefix", uuid)
        for other in range(1, size):
            store.set(f"{uuid}/acknowledged/{other}", store.get(f"{uuid}/uuid/{other}"))
        return dist.PrefixStore(uuid, store)
    while time.monotonic() < end:
        prefix = store.get("prefix").decode()  # may still be the prefix of an earlier start
        store.set(f"{prefix}/uuid/{rank}", uuid)
        acknowledged = f"{prefix}/acknowledged/{rank}"
        if store.check([acknowledged]) and store.get(acknowledged).decode() == uuid:
            return dist.PrefixStore(prefix, store)
        time.sleep(0.02)
    raise PeerLost(f"Cannot reach rank 0 of this run (no answer within {TIMEOUT}). Restart all processes.")


def has_begun():
    """Whether this run has started to train, perhaps before a restart by torchrun."""
    with suppress(RuntimeError):  # The process that hosts the store has ended.
        return _torchrun.store is not None and _torchrun.store.check(["begun"])
    return True


def declare_begun():
    """Declare that the steps in the folder belong to this run: after a restart it resumes from the newest one."""
    if _torchrun.store is not None:
        _torchrun.store.set("begun", "1")


def declare_over(status):
    """Declare that a restart would fail in the same way. A restarted run exits at once, silently, with this status."""
    if _torchrun.store is not None:
        with suppress(RuntimeError):  # The process that hosts the store has ended.
            _torchrun.store.set("over", str(status))


def world_size():
    """Return the number of ranks."""
    return dist.get_world_size() if dist.is_initialized() else 1


def _rank():
    return dist.get_rank() if dist.is_initialized() else 0


def is_main_process():
    """Whether this is rank 0, the only one that writes files and prints."""
    return _rank() == 0


def release_other_ranks():
    """Leave the process group. Return whether this is rank 0, which continues alone."""
    is_main = is_main_process()
    if dist.is_initialized():
        dist.destroy_process_group()
    return is_main


def shard(count, unit=1):
    """Return this rank's part of range(count) as a slice, in the order of ranks. It starts at a multiple of `unit`."""
    units = -(-count // unit)
    start, stop = (units * number // world_size() * unit for number in (_rank(), _rank() + 1))
    return slice(min(start, count), min(stop, count))


def local_batch_size(batch_size):
    """Return the number of images per rank. Raises UserError if the batch does not divide evenly."""
    each, rest = divmod(batch_size, world_size())
    if rest:
        choices = " or ".join(str(number * world_size()) for number in (each, each + 1) if number)
        rule = f"a multiple of {world_size()}, the number of processes ({choices})"
        raise UserError(f"--batch_size must be {rule}, got {batch_size}.")
    return each


# Collectives: all ranks must call them in the same order.


def all_reduce_max(numbers):
    """Return the maximum over ranks of a number, or of each element of a list."""
    if world_size() == 1:
        return numbers
    tensor = torch.tensor(numbers)
    with _communication():
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.tolist()


def all_reduce_sum(tensor):
    """Return the sum of a CPU tensor over ranks."""
    if world_size() > 1:
        tensor = tensor.clone()
        with _communication():
            dist.all_reduce(tensor)
    return tensor


def all_reduce_mean(tensors):
    """Replace tensors of one dtype and device, for example gradients, by their means over ranks, in place."""
    # Sending them during backward, as DistributedDataParallel does, was not faster (benchmarks/README.md).
    if world_size() == 1:
        return
    if tensors[0].is_cuda:
        all_reduce_max(0)  # This raises an error if a rank has ended. NCCL would wait for it.
    flat = torch.cat([tensor.flatten() for tensor in tensors]).div_(world_size())
    with _communication():
        dist.all_reduce(flat)
    means = flat.split([tensor.numel() for tensor in tensors])
    # This private function copies many tensors in one kernel. No public function does.
    torch._foreach_copy_(tensors, [mean.view_as(tensor) for mean, tensor in zip(means, tensors, strict=True)])


@contextmanager
def sync_errors():
    """Make all ranks leave the block together. The lowest rank with an error raises it, all others raise PeerError."""
    if world_size() == 1:
        yield
        return
    failure = None
    try:
        yield
    except PeerLost:
        raise
    except Exception as error:  # noqa: BLE001 (the other ranks wait, whatever the error is)
        failure = error
    priority = world_size() - _rank() if failure else 0
    top_priority = all_reduce_max(priority)
    if top_priority:
        error = failure if priority == top_priority else PeerError()
        error.on_all_ranks = True
        raise error


def is_on_all_ranks(error):
    """Whether all ranks left the same block with an error (see `sync_errors`), so that they can continue together."""
    return world_size() == 1 or getattr(error, "on_all_ranks", False)


def on_main_process(work):
    """Call work() on rank 0 only and return its value (tensors, plain values) on all ranks, or raise its error."""
    with sync_errors():
        value = work() if is_main_process() else None
    return value if world_size() == 1 else _broadcast(value)


def check_same(values, as_typed):
    """Raise UserError if the ranks have different values of flags, {name: value}. as_typed: shows a value."""
    if world_size() == 1:
        return
    texts = {name: as_typed(value) or "not set" for name, value in values.items()}
    main_texts = on_main_process(lambda: texts)
    with sync_errors():
        different = [f"--{name} is {text}, but {main_texts[name]} on rank 0"
                     for name, text in texts.items() if text != main_texts[name]]  # fmt: skip
        if different:
            problem = f"on rank {_rank()}, {' and '.join(different)}"
            raise UserError(f"Cannot start ({problem}). Start all processes with the same flags.")


def _broadcast(value):
    """Return rank 0's value on every rank. dist.broadcast_object_list would unpickle it, which may run code."""
    file = io.BytesIO()
    if is_main_process():
        torch.save(value, file)
    size = all_reduce_max(file.tell())
    if not is_main_process():
        file.write(bytes(size))
    with _communication():
        dist.broadcast(torch.frombuffer(file.getbuffer(), dtype=torch.uint8), 0)
    file.seek(0)
    return value if is_main_process() else torch.load(file, map_location="cpu", weights_only=True)


@contextmanager
def _communication():
    try:
        yield
    except RuntimeError as error:  # The backends raise no more specific class.
        problem = str(error).partition("\n")[0]
        raise PeerLost(f"Cannot reach the other processes of this run ({problem}). Restart all processes.") from error
