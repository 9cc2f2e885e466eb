"""Write, read and print scores."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.system import console
from core.system.files import read_json_lines, system_errors, write_text


class Scores(NamedTuple):
    """Scores of a task: FID and KID (lower is better), LPIPS (diversity, higher is better). NaN: too few images."""

    FID: float
    KID: float
    LPIPS: float


METRICS = Scores._fields
HISTORY = "scores.jsonl"


def write_scores(eval_dir, step, mode, by_seed, about):
    """Write {metric}_{step}_{mode}.json for each metric and a line of scores.jsonl; return the means over tasks.

    by_seed: {seed: {task: Scores}}; for several seeds the files have means and "std". about: further {name: value}.
    """
    about = {"step": step, "seeds": list(by_seed)} | about
    means = {}
    for metric in METRICS:
        values = _values(by_seed, metric)
        content = {f"{metric}_{mode}/{task}": _finite(np.mean(scores)) for task, scores in values.items()}
        means[metric] = content[f"{metric}_{mode}/mean"]
        if len(by_seed) > 1:
            std = {f"{metric}_{mode}/{task}": _finite(np.std(scores, ddof=1)) for task, scores in values.items()}
            content["std"], means[f"{metric}_std"] = std, std[f"{metric}_{mode}/mean"]
        write_text(Path(eval_dir, f"{metric}_{step:05d}_{mode}.json"), json.dumps(content | about, indent=2) + "\n")
    path = Path(eval_dir, HISTORY)
    with system_errors(path, "write"), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"mode": mode, **means, **about}) + "\n")
    return means


def history(eval_dir):
    """Read {eval_dir}/scores.jsonl: {step: {mode: row}} with the newest row per step and mode; {} without a file."""
    by_step = {}
    for row in read_json_lines(Path(eval_dir, HISTORY), _is_row):
        row |= {metric: _finite(row.get(metric)) for metric in METRICS}
        by_step.setdefault(row["step"], {})[row["mode"]] = row
    return by_step


def _is_row(row):
    """Whether a line of the history has a step, a mode and no scores but numbers and null."""
    step, kinds = row.get("step"), (int, float, type(None))
    return (
        type(step) is int
        and step >= 0
        and isinstance(row.get("mode"), str)
        and all(type(row.get(metric)) in kinds for metric in METRICS)
    )


def _finite(value):
    """Return a finite number as a float and None for anything else, since JSON has no NaN."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def best_step(eval_dir, steps):
    """Return the step with the lowest mean FID among the steps scored in the most modes; None without scores."""
    fids = {step: [row["FID"] for row in by_mode.values()] for step, by_mode in history(eval_dir).items()}
    fids = {step: values for step, values in fids.items() if step in steps and None not in values}
    most = max(map(len, fids.values()), default=0)
    candidates = [step for step, values in fids.items() if len(values) == most]
    return min(candidates, key=lambda step: sum(fids[step]), default=None)


def score_table(step, by_mode):
    """Print one line per mode and task. by_mode: {mode: by_seed as in `write_scores`}."""
    console.info(f"Scores of step {step}:")
    console.info(f"  {'':<10} {'task':<24}" + "".join(f"{metric:>20}" for metric in METRICS))
    for mode, by_seed in by_mode.items():
        columns = [_values(by_seed, metric) for metric in METRICS]
        for task in columns[0]:
            console.info(f"  {mode:<10} {task:<24}" + "".join(f"{_shown(column[task]):>20}" for column in columns))


def _shown(values):
    deviation = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
    return f"{np.mean(values):.5g}{deviation}"


def _values(by_seed, metric):
    """Return the values of a metric, one per seed: {task: list, ..., "mean": list}."""
    runs = [{task: getattr(scores, metric) for task, scores in tasks.items()} for tasks in by_seed.values()]
    runs = [run | {"mean": np.mean(list(run.values()))} for run in runs]
    return {task: [run[task] for run in runs] for task in runs[0]}
