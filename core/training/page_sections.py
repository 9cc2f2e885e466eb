"""The sections of a training's page: snapshots, curves of losses, and scores."""

from pathlib import Path

from core.evaluation.scores import METRICS, history
from core.report import page
from core.sampling.snapshots import PSIS, SMALL

LATENT = "row 1: sources; then rows of random codes, domain by domain"
CAPTIONS = {
    "reference": "Top: sources. Left: references. Each source in the style, and domain, of each reference.",
    **{f"latent_psi_{psi}": f"Truncation {psi} ({note}); {LATENT}." for psi, note in zip(
        reversed(PSIS), ("free", "moderate", "close to the average"), strict=True)},
    "cycle_consistency": "Rows: source, reference, source in the reference's style, and translated back.",
}  # fmt: skip
CHARTS = {  # name of a loss, with a place for the mode -> title, what to look for
    "D/{}_real": ("D on real pictures", "0.7 says that D cannot tell, 0 that it always can."),
    "D/{}_fake": ("D on generated pictures", "If both stay near 0, D has won and G learns nothing more."),
    "D/{}_reg": ("R1", "D's squared gradient: calm after a start; bursts say that the learning rate is high."),
    "G/{}_adv": ("G against D", "Moves up and down with D's; growing without end, D has won."),
    "G/{}_sty": ("Style reconstruction", "Falls: outputs show the style that was asked for."),
    "G/{}_ds": ("Diversity", "How far two styles lie apart; near 0 styles collapse into one: raise lambda_ds."),
    "G/{}_cyc": ("Cycle consistency", "Falls: more of the source is kept."),
    "G/{}_src": ("Distance of outputs from their source", "Near 0 nothing is translated: lower lambda_cyc."),
}
LOSS_MODES = {"latent": "random styles", "ref": "references"}  # in names of losses
SCORE_MODES = {"latent": "random styles", "reference": "references"}  # in scores.jsonl
NOTES = {"FID": "Lower is better.", "KID": "Lower is better.", "LPIPS": "Higher is more diverse."}


def snapshots(sample_dir):
    """Yield (path, step, kind) of each snapshot in a folder."""
    for path in Path(sample_dir).glob("*_*.jpg"):
        step, _, kind = path.stem.partition("_")
        if kind in CAPTIONS and step.isdecimal():
            yield path, int(step), kind


def snapshot_section(sample_dir, done, every):
    """Snapshots up to step `done`, with a slider. every: --sample_every, for a section without any."""
    by_step = {}
    for path, step, kind in snapshots(sample_dir):
        if step <= done:
            small = Path(SMALL, path.name)
            by_step.setdefault(step, {})[kind] = path.name, small if Path(sample_dir, small).exists() else None
    return page.steps("Pictures", CAPTIONS, by_step) if by_step else _none_yet("Pictures", "sample_every", every)


def loss_section(log, every):
    """Curves of the losses in a TrainLog. every: --print_every, for a section without any."""
    charts = []
    for name, (title, note) in CHARTS.items():
        lines = {text: log.curve(name.format(mode)) for mode, text in LOSS_MODES.items()}
        charts.append(page.chart(title, note, lines))
    for title, name in (("Weight of diversity, lambda_ds", "G/lambda_ds"), ("Iterations a second", "it_per_s")):
        charts.append(page.chart(title, "", {"now": log.curve(name)}))
    is_empty = not any(line["points"] for chart in charts for line in chart["lines"])
    return _none_yet("Losses", "print_every", every) if is_empty else page.curves("Losses", charts)


def _none_yet(title, flag, every):
    words = f"The first ones come with iteration {every:,} (--{flag})." if every else f"None are made (--{flag} 0)."
    return page.facts(title, [("", words)])


def score_sections(eval_dir, done):
    """Curves and a table of the scores up to step `done`; empty without scores."""
    steps = sorted((step, by_mode) for step, by_mode in history(eval_dir).items() if step <= done)
    rows = [(step, mode, row) for step, by_mode in steps for mode, row in by_mode.items() if mode in SCORE_MODES]
    if not rows:
        return []
    charts = []
    for metric in METRICS:
        lines = {text: [] for text in SCORE_MODES.values()}
        for step, mode, row in rows:
            if row[metric] is not None:
                lines[SCORE_MODES[mode]].append((step, row[metric]))
        charts.append(page.chart(metric, NOTES[metric], lines))
    table = [[f"{step:,}", mode, *(_rounded(row[metric]) for metric in METRICS)] for step, mode, row in rows[::-1]]
    return [page.curves("Scores", charts), page.table("Scores by step", ["step", "mode", *METRICS], table, folded=True)]


def _rounded(score):
    return "" if score is None else float(f"{score:.5g}")
