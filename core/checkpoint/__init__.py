"""Checkpoints: files of a step, what they say about their networks, and how runs start from them."""

from core.checkpoint.io import CheckpointIO

__all__ = ["CheckpointIO"]
