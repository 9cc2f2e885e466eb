"""The environment variables of torchrun and other launchers. Does not need PyTorch."""

import os


def is_rank_0():
    """Whether this is the only process, or rank 0 of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"
