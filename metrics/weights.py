"""Pretrained weights: torchvision's files in PyTorch's cache."""

import hashlib
import pickle
import re
import struct
import sys
import zipfile
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock
from tqdm import tqdm

from metrics import transfer

FAILURES = (  # no connection, wrong file at the address, damaged file, weights of another network
    OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
    AssertionError, ImportError, MemoryError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile,
    transfer.TransferError,
)  # fmt: skip


class MissingWeights(Exception):
    """A file of weights is missing and cannot be downloaded. The message states its URL and folder."""


def load_pretrained(build, weights):
    """Return build(), a torchvision network, in eval mode with its published weights. Raises MissingWeights.

    Downloads the weights if they are not in the cache.
    """
    path = weights_path(weights)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            with _waiting(path):  # one process downloads, the others wait
                _download(weights.url, path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        with torch.device("meta"):  # skips the random initialisation, which is slower than reading the file
            network = build()
        _check(state, network.state_dict())
        network.load_state_dict(state, assign=True)
    except FAILURES as error:
        reason = str(error).partition("\n")[0].rstrip(":. ")
        raise MissingWeights(
            f"Cannot load {path.name} ({reason}). Download it from {weights.url} to {path.parent}."
        ) from error
    return network.eval().requires_grad_(False)


def _check(state, expected):
    """Raise ValueError if tensors of a file are not of the kind of the network's, or are NaN or infinite."""
    for name, value in state.items():
        is_plain = type(value) in (torch.Tensor, torch.nn.Parameter) and not value.is_nested and not value.is_meta
        is_same = is_plain and name in expected and value.dtype == expected[name].dtype
        if not is_same or value.layout is not torch.strided or not value.isfinite().all():
            raise ValueError(f"{name} is unknown, of an unexpected kind, NaN or infinite")


def _download(url, path):
    """Download a file unless another process has done so. Its name contains the first digits of its SHA-256 hash."""
    if path.is_file():
        return
    part = path.with_name(f"{path.name}.part")
    progress = partial(tqdm, disable=not (sys.stderr and sys.stderr.isatty()))
    transfer.fetch(url, part, progress, tries=2)
    digest = hashlib.sha256(part.read_bytes())
    wanted = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if wanted and not digest.hexdigest().startswith(wanted[1]):
        transfer.forget(part)
        raise ValueError("the server sent another file: its hash is wrong")
    part.replace(path)
    transfer.forget(part)


def weights_path(weights):
    """Return the path of the file in PyTorch's cache: TORCH_HOME or ~/.cache/torch."""
    return Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]


@contextmanager
def _waiting(path):
    """Let one process download while the others wait. On disks without locks, each downloads."""
    with ExitStack() as stack:
        with suppress(OSError, NotImplementedError):
            stack.enter_context(FileLock(f"{path}.lock", fallback_to_soft=False))
        yield
