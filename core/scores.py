"""Scores on the disk and on the console."""

import json
import math
from pathlib import Path
from statistics import fmean, stdev

from core import log
from core.files import make_folder, replacing

METRICS = ("FID", "KID", "LPIPS")


def write_scores(eval_dir, step, mode, by_seed, about):
    """Write {metric}_{step}_{mode}.json for each metric and a line of scores.jsonl; return the means over tasks.

    by_seed: {seed: {task: Scores}}. about: plain values that say how the scores came about; they stand beside
    them. Of several seeds the files hold means, and under "std" standard deviations.
    """
    about = {"step": step, "seeds": list(by_seed)} | about
    means = {}
    for metric in METRICS:
        values = _values(by_seed, metric)
        content = {f"{metric}_{mode}/{task}": _plain(fmean(found)) for task, found in values.items()}
        means[metric] = content[f"{metric}_{mode}/mean"]
        if len(by_seed) > 1:
            content["std"] = {f"{metric}_{mode}/{task}": _plain(stdev(found)) for task, found in values.items()}
        with replacing(Path(eval_dir) / f"{metric}_{step:05d}_{mode}.json") as temporary:
            temporary.write_text(json.dumps(content | about, indent=2) + "\n", encoding="utf-8")
    make_folder(eval_dir)
    with (Path(eval_dir) / "scores.jsonl").open("a", encoding="utf-8") as history:
        history.write(json.dumps({"mode": mode, **means, **about}) + "\n")
    return means


def score_table(step, by_mode):
    """Print the scores: a line for each mode and task. by_mode: {mode: by_seed as in `write_scores`}."""
    log.say(f"Scores of step {step}:")
    log.say(f"  {'':<10} {'task':<24}" + "".join(f"{metric:>12}" for metric in METRICS))
    for mode, by_seed in by_mode.items():
        columns = [_values(by_seed, metric) for metric in METRICS]
        for task in columns[0]:
            cells = [f"{fmean(column[task]):>12.4f}" for column in columns]
            log.say(f"  {mode:<10} {task:<24}" + "".join(cells))


def _values(by_seed, metric):
    """A metric's value for each seed: {task: list, ..., "mean": list}."""
    runs = [{task: getattr(scores, metric) for task, scores in found.items()} for found in by_seed.values()]
    runs = [run | {"mean": fmean(run.values())} for run in runs]
    return {task: [run[task] for run in runs] for task in runs[0]}


def _plain(value):
    """JSON has no word for a value that could not be computed but null."""
    return value if math.isfinite(value) else None
