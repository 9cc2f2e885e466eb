"""What fits into memory, and what the system refuses."""

import math
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import torch

from core.system import console


def chunks(count, size):
    """Slices of at most `size` that cover range(count)."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class MicroBatch:
    """How many images go through the networks at once.

    setting: a number, or "auto": the whole batch, halved for good each time memory runs out. (Where a system ends a
    process that asks for too much, as Linux does for CPU memory, only a number helps.)
    """

    def __init__(self, setting, batch_size):
        self.automatic = setting == "auto"
        self.size = batch_size if self.automatic else min(setting, batch_size)
        self.has_failed = False  # the last attempt, for lack of memory

    def run(self, network, *inputs):
        """Return [network(*parts), ...] for parts of the inputs, which have one length, of at most `size` images."""
        outputs, start = [], 0
        while start < len(inputs[0]):
            for attempt in self.attempts():
                with attempt:
                    part = slice(start, start + self.size)
                    outputs.append(network(*(x[part] for x in inputs)))
            start = part.stop
        return outputs

    def attempts(self):
        """Yield contexts to work in with `size` images at a time, halved each time, until memory suffices for one."""
        yield self._attempt()
        while self.has_failed:
            self.size //= 2  # only now: the traceback of the error kept the tensors alive
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            console.warn(f"memory ran out: going on with {self.size} images at once (--micro_batch {self.size})")
            yield self._attempt()

    @contextmanager
    def _attempt(self):
        try:
            yield
            self.has_failed = False
        except RuntimeError as error:
            self.has_failed = self.automatic and self.size > 1 and _is_out_of_memory(error)
            if not self.has_failed:
                raise


def _is_out_of_memory(error):
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _reader_died(error):
    """Whether an error of a DataLoader says that one of its processes is gone, maybe amid handing over a batch."""
    if "in DataLoader worker process" in str(error):
        return False  # handed on by one that lives
    names_worker = isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
    return names_worker or isinstance(error, (ConnectionError, EOFError, FileNotFoundError))


def explain(error):
    """One sentence for what the system refused; an empty text where the error is another one."""
    fewer_workers = "choose fewer --num_workers (0: none)"
    if _is_out_of_memory(error):
        smaller = "choose a smaller --img_size, --channel_base, --val_batch_size or --micro_batch"
        return f"memory ran out: {smaller}, or end other programs"
    if "shared memory" in str(error) or "/torch_" in str(error):
        return f"shared memory ran out: {fewer_workers}"
    if _reader_died(error):
        return f"a process that reads images was ended from outside, often for lack of memory: {fewer_workers}"
    return ""


def images_at_once(device, img_size, batch_size):
    """How many images best go through the networks together where nothing is learned: on a GPU the whole batch."""
    # On a CPU few, whose tensors stay in the caches: at 256 px, 2 are a quarter faster than 8 and need 0.5 GB less.
    return batch_size if device.type != "cpu" else max(1, min(batch_size, 2**17 // img_size**2))


def peak_memory(device, reset=False):
    """Most bytes held so far, of a GPU or of this process; NaN if unknown. reset: count anew (on Linux and CUDA)."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return peak
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # not Linux
        if sys.platform == "win32":
            return math.nan
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident():
    """Bytes of memory that this process holds now; where the system does not tell, what is usual after the imports."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        return 600_000_000


def memory_of(device):
    """Bytes of memory that a GPU has, or else this machine; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # no POSIX
        return None
