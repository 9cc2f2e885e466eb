"""Scores of generated images: FID and LPIPS. They come with `--mode eval`; nothing here imports core."""
