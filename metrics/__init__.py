"""Scores of generated images: FID, KID and LPIPS. This package does not import core."""
