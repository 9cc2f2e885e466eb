"""Scores of generated images: FID, KID and LPIPS. Nothing here imports core."""
