"""Memory: batches in parts that fit, errors of the system, and usage."""

import math
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import torch

from core.system import console


def chunks(count, size):
    """Return slices of at most `size` elements that cover range(count)."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class MicroBatch:
    """The number of images that pass through the networks at once.

    setting: a number, or "auto": the full batch, halved permanently each time memory runs out. Set a number if the
    system kills a process that uses too much memory, as Linux does for CPU memory.
    """

    def __init__(self, setting, batch_size):
        self.automatic = setting == "auto"
        self.size = batch_size if self.automatic else min(setting, batch_size)
        self.has_failed = False  # whether the last attempt ran out of memory

    def run(self, network, *inputs):
        """Return [network(*parts), ...] for parts of at most `size` images. All inputs must have the same length."""
        outputs, start = [], 0
        while start < len(inputs[0]):
            for attempt in self.attempts():
                with attempt:
                    part = slice(start, start + self.size)
                    outputs.append(network(*(x[part] for x in inputs)))
            start = part.stop
        return outputs

    def attempts(self):
        """Yield contexts for attempts with `size` images at a time. Halve `size` until an attempt has enough memory."""
        yield self._attempt()
        while self.has_failed:
            self.size //= 2  # Retry outside the except block, where the traceback no longer keeps the tensors alive.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            effect = "This is slower, but the results are the same up to rounding"
            console.warn(f"Out of memory. Continuing with --micro_batch {self.size}. {effect}.")
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
    """Whether a DataLoader raised the error because one of its workers was killed, perhaps while sending a batch."""
    if "in DataLoader worker process" in str(error):
        return False  # A living worker passed on its error.
    names_worker = isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
    return names_worker or isinstance(error, (ConnectionError, EOFError, FileNotFoundError))


def is_of_compiler(error):
    """Whether torch.compile raised the error."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor", "triton"))  # slow to import


def explain(error):
    """Return the message for an error that the system caused by lack of memory, a killed worker or a compiler that does
    not work, an empty text for other errors."""
    fewer_workers = "Reduce --num_workers (0 uses no worker processes)"
    if is_of_compiler(error):  # Check this first: the compiler may report too little shared memory of a GPU.
        cause = str(error).strip().removeprefix("backend='inductor' raised:\n").partition("\n")[0]
        return f"Cannot compile the networks ({cause[:200]}). Omit --compile."
    if _is_out_of_memory(error):
        smaller = "Reduce --img_size, --channel_base, --val_batch_size or --micro_batch, use smaller images"
        return f"Cannot allocate memory (out of memory). {smaller}, or close other programs."
    if "shared memory" in str(error) or "/torch_" in str(error):
        return f"Cannot allocate shared memory (out of memory). {fewer_workers}."
    if _reader_died(error):
        return f"Cannot read images (a worker process was killed, often for lack of memory). {fewer_workers}."
    return ""


def images_at_once(device, img_size, batch_size):
    """Return the number of images at once that is fastest for inference. On a GPU it is the full batch."""
    # On a CPU, tensors of few images fit the caches: at 256 px, 2 images are 25 % faster than 8 and need 0.5 GB less.
    return batch_size if device.type != "cpu" else max(1, min(batch_size, 2**17 // img_size**2))


def peak_memory(device, reset=False):
    """Return the peak memory of the GPU or else of this process in bytes, NaN if unknown. reset: restart the
    measurement (on Linux and CUDA)."""
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
        import resource  # Windows lacks it.

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident():
    """Return the memory that this process uses now in bytes; if unknown, a typical value after the imports."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        return 600_000_000


def memory_of(device):
    """Return the total memory of the GPU or else of this machine in bytes, None if unknown."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # no POSIX
        return None
