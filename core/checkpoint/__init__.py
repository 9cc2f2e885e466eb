"""Checkpoints: the files of a step, the settings stored in them, and how runs start from them."""

from core.checkpoint.io import CheckpointIO

__all__ = ["CheckpointIO"]
