"""Where all chance comes from: random generators that depend on a key alone."""

import hashlib

import torch


def random_generator(*key):
    """A CPU torch.Generator that depends on `key` alone: (seed, "z", iteration) say.

    Batches and codes are drawn from these, so that what iteration i sees is a function of (seed, i):
    the same on every device, for every number of workers, and after a resume.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
