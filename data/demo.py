"""A tiny data set to try the program on: coloured shapes in three domains.

python -m data.demo --out data/demo --size 64 --train 200 --val 8

The domain is the shape; style is its colour and that of the background; content is where it stands,
how large and how tilted. Every picture depends on (seed, part, domain, number) alone.
"""

import argparse
import colorsys
import math
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CORNERS = {"circle": 90, "square": 4, "triangle": 3}
OVERSAMPLING = 4


def draw(domain, size, generator):
    """One RGB image (size x size) of a domain, drawn from a numpy generator."""
    hue, background_hue = generator.uniform(0, 1, 2)
    x, y = generator.uniform(0.38, 0.62, 2)
    radius = generator.uniform(0.22, 0.32)
    tilt = generator.uniform(-0.35, 0.35)

    side = size * OVERSAMPLING
    image = Image.new("RGB", (side, side), _colour(background_hue, 0.35, 0.95))
    corners = CORNERS[domain]
    angles = [tilt + math.pi * (2 * k + 1) / corners + math.pi / 2 for k in range(corners)]
    points = [(side * (x + radius * math.cos(a)), side * (y + radius * math.sin(a))) for a in angles]
    ImageDraw.Draw(image).polygon(points, fill=_colour(hue, 0.85, 0.8))
    return image.resize((size, size), Image.Resampling.BOX)


def _colour(hue, saturation, value):
    return tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value))


def make(out, size=64, train=200, val=8, seed=0):
    """Write train/ and val/ with a folder per domain, holding `train` and `val` images each."""
    for part, count in (("train", train), ("val", val)):
        for domain in CORNERS:
            folder = Path(out) / part / domain
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("[0-9][0-9][0-9][0-9][0-9].png"):  # of an earlier, perhaps larger, set
                old.unlink()
            for number in range(count):
                key = zlib.crc32(f"{seed} {part} {domain} {number}".encode())
                draw(domain, size, np.random.default_rng(key)).save(folder / f"{number:05d}.png")


def main(argv=None):
    parser = argparse.ArgumentParser(description="Make a tiny data set of coloured shapes.")
    parser.add_argument("--out", default="data/demo", help="folder for train/ and val/")
    parser.add_argument("--size", type=int, default=64, help="side of the images")
    parser.add_argument("--train", type=int, default=200, help="training images per domain")
    parser.add_argument("--val", type=int, default=8, help="validation images per domain")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if min(args.size, args.train) < 1 or args.val < 0:
        parser.error("--size and --train must be at least 1, --val at least 0")
    try:
        make(args.out, args.size, args.train, args.val, args.seed)
    except OSError as error:
        parser.error(f"{args.out} cannot be written ({error.strerror}): choose another --out")
    total = len(CORNERS) * (args.train + args.val)
    sys.stdout.write(f"Drew {total} pictures of {', '.join(CORNERS)} in {args.out}\n")


if __name__ == "__main__":
    main()
