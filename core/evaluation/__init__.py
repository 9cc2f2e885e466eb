"""FID, KID and LPIPS of translated images."""
