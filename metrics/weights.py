"""Pretrained weights: torchvision's own files, in PyTorch's own cache."""

import http.client
import pickle
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from filelock import FileLock

FAILURES = (  # no connection, another file at the address, a damaged file, weights of another network
    OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError, pickle.UnpicklingError,
    http.client.HTTPException,
)  # fmt: skip


class MissingWeights(Exception):
    """A file of weights could be neither found nor downloaded. The message says where to get and put it."""


def load_pretrained(build, weights):
    """A torchvision network, build(), in eval mode with its published weights; may download. Raises MissingWeights."""
    path = weights_path(weights)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with nullcontext() if path.is_file() else FileLock(f"{path}.lock"):  # one process downloads, others wait
            state = weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
        with torch.device("meta"):  # its random initialisation would take longer than reading the file
            network = build()
        network.load_state_dict(state, assign=True)
    except FAILURES as error:
        reason = str(error).partition("\n")[0].rstrip(":. ")
        raise MissingWeights(
            f"{path.name} could not be loaded ({reason}): fetch it from {weights.url} and put it into {path.parent}"
        ) from error
    return network.eval().requires_grad_(False)


def weights_path(weights):
    """The path of PyTorch's copy of the file: in TORCH_HOME, or ~/.cache/torch."""
    return Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]


@contextmanager
def full_precision(device):
    """Let networks compute in full precision, whatever the run's precision is, so that scores can be compared."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
