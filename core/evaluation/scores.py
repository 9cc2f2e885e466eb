"""Write, read and print scores."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.system import console
from core.system.files import system_errors, write_text
from core.system.notes import read_json_lines
from metrics.pairs import FEWEST

SET_SCORES = {  # scores of all outputs of a task as a set -> meaning
    "FID": "Distance from real images. Lower is better.",
    "KID": "The same, without bias for few images. Lower is better.",
    "precision": "Fraction of the outputs that look real. Higher is better.",
    "recall": "Fraction of the real images that outputs resemble. Near 0: collapse.",
    "density": "Real images around an output. Near 1 or more is good.",
    "coverage": "Fraction of the real images with an output nearby. Higher is better.",
    "accuracy": "Fraction of the outputs that a classifier takes for the target domain. Higher is better.",
}
IMAGE_SCORES = {  # means over the sources and outputs of a task -> meaning
    "LPIPS": "Diversity: distance between outputs of one source. Higher is more diverse.",
    "source_LPIPS": "Distance of outputs from their source. Lower keeps more of it.",
    "source_SSIM": "Similarity of structure to the source. Higher keeps more of it.",
    "cycle_LPIPS": "Distance of a source from its translation there and back. Lower keeps more of it.",
}
NOTES = SET_SCORES | IMAGE_SCORES
METRICS = tuple(NOTES)
MODES = {"latent": "random styles", "reference": "references"}  # of evaluation -> where styles come from
# The scores of a task, NaN where there are too few images, see `missing_scores`.
Scores = NamedTuple("Scores", [(name, float) for name in METRICS])
HISTORY = "scores.jsonl"


def missing_scores(training_images, validation_images, outputs):
    """Return {metric: sentence that says which tasks lack the score and what it needs}.

    training_images, validation_images: {domain: number}. outputs: number per source and task.
    """
    missing = {}
    for fewest in sorted(set(FEWEST.values())):
        few = [name for name, number in training_images.items() if number < fewest]
        lone = [name for name, number in validation_images.items() if number * outputs < fewest]
        if few or lone:
            tasks = [f"into {', '.join(few)} (fewer than {fewest} training images)"] if few else []
            tasks += [f"from {', '.join(lone)} (fewer than {fewest} outputs)"] if lone else []
            names = [name for name, number in FEWEST.items() if number == fewest]
            sentence = f"No {', '.join(names)} for translations {' and '.join(tasks)}."
            missing |= dict.fromkeys(names, sentence)
    if outputs < 2:
        missing["LPIPS"] = "No LPIPS for any translation (it needs 2 outputs per source: --num_outs_per_domain)."
    return missing


def write_scores(eval_dir, step, mode, by_seed, about):
    """Write {metric}_{step}_{mode}.json for each metric.

    by_seed: {seed: {task: Scores}}; for several seeds the files have means and "std". Means are over the scores that
    exist. about: further {name: value}; of its "missing_scores", a file has the sentence on its metric as "missing".
    """
    about = {"step": step, "seeds": list(by_seed)} | about
    missing = about.pop("missing_scores", {})
    for metric in METRICS:
        content = {f"{metric}_{mode}/{task}": mean for task, mean in task_means(by_seed, metric).items()}
        if len(by_seed) > 1:
            content["std"] = {f"{metric}_{mode}/{task}": std for task, std in _task_stds(by_seed, metric).items()}
        note = {"missing": missing[metric]} if metric in missing else {}
        file = Path(eval_dir, f"{metric}_{step:05d}_{mode}.json")
        write_text(file, json.dumps(content | note | about, indent=2) + "\n")


def add_to_history(eval_dir, step, mode, by_seed, about):
    """Append a line to scores.jsonl and return the means over tasks. Arguments: see `write_scores`."""
    means = {metric: task_means(by_seed, metric)["mean"] for metric in METRICS}
    if len(by_seed) > 1:
        means |= {f"{metric}_std": _task_stds(by_seed, metric)["mean"] for metric in METRICS}
    about = {name: value for name, value in about.items() if name != "missing_scores"}
    path = Path(eval_dir, HISTORY)
    with system_errors(path, "write"), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"mode": mode, **means, "step": step, "seeds": list(by_seed), **about}) + "\n")
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
    if isinstance(row.get("precision"), str):  # Earlier versions stored the flag under the name of a score.
        del row["precision"]
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


def score_table(step, by_mode, missing, classifier_accuracy):
    """Print one line per mode and task. by_mode: {mode: by_seed as in `write_scores`}. missing: `missing_scores`."""
    for title, metrics in (("outputs against real images", SET_SCORES), ("diversity and similarity", IMAGE_SCORES)):
        rows = [["mode", "task", *metrics]]
        for mode, by_seed in by_mode.items():
            columns = [_values(by_seed, metric) for metric in metrics]
            rows += [[mode, task, *(_as_text(column[task]) for column in columns)] for task in columns[0]]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        console.info(f"Scores of step {step}, {title}:")
        for row in rows:
            texts = [text.rjust(width) for text, width in zip(row[2:], widths[2:], strict=True)]
            console.info("  ".join(["", row[0].ljust(widths[0]), row[1].ljust(widths[1]), *texts]))
    right = f"{100 * classifier_accuracy:.1f} % of real validation images (mean over domains)"
    console.info(f"  accuracy: by a classifier that is right for {right}.")
    for sentence in dict.fromkeys(missing.values()):
        console.info(f"  nan: {sentence} Means are over the scores that exist.")


def _as_text(values):
    deviation = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
    return f"{_mean(values):.4g}{deviation}"


def _mean(values):
    """Return the mean of the finite values, NaN without any."""
    finite = [value for value in values if math.isfinite(value)]
    return np.mean(finite) if finite else math.nan


def task_means(by_seed, metric):
    """Return the mean of a metric over seeds: {task: float or None, ..., "mean": mean over tasks}."""
    return {task: _finite(_mean(scores)) for task, scores in _values(by_seed, metric).items()}


def mean_as_text(by_seed, metric):
    """Return the mean of a metric over tasks as text, with its standard deviation if there are several seeds."""
    return _as_text(_values(by_seed, metric)["mean"])


def _task_stds(by_seed, metric):
    return {task: _finite(np.std(scores, ddof=1)) for task, scores in _values(by_seed, metric).items()}


def _values(by_seed, metric):
    """Return the values of a metric, one per seed: {task: list, ..., "mean": list}."""
    runs = [{task: getattr(scores, metric) for task, scores in tasks.items()} for tasks in by_seed.values()]
    runs = [run | {"mean": _mean(run.values())} for run in runs]
    return {task: [run[task] for run in runs] for task in runs[0]}
