"""Demo data set: drawn faces of bears, cats and dogs, with their known factors in factors.jsonl."""

import json
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np

from core.cli.parser import Parser
from core.cli.values import INTEGER, PART, PATH, POSITIVE
from core.system import console
from core.system.errors import reason
from data.demo_faces import DOMAINS, draw, random_face

FACTORS = "factors.jsonl"


def make(out, size=64, train=1000, val=100, seed=0):
    """Write train/ and val/ and their factors. train, val: images per domain. Raises OSError."""
    out = Path(out)
    lines = []
    for part, count in (("train", train), ("val", val)):
        for domain in DOMAINS:
            folder = out / part / domain
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("[0-9][0-9][0-9][0-9][0-9].png"):  # remains of an earlier, larger set
                old.unlink()
            for number in range(count):
                key = zlib.crc32(f"{seed} {part} {domain} {number}".encode())
                face = random_face(domain, np.random.default_rng(key))
                path = folder / f"{number:05d}.png"
                draw(face, size).save(path)
                lines.append(json.dumps({"file": path.relative_to(out).as_posix(), **asdict(face)}) + "\n")
    (out / FACTORS).write_text("".join(lines), encoding="utf-8")


def main(argv=None):
    """Run the command line. Exits with status 2 if a value is invalid or writing fails."""
    parser = Parser(description="Draw a data set of animal faces whose factors are known.")
    parser.add("out", PATH, "data/demo", "output folder (default data/demo)")
    parser.add("size", POSITIVE, 64, "side of the images in pixels (default 64)")
    parser.add("train", POSITIVE, 1000, "training images per domain (default 1000)")
    parser.add("val", PART, 100, "validation images: a fraction of all, or a number per domain (default 100)")
    parser.add("seed", INTEGER, 0, "random seed (default 0)")
    args = parser.parse_args(argv)
    if args.val < 1:
        args.val = max(1, round(args.train * args.val / (1 - args.val)))
    try:
        make(args.out, args.size, args.train, args.val, args.seed)
    except OSError as error:
        parser.error(f"Cannot write {args.out} ({reason(error)}). Choose another folder for --out.")
    except KeyboardInterrupt:
        parser.exit(130, "error: Stopped by Ctrl-C. Run the same command again to draw all images.\n")
    total = len(DOMAINS) * (args.train + args.val)
    console.info(f"Wrote {total} images of {', '.join(DOMAINS)} to {args.out}")


if __name__ == "__main__":
    main()
