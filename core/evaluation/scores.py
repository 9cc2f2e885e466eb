"""Scores on the disk and on the console."""

import json
import math
from pathlib import Path

import numpy as np

from core.system import console
from core.system.errors import UserError
from core.system.files import atomic_write

METRICS = ("FID", "KID", "LPIPS")


def write_scores(eval_dir, step, mode, by_seed, about):
    """Write {metric}_{step}_{mode}.json for each metric and a line of scores.jsonl; return the means over tasks.

    by_seed: {seed: {task: Scores}}. about: plain values that say how the scores came about; they stand beside
    them. Of several seeds the files hold means, and under "std" standard deviations.
    """
    about = {"step": step, "seeds": list(by_seed)} | about
    means, contents = {}, {}
    for metric in METRICS:
        values = _values(by_seed, metric)
        contents[metric] = {f"{metric}_{mode}/{task}": _plain(np.mean(found)) for task, found in values.items()}
        means[metric] = contents[metric][f"{metric}_{mode}/mean"]
        if len(by_seed) > 1:
            std = {f"{metric}_{mode}/{task}": _plain(np.std(found, ddof=1)) for task, found in values.items()}
            contents[metric]["std"] = std
            means[f"{metric}_std"] = std[f"{metric}_{mode}/mean"]
    for metric, content in contents.items():
        with atomic_write(Path(eval_dir) / f"{metric}_{step:05d}_{mode}.json") as temporary:
            temporary.write_text(json.dumps(content | about, indent=2) + "\n", encoding="utf-8")
    history = Path(eval_dir) / "scores.jsonl"
    try:
        with history.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"mode": mode, **means, **about}) + "\n")
    except OSError as error:
        raise UserError(f"{history} cannot be written ({error.strerror}): free the way or go elsewhere") from error
    return means


def history(eval_dir):
    """What {eval_dir}/scores.jsonl tells: {step: {mode: row}}, the newest row of a step and mode; {} without a file."""
    try:
        lines = (Path(eval_dir) / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    by_step = {}
    for line in lines:
        try:
            row = json.loads(line)
            step, mode = int(row["step"]), str(row["mode"])
            row.update({metric: _finite(row.get(metric)) for metric in METRICS})
        except (ValueError, LookupError, TypeError):
            continue  # torn when the run was killed, or no number
        by_step.setdefault(step, {})[mode] = row
    return by_step


def _finite(value):
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def best_step(eval_dir, steps):
    """Of the steps the one with the lowest FID (mean over modes) in the history of eval_dir; None: no scores."""
    scored = {
        step: by_mode
        for step, by_mode in history(eval_dir).items()
        if step in steps and all(row["FID"] is not None for row in by_mode.values())
    }
    most = max(map(len, scored.values()), default=0)
    means = {
        step: sum(row["FID"] for row in by_mode.values()) / most
        for step, by_mode in scored.items()
        if len(by_mode) == most
    }
    return min(means, key=means.get, default=None)


def score_table(step, by_mode):
    """Print the scores, means and deviations of several seeds: a line for each mode and task.

    by_mode: {mode: by_seed as in `write_scores`}.
    """
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
    """A metric's value for each seed: {task: list, ..., "mean": list}."""
    runs = [{task: getattr(scores, metric) for task, scores in found.items()} for found in by_seed.values()]
    runs = [run | {"mean": np.mean(list(run.values()))} for run in runs]
    return {task: [run[task] for run in runs] for task in runs[0]}


def _plain(value):
    """JSON has no word for a value that could not be computed but null."""
    return float(value) if math.isfinite(value) else None
