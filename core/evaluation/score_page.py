"""The page of an evaluation: scores of each task and over the steps, and the best and worst outputs."""

import math
from functools import partial
from pathlib import Path

from core.evaluation.per_image import NUMBERS, write_rows
from core.evaluation.scores import METRICS, MODES, NOTES, history, mean_as_text, task_means
from core.report import page
from core.system import console, distributed
from core.system.files import delete_earlier

PAGE, ROWS, PICTURES = "index.html", "per_image.jsonl", "best_and_worst"


def write_page(eval_dir, step, by_mode, outputs, about, settings, last_step=math.inf):
    """Write {eval_dir}/index.html, the pictures it shows, and the numbers of all outputs. Each process writes pictures.

    by_mode: {mode: by_seed as in `write_scores`}. outputs: {mode: PerImage}. about: that of `write_scores`. settings:
    (flag, value) pairs. last_step: of the curves.
    """
    for mode, per_image in outputs.items():
        folder = Path(eval_dir, PICTURES, mode)
        distributed.on_main_process(partial(delete_earlier, folder, "*.jpg"))
        with distributed.sync_errors():
            per_image.write_pictures(folder)

    def write():
        rows = ({"step": step} | row for per_image in outputs.values() for row in per_image.rows())
        write_rows(Path(eval_dir, ROWS), rows)
        sections = [_matrices(mode, by_seed, about) for mode, by_seed in by_mode.items()]
        sections += score_sections(eval_dir, last_step)
        sections += [gallery for mode in outputs for gallery in _galleries(mode, outputs[mode])]
        facts = {"seeds": ", ".join(map(str, by_mode["latent"]))} | about
        facts = [(name.replace("_", " "), _as_text(value)) for name, value in facts.items()]
        sections += [page.table("How the scores were computed", [], facts, folded=True), *page.about(settings)]
        path, title = Path(eval_dir, PAGE), f"StarGAN v2: scores of step {step:,}"
        page.write_page(path, title, sections)
        console.info(f"To see the scores and the best and worst outputs, open {path} in a browser")

    distributed.on_main_process(write)


def _matrices(mode, by_seed, about):
    """Return the section of a mode with one table per score: rows are source domains, columns target domains."""
    domains, tables = list(about["training_images"]), []
    more = {"accuracy": f"It is right for {100 * about['classifier_accuracy']:.1f} % of real validation images."}
    more |= about["missing_scores"]
    for metric in METRICS:
        means, title = task_means(by_seed, metric), f"{metric}, mean {mean_as_text(by_seed, metric)}"
        rows = [[src, *(_rounded(means.get(f"{src}2{trg}")) for trg in domains)] for src in domains]
        note = f"{NOTES[metric]} {more.get(metric, '')}"
        tables.append(page.table(title, ["from", *(f"to {trg}" for trg in domains)], rows, note))
    return page.tables(f"Scores by source and target, {MODES[mode]} ({mode})", tables)


def score_sections(eval_dir, last_step):
    """Return the sections of scores up to a step, curves and a table; an empty list without scores."""
    steps = sorted((step, by_mode) for step, by_mode in history(eval_dir).items() if step <= last_step)
    rows = [(step, mode, row) for step, by_mode in steps for mode, row in by_mode.items() if mode in MODES]
    if not rows:
        return []
    charts = []
    for metric in METRICS:
        lines = {text: [] for text in MODES.values()}
        for step, mode, row in rows:
            if row[metric] is not None:
                lines[MODES[mode]].append((step, row[metric]))
        charts.append(page.chart(metric, NOTES[metric], lines))
    table = [[f"{step:,}", mode, *(_rounded(row[metric]) for metric in METRICS)] for step, mode, row in rows[::-1]]
    note = "An empty cell: too few images or outputs for this score." if any("" in row for row in table) else ""
    table = page.table("Table of scores by step", ["step", "mode", *METRICS], table, note, folded=True)
    return [page.curves("Scores by step", charts), table] if len(steps) > 1 else [table]


def _galleries(mode, per_image):
    """Yield sections of the worst and best outputs of each number."""
    shown = "Each picture shows a source, its output and, of the first output, the translation back."
    kinds = [(name, *kind) for name, best in NUMBERS.items() for kind in ((-best, "Worst"), (best, "Best"))]
    orders = [per_image.extremes(name, sign) for name, sign, _ in kinds]
    wanted = {index for order in orders for index in order}
    rows = {index: row for index, row in enumerate(per_image.rows()) if index in wanted}
    for (name, _, kind), order in zip(kinds, orders, strict=True):
        items = []
        for index in order:
            row = rows[index]
            caption = f"{row[name]:.4g}: {row['source']} to {row['domain']}, {row['style']}, seed {row['seed']}"
            items.append(page.picture(Path(PICTURES, mode, f"{index}.jpg"), caption))
        yield page.gallery(f"{kind} {name}, {MODES[mode]}", items, f"{NOTES[name]} {shown}", folded=True)


def _as_text(value):
    return ", ".join(f"{name} {part}" for name, part in value.items()) if isinstance(value, dict) else str(value)


def _rounded(score):
    return "" if score is None else float(f"{score:.5g}")
