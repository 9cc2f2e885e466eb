"""Command lines of the tests."""

from pathlib import Path

from PIL import Image

import main

ROOT = Path(main.__file__).parent

# Networks that only need to be there: 32 px, some ten thousand parameters.
NARROW = "--device cpu --w_hpf 0 --img_size 32 --channel_base 256 --max_conv_dim 16 --hidden_dim 32"
RUN = f"{NARROW} --batch_size 2 --num_workers 0"


def as_flags(values):
    """{"lr": 0.1, ...} -> ["--lr", "0.1", ...]"""
    return [text for name, value in values.items() for text in (f"--{name}", str(value))]


def picture(path):
    """An image file as a PIL image, the file closed."""
    with Image.open(path) as image:
        image.load()
        return image


def call(mode, flags="", **folders):
    """Run main in this process -> exit status."""
    paths = as_flags(folders)
    return main.main(["--mode", mode, *flags.split(), *paths])
