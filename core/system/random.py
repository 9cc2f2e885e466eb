"""Random generators that depend only on a key."""

import hashlib

import torch


def random_generator(*key):
    """Return a CPU torch.Generator that depends only on `key`, for example (seed, "z", iteration)."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
