"""Compare the results of fast and plain training: short runs on the demo set with several random seeds.

python -m benchmarks.agreement --data data/demo

It compares fused with plain arithmetic, fp32 with bf16, and micro-batches with full batches. A difference matters only
if it is large compared with the differences between random seeds.
"""

import json
import statistics
import time
from pathlib import Path

import torch

from benchmarks import plain, short_run
from benchmarks.judge import read_faces, train_judge
from benchmarks.quality import MODES, measure
from core.cli.parser import Parser
from core.solver import Solver
from core.system.files import atomic_write

VARIANTS = {
    "fused": "", "plain": "", "bf16": "--precision bf16", "micro_batch 1": "--micro_batch 1",
}  # fmt: skip
SHOWN = ("domain", "x", "tilt", "fur", "background", "diversity", "cycle")
SETTINGS = "--img_size 32 --channel_base 512 --lambda_ds 4 --ema_decay 0.995"  # other settings are those of the preset


def train(options, variant, seed):
    """Train for options.iterations -> Solver, {loss name: mean over the last tenth of the iterations}."""
    step = plain_step if variant == "plain" else Solver.train_step
    flags, stops = f"{SETTINGS} {VARIANTS[variant]}", {options.iterations}
    ((_, solver, losses),) = short_run.train(flags, f"{options.data}/train", options.iterations, seed, step, stops)
    return solver, losses


def plain_step(solver, inputs, iteration):
    """Do an iteration as the original code does."""
    with plain.plain_arithmetic():
        return plain.train_step(solver, inputs, iteration)


def numbers_of(solver, judge, faces):
    """Return the measurements of the judge in both modes, in one row."""
    found = {mode: measure(solver, judge, faces, mode) for mode in MODES}
    return {f"{mode} {name}": row[name] for mode, row in found.items() for name in SHOWN if name in row}


def report(runs):
    """Print mean and standard deviation of each number, and the difference of its mean from the first variant.

    runs: {variant: [row of each seed]}. Raises StatisticsError for a single seed.
    """
    first = next(iter(runs))
    width = max(map(len, runs)) + 2
    for name in runs[first][0]:
        print(f"\n{name}")
        for variant, rows in runs.items():
            values = [row[name] for row in rows]
            line = f"  {variant:<{width}}{statistics.mean(values):8.3f} +- {statistics.stdev(values):.3f}"
            if variant != first:
                difference = statistics.mean(values) - statistics.mean(row[name] for row in runs[first])
                line += f"   {difference:+.3f} against {first}"
            print(line)


def main():
    """Train each variant with each seed, write all rows to --out after each run, and print the comparison."""
    parser = Parser(description=__doc__)
    parser.add_argument("--data", default="data/demo", help="folder created by python -m data.demo")
    parser.add_argument("--iterations", type=int, default=1000, help="iterations per run, >= 10")
    parser.add_argument("--seeds", type=int, default=3, help="number of random seeds, >= 2")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), help="what to compare")
    parser.add_argument("--out", default="expr/agreement.json", help="JSON file for all results")
    options = parser.parse_args()
    size = int(SETTINGS.split()[1])
    judge = train_judge(*read_faces(options.data, "train", size))
    faces = read_faces(options.data, "val", size)
    runs = {variant: [] for variant in options.variants}
    for seed in range(options.seeds):
        for variant, rows in runs.items():
            began = time.monotonic()
            solver, losses = train(options, variant, seed)
            rows.append(numbers_of(solver, judge, faces) | losses)
            print(f"seed {seed}, {variant}: {time.monotonic() - began:.0f} s", flush=True)
            with atomic_write(Path(options.out)) as temporary:
                temporary.write_text(json.dumps({"torch": torch.__version__, "runs": runs}, indent=2) + "\n")
    report(runs)


if __name__ == "__main__":
    main()
