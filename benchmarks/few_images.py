"""Measure what --augment does for few training images: short runs on small demo sets, with several random seeds.

python -m data.demo --out data/demo32 --size 32 --val 1000
python -m benchmarks.few_images --data data/demo32

Each run trains on the first 30, 100 or 1,000 training images of each domain, for the same number of iterations. The
judge of benchmarks.quality then measures translations of validation images. Each run writes a file into --out; a run
whose file exists is not repeated. So several processes can share the work: give each of them different --seeds.
"""

import json
import os
import shutil
import statistics
import time
from itertools import product
from pathlib import Path

import torch

from benchmarks import short_run
from benchmarks.judge import read_faces, train_judge
from benchmarks.paired import draw_rows
from benchmarks.quality import MODES, first_of_each, measure, translate
from core.cli.parser import Parser
from core.cli.values import integers
from core.system.errors import UserError
from core.system.files import write_text
from data import demo
from data.demo_faces import DOMAINS

# Other settings are those of the preset. At 32 px, eight images take hardly longer than four.
SETTINGS = "--img_size 32 --channel_base 512 --batch_size 8 --lambda_ds 4 --ema_decay 0.995"
SIZE = 32
FACTORS = ("domain", "x", "y", "size", "tilt", "fur", "background")  # 1 is perfect; eyes are too small at 32 px
SHOWN = 16  # columns of the grid
LARGEST = 300  # training images of a domain in `gap`


def step(solver, inputs, iteration):
    """Do an iteration. Return its losses and meters."""
    return solver.train_step(inputs, iteration) | solver.iteration.meters


def run(options, judge, faces, images, augment, seed):
    """Train once and write the measurements."""
    path = Path(options.out, f"{images}_{augment}_{seed}.json")
    if path.exists():
        read(path, settings_of(options, augment))  # raises UserError where it was another study
        return
    folder = Path(options.out, f"{images}_images")
    if not folder.exists():
        drawn = folder.with_name(f"{folder.name}.{os.getpid()}")  # Another process may draw the same images.
        demo.make(drawn, SIZE, images, val=1)
        try:
            drawn.rename(folder)
        except OSError:
            shutil.rmtree(drawn)  # The other one was faster.
    known = first_of_each(read_faces(folder, "train", SIZE), LARGEST)
    began, rows, iterations = time.monotonic(), {}, options.iterations
    flags, stops = settings_of(options, augment), (iterations // 2, iterations)
    for done, solver, losses in short_run.train(flags, folder / "train", iterations, seed, step, stops):
        found = {mode: measure(solver, judge, faces, mode) for mode in MODES}
        row = {f"{mode} {name}": value for mode, by_name in found.items() for name, value in by_name.items()}
        rows[done] = row | {"D/gap": gap(solver, known, faces)} | losses
        print(f"{path.stem}, iteration {done}: {time.monotonic() - began:.0f} s", flush=True)
    draw(path.with_suffix(".png"), solver, faces)
    write_text(path, json.dumps({"settings": flags, "by_iteration": rows}, indent=2) + "\n")


def settings_of(options, augment):
    """Return the flags of a run as text."""
    return f"{SETTINGS} --ds_iter {options.iterations} --augment {augment} {options.flags}".strip()


def read(path, settings):
    """Return the measurements {iteration: {name: value}} of a run. Raises UserError if its settings were others."""
    run = json.loads(path.read_text("utf-8"))
    if run["settings"] != settings:
        raise UserError(f"Cannot use {path} (its settings are {run['settings']}). Choose another folder with --out.")
    return run["by_iteration"]


def draw(path, solver, faces):
    """Write a grid: for each domain sources of the next one, references, and translations."""
    by_domain = [faces[0][faces[1] == label][:SHOWN] for label in range(len(DOMAINS))]
    rows = []
    for y_trg, x_ref in enumerate(by_domain):
        y_src = (y_trg + 1) % len(DOMAINS)
        x_src = by_domain[y_src][: len(x_ref)]
        labels = torch.full((len(x_src),), y_src)
        x_fake, _ = translate(solver, x_src, labels, y_trg, x_ref[: len(x_src), None], "reference")
        rows += [("source", x_src), ("reference", x_ref[: len(x_src)]), (DOMAINS[y_trg], x_fake[:, 0])]
    draw_rows(path, rows)


@torch.no_grad()
def gap(solver, known, faces):
    """Return how much higher D's logits are at training images (known) than at validation images (faces), in standard
    deviations of the latter. 0 means that D has memorised nothing."""
    parts = [[column.to(solver.device) for column in part[:2]] for part in (known, faces)]
    train, val = (solver.nets.discriminator(*part) for part in parts)
    return ((train.mean() - val.mean()) / val.std()).item()


def table(options, done):
    """Return a Markdown table of an iteration: mean and deviation over the seeds, and the difference from the first
    variant in standard errors."""
    rows = {}
    for images, augment in product(options.images, options.variants):
        for path in sorted(Path(options.out).glob(f"{images}_{augment}_*.json")):
            row = read(path, settings_of(options, augment))[str(done)]
            quality = [value for name, value in row.items() if name.split()[-1] in FACTORS]
            for name, value in {"mean of the factors": statistics.mean(quality), **row}.items():
                rows.setdefault(name, {}).setdefault((images, augment), []).append(value)
    columns = list(product(options.images, options.variants))
    lines = [
        "| | " + " | ".join(f"{images}, {augment}" for images, augment in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name, by_column in rows.items():
        cells, first = [], None
        for images, augment in columns:
            values = by_column.get((images, augment), [])
            if augment == options.variants[0]:
                first = values
            cells.append(_cell(values, None if first is values else first))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values, first):
    if len(values) < 2:
        return " ".join(f"{value:.3f}" for value in values)
    text = f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"
    if first and len(first) > 1:
        error = (statistics.variance(values) / len(values) + statistics.variance(first) / len(first)) ** 0.5
        text += f" ({(statistics.mean(values) - statistics.mean(first)) / max(error, 1e-9):+.1f})"
    return text


def report(options):
    """Do the runs that have no file yet, and print the tables. Raises UserError without the demo set."""
    judge = train_judge(*read_faces(options.data, "train", SIZE))
    faces = first_of_each(read_faces(options.data, "val", SIZE), options.val_images)
    for seed, images, augment in product(options.seeds, options.images, options.variants):
        run(options, judge, faces, images, augment, seed)
    for done in (options.iterations // 2, options.iterations):
        print(f"\nIteration {done}\n\n{table(options, done)}")


def main(argv=None):
    """Run the command line. Exits with status 2 after printing a UserError."""
    parser = Parser(description=__doc__)
    parser.add_argument("--data", default="data/demo32", help="folder created by python -m data.demo --size 32")
    parser.add_argument("--images", type=int, nargs="+", default=[30, 100, 1000], help="training images per domain")
    parser.add_argument("--variants", nargs="+", default=["none", "ada"], help="values of --augment")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="random seeds")
    parser.add("iterations", integers(2, 2**31), 4000, "iterations of each run")
    parser.add_argument("--flags", default="", help="further flags of main.py, as in '--flags=--device cpu'")
    parser.add_argument("--val_images", type=int, default=334, help="validation images per domain")
    parser.add_argument("--out", default="expr/few_images", help="folder for data and results")
    parser.run(report, argv)


if __name__ == "__main__":
    main()
