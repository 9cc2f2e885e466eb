"""A data set to try the program on, with known factors (factors.jsonl): faces of bears, cats and dogs."""

import argparse
import json
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np

from core.system import console
from data.demo_faces import DOMAINS, draw, random_face

FACTORS = "factors.jsonl"


def make(out, size=64, train=1000, val=100, seed=0):
    """Write train/ and val/, with so many images per domain, and their factors. Raises OSError."""
    out = Path(out)
    lines = []
    for part, count in (("train", train), ("val", val)):
        for domain in DOMAINS:
            folder = out / part / domain
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("[0-9][0-9][0-9][0-9][0-9].png"):  # of an earlier set, which may be larger
                old.unlink()
            for number in range(count):
                key = zlib.crc32(f"{seed} {part} {domain} {number}".encode())
                face = random_face(domain, np.random.default_rng(key))
                path = folder / f"{number:05d}.png"
                draw(face, size).save(path)
                lines.append(json.dumps({"file": path.relative_to(out).as_posix(), **asdict(face)}) + "\n")
    (out / FACTORS).write_text("".join(lines), encoding="utf-8")


def main(argv=None):
    """Run a command line. Exits with status 2 if a value is wrong or the folder cannot be written."""
    parser = argparse.ArgumentParser(description="Draw a data set of animal faces whose factors are known.")
    parser.add_argument("--out", default="data/demo", help="folder for train/, val/ and factors.jsonl")
    parser.add_argument("--size", type=int, default=64, help="side of the images")
    parser.add_argument("--train", type=int, default=1000, help="training images per domain")
    parser.add_argument("--val", type=int, default=100, help="validation images per domain")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if min(args.size, args.train) < 1 or args.val < 0:
        parser.error("--size and --train must be at least 1, --val at least 0")
    try:
        make(args.out, args.size, args.train, args.val, args.seed)
    except OSError as error:
        parser.error(f"{args.out} cannot be written ({error.strerror}): choose another --out")
    total = len(DOMAINS) * (args.train + args.val)
    console.info(f"Drew {total} pictures of {', '.join(DOMAINS)} in {args.out}")


if __name__ == "__main__":
    main()
