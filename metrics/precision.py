"""The precision of products of float32 numbers on NVIDIA GPUs: float32, or the faster and coarser TF32."""

import warnings
from contextlib import contextmanager

import torch


def set_tf32(matmul, convolution):
    """Allow or forbid TF32 in matrix products and in convolutions.

    PyTorch and libraries read `allow_tf32`, for example in torch.export. Reading it fails after `fp32_precision` was
    set, so this function sets `allow_tf32`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch 2.9 announces a later end of `allow_tf32`.
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution


@contextmanager
def full_precision(device):
    """Compute in full precision within the context, since scores must not depend on the precision of a run."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [backend.fp32_precision == "tf32" for backend in backends]  # can always be read, unlike `allow_tf32`
    set_tf32(matmul=False, convolution=False)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        set_tf32(*before)
