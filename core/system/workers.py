"""Worker processes that load images."""

import errno
from multiprocessing.util import get_temp_dir

from torch.utils.data import DataLoader, default_collate, get_worker_info

from core.system.errors import UserError, reason
from core.system.signals import set_worker_signals


def _collate(samples):
    """Return a batch. Workers move it to shared memory here, where an error reaches the main process. Otherwise a
    thread of the worker moves the labels; its error would lose the batch, and the main process would wait forever."""
    batch = default_collate(samples)
    for tensor in batch if get_worker_info() else ():
        tensor.share_memory_()
    return batch


class Loader(DataLoader):
    """DataLoader that raises UserError if the system cannot start its workers."""

    def __init__(self, *args, collate_fn=_collate, **options):
        super().__init__(*args, collate_fn=collate_fn, worker_init_fn=set_worker_signals, **options)

    def __iter__(self):
        try:
            if self.num_workers:
                get_temp_dir()  # Workers inherit this folder. One that could not create its own would lose batches.
            return super().__iter__()
        except OSError as error:  # The system has no shared memory, memory, processes or files left.
            action = "allocate shared memory" if error.errno == errno.ENOSPC else "start processes that load images"
            raise UserError(
                f"Cannot {action} ({reason(error)}). Reduce --num_workers (0 uses no worker processes)."
            ) from error
