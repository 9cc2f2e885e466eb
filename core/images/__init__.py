"""Image files and folders of images."""
