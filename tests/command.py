"""Command lines that tests run."""

from pathlib import Path

from PIL import Image

import main
from core.cli.args import parse_given
from core.cli.config import RunConfig

ROOT = Path(main.__file__).parent
(SHIPPED_MODEL,) = (ROOT / "assets" / "demo").glob("*_nets_ema.ckpt")

# The smallest useful networks: 32 px, some ten thousand parameters.
NARROW = "--device cpu --w_hpf 0 --img_size 32 --channel_base 256 --max_conv_dim 16 --hidden_dim 32"
RUN = f"{NARROW} --batch_size 2 --num_workers 0"


def as_flags(values):
    """{"lr": 0.1, ...} -> ["--lr", "0.1", ...]"""
    return [text for name, value in values.items() for text in (f"--{name}", str(value))]


def config_of(mode, *line, **fields):
    """The RunConfig of a command line. fields: what was found on the disk, such as domains."""
    return RunConfig.from_given(parse_given(["--mode", mode, *map(str, line)]), **fields)


def picture(path):
    """An image file as a PIL image, the file closed."""
    with Image.open(path) as image:
        image.load()
        return image


def call(mode, flags="", **folders):
    """Run main in this process -> exit status."""
    paths = as_flags(folders)
    return main.main(["--mode", mode, *flags.split(), *paths])


def line_of(mode, flags, folders):
    """The command line of a run, after main.py."""
    return ["--mode", mode, *flags.split(), *as_flags(folders)]
