"""Write, read and print scores."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.system import console
from core.system.files import system_errors, write_text
from core.system.notes import read_json_lines


class Scores(NamedTuple):
    """Scores of a task: FID and KID (lower is better), LPIPS (diversity, higher is better).

    NaN where there are too few images, see `missing_scores`.
    """

    FID: float
    KID: float
    LPIPS: float


METRICS = Scores._fields
HISTORY = "scores.jsonl"


def missing_scores(training_images, validation_images, outputs):
    """Return {metric: sentence that says which tasks lack the score and what it needs}.

    training_images, validation_images: {domain: number}. outputs: number per source and task.
    """
    missing = {}
    few = [name for name, number in training_images.items() if number < 2]
    lone = [name for name, number in validation_images.items() if number * outputs < 2]
    if few or lone:
        tasks = [f"into {', '.join(few)} (1 training image)"] if few else []
        tasks += [f"from {', '.join(lone)} (1 output)"] if lone else []
        need = "It needs at least 2 training images of the target and 2 outputs of the source"
        missing["KID"] = f"KID has no value for translations {' and '.join(tasks)}. {need}."
    if outputs < 2:
        need = "It needs at least 2 outputs per source, but --num_outs_per_domain is 1"
        missing["LPIPS"] = f"LPIPS has no value for any translation. {need}."
    return missing


def write_scores(eval_dir, step, mode, by_seed, about):
    """Write {metric}_{step}_{mode}.json for each metric and a line of scores.jsonl; return the means over tasks.

    by_seed: {seed: {task: Scores}}; for several seeds the files have means and "std". Means are over the scores that
    exist. about: further {name: value}; of its "missing_scores", a file has the sentence on its metric as "missing".
    """
    about = {"step": step, "seeds": list(by_seed)} | about
    missing = about.pop("missing_scores", {})
    means = {}
    for metric in METRICS:
        values = _values(by_seed, metric)
        content = {f"{metric}_{mode}/{task}": _finite(_mean(scores)) for task, scores in values.items()}
        means[metric] = content[f"{metric}_{mode}/mean"]
        if len(by_seed) > 1:
            std = {f"{metric}_{mode}/{task}": _finite(np.std(scores, ddof=1)) for task, scores in values.items()}
            content["std"], means[f"{metric}_std"] = std, std[f"{metric}_{mode}/mean"]
        note = {"missing": missing[metric]} if metric in missing else {}
        file = Path(eval_dir, f"{metric}_{step:05d}_{mode}.json")
        write_text(file, json.dumps(content | note | about, indent=2) + "\n")
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


def score_table(step, by_mode, missing):
    """Print one line per mode and task. by_mode: {mode: by_seed as in `write_scores`}. missing: `missing_scores`."""
    console.info(f"Scores of step {step}:")
    console.info(f"  {'':<10} {'task':<24}" + "".join(f"{metric:>20}" for metric in METRICS))
    for mode, by_seed in by_mode.items():
        columns = [_values(by_seed, metric) for metric in METRICS]
        for task in columns[0]:
            console.info(f"  {mode:<10} {task:<24}" + "".join(f"{_shown(column[task]):>20}" for column in columns))
    for sentence in missing.values():
        console.info(f"  nan: {sentence} Means are over the scores that exist.")


def _shown(values):
    deviation = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
    return f"{_mean(values):.5g}{deviation}"


def _mean(values):
    """Return the mean of the finite values, NaN without any."""
    finite = [value for value in values if math.isfinite(value)]
    return np.mean(finite) if finite else math.nan


def _values(by_seed, metric):
    """Return the values of a metric, one per seed: {task: list, ..., "mean": list}."""
    runs = [{task: getattr(scores, metric) for task, scores in tasks.items()} for tasks in by_seed.values()]
    runs = [run | {"mean": _mean(run.values())} for run in runs]
    return {task: [run[task] for run in runs] for task in runs[0]}
