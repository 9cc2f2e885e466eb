"""What fits into memory, and what the system refuses."""

import math
import os
import sys
from pathlib import Path

import torch

from core.system import console

USUAL = 600_000_000  # bytes of a process that has imported PyTorch


def chunks(count, size):
    """Slices of at most `size` that cover range(count)."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class MicroBatch:
    """How many images go through the networks at once.

    setting: a number, or "auto": the whole batch, halved for good each time memory runs out. (Where a
    system ends a process that asks for too much, as Linux does for CPU memory, only a number helps.)
    """

    def __init__(self, setting, batch_size):
        self.automatic = setting == "auto"
        self.size = batch_size if self.automatic else min(setting, batch_size)

    def fit(self, work):
        """Return work(size), again with half the size where memory ran out; work must bear repeating."""
        while True:
            try:
                return work(self.size)
            except RuntimeError as error:
                if not (_is_out_of_memory(error) and self.automatic and self.size > 1):
                    raise
            self.size //= 2  # outside the handler, whose traceback would keep the tensors alive
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            console.warn(f"memory ran out: going on with {self.size} images at once (--micro_batch {self.size})")


def _is_out_of_memory(error):
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def reader_died(error):
    """Whether an error of a DataLoader says that one of its processes is gone, maybe amid handing over a batch."""
    if "in DataLoader worker process" in str(error):
        return False  # handed on by one that lives
    return isinstance(error, (ConnectionError, EOFError, FileNotFoundError)) or (
        isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
    )


def explain(error):
    """One sentence for what the system refused; an empty text where the error is another one."""
    if _is_out_of_memory(error):
        return (
            "memory ran out: choose a smaller --img_size, --channel_base, --val_batch_size or --micro_batch, or end "
            "other programs"
        )
    if "shared memory" in str(error) or "/torch_" in str(error):
        return "shared memory ran out: choose fewer --num_workers (0: none)"
    if reader_died(error):
        return (
            "a process that reads images was ended from outside, often for lack of memory: choose fewer --num_workers "
            "(0: none)"
        )
    return ""


def images_at_once(device, img_size, batch_size):
    """How many images best go through the networks together where nothing is learned.

    On a GPU the whole batch. On a CPU small ones, whose tensors stay in the caches: at 256 px, two are a
    quarter faster than eight and need half a gigabyte less.
    """
    return batch_size if device.type != "cpu" else max(1, min(batch_size, 2**17 // img_size**2))


def peak_memory(device, reset=False):
    """Most bytes held so far, of a GPU or else of this process's memory; NaN where the system does not tell.

    reset: count anew from here, where the system can (Linux, CUDA).
    """
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
    except (OSError, StopIteration):
        pass  # no Linux
    try:
        import resource  # not on Windows
    except ImportError:
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident():
    """Bytes of memory that this process holds now; where the system does not tell, what is usual after the imports."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return USUAL


def memory_of(device):
    """Bytes of memory that a GPU has, or else this machine; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # no POSIX
        return None
