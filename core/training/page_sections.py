"""The sections of a training's page: snapshots and loss curves."""

from pathlib import Path

from core.report import page
from core.sampling.snapshots import PSIS, SMALL

LATENT = "First row: sources. Other rows: outputs for random codes, one domain after another."
CAPTIONS = {
    "reference": "Top: sources. Left: references. Each output shows a source in the domain and style of a reference.",
    **{f"latent_psi_{psi}": f"Truncation {psi} ({note}). {LATENT}" for psi, note in zip(
        reversed(PSIS), ("none", "moderate", "strong"), strict=True)},
    "cycle_consistency": "Rows: source, reference, translation, and the translation back to the source's domain.",
}  # fmt: skip
CHARTS = {  # template of a loss name, {} is the mode -> title, note
    "D/{}_real": ("D on real images", "At 0.7, D cannot separate real from generated images. At 0, it always can."),
    "D/{}_fake": ("D on generated images", "If both losses stay near 0, D has won and G stops learning."),
    "D/{}_reg": ("R1", "Squared gradient of D. It settles after the start. Peaks mean a high learning rate."),
    "D/{}_sign": (
        "Sign of D on real images",
        "Share that D takes for real, minus the rest. The mean of both lines rises as D memorises training images.",
    ),
    "G/{}_adv": ("G against D", "It moves up and down with the losses of D. If it only grows, D has won."),
    "G/{}_sty": ("Style reconstruction", "It should fall. Then outputs show the requested style."),
    "G/{}_ds": ("Diversity", "Distance between outputs of two styles. Near 0, all styles look alike: raise lambda_ds."),
    "G/{}_cyc": ("Cycle consistency", "It should fall. Then outputs preserve more of the source."),
    "G/{}_src": ("Distance of outputs from their source", "Near 0, outputs equal their source: lower lambda_cyc."),
}
SINGLE_CHARTS = {
    "D/augment_p": ("Probability of augmentation", "It begins at 0 and rises while the mean sign of D is above 0.2."),
    "G/lambda_ds": ("Diversity weight lambda_ds", ""),
    "it_per_s": ("Iterations per second", ""),
}
LOSS_MODES = {"latent": "random styles", "ref": "references"}  # in names of losses


def snapshots(sample_dir):
    """Yield (path, step, kind) for each snapshot in a folder."""
    for path in Path(sample_dir).glob("*_*.jpg"):
        step, _, kind = path.stem.partition("_")
        if kind in CAPTIONS and step.isdecimal():
            yield path, int(step), kind


def snapshot_section(sample_dir, done, every):
    """Return the section of snapshots up to step `done`. every: --sample_every, shown if there are none."""
    by_step = {}
    for path, step, kind in snapshots(sample_dir):
        if step <= done:
            small = Path(SMALL, path.name)
            by_step.setdefault(step, {})[kind] = path.name, small if Path(sample_dir, small).exists() else None
    return page.steps("Images", CAPTIONS, by_step) if by_step else _none_yet("Images", "sample_every", every)


def loss_section(log, every):
    """Return the section of loss curves of a TrainLog. every: --print_every, shown if there are none."""
    charts = []
    for name, (title, note) in CHARTS.items():
        lines = {text: log.curve(name.format(mode)) for mode, text in LOSS_MODES.items()}
        charts.append(page.chart(title, note, lines))
    for name, (title, note) in SINGLE_CHARTS.items():
        if points := log.curve(name):  # Only --augment ada has all of them.
            charts.append(page.chart(title, note, {"now": points}))
    is_empty = not any(line["points"] for chart in charts for line in chart["lines"])
    return _none_yet("Losses", "print_every", every) if is_empty else page.curves("Losses", charts)


def _none_yet(title, flag, every):
    words = f"None before iteration {every:,} (--{flag})." if every else f"Disabled by --{flag} 0."
    return page.facts(title, [("", words)])
