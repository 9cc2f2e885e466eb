"""What lets people watch a training: its speed, its lines in train.jsonl, and the page {sample_dir}/index.html."""

import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from core.cli.args import changed_flags, plain_settings
from core.evaluation.scores import METRICS, history
from core.report import page
from core.report.train_log import TrainLog, write_options
from core.sampling.snapshots import PSIS, SMALL
from core.system import console, device, distributed
from core.system.files import make_folder, next_free_path, system_errors
from core.system.memory import peak_memory

RENEW = 60  # seconds after which a printed line renews the page too

LATENT = "row 1: sources; then rows of random codes, domain by domain"
CAPTIONS = {
    "reference": "Top: sources. Left: references. Each source in the style, and domain, of each reference.",
    **{f"latent_psi_{psi}": f"Truncation {psi} ({note}); {LATENT}." for psi, note in zip(
        reversed(PSIS), ("free", "moderate", "close to the average"), strict=True)},
    "cycle_consistency": "Rows: source, reference, source in the reference's style, and translated back.",
}  # fmt: skip
CHARTS = {  # part of the loss -> title, what to look for
    "real": ("D on real pictures", "0.7 says that D cannot tell, 0 that it always can."),
    "fake": ("D on generated pictures", "If both stay near 0, D has won and G learns nothing more."),
    "reg": ("R1", "D's squared gradient: calm after a start; bursts say that the learning rate is high."),
    "adv": ("G against D", "Moves up and down with D's; growing without end, D has won."),
    "sty": ("Style reconstruction", "Falls: outputs show the style that was asked for."),
    "ds": ("Diversity", "How far two styles lie apart; near 0 styles collapse into one: raise lambda_ds."),
    "cyc": ("Cycle consistency", "Falls: more of the source is kept."),
    "src": ("Distance of outputs from their source", "Near 0 nothing is translated: lower lambda_cyc."),
}
MODES = {"latent": "random styles", "ref": "references"}  # as losses name them
SCORED = {"latent": "random styles", "reference": "references"}  # as scores do


class Monitor:
    """Told by the training loop what happens; only the first of several processes writes.

    solver: the core.solver.Solver that trains. loaders: its Munch(src, ref, val). branches: see core.journal.TrainLog.
    """

    def __init__(self, solver, loaders, branches):
        args = solver.args
        self.args, self.device, self.began = args, solver.device, time.monotonic()
        self.iterations, self.waited, self.worked = 0, 0.0, 0.0  # since the last line
        self.renewed = 0.0
        self.journal = None
        if not distributed.is_main_process():
            return
        self.images = {what: domain_counts(args, loaders[what]) for what in ("src", "val")}
        if branches:
            move_aside(args.sample_dir, args.resume_iter)
        folder = args.log_dir or args.sample_dir
        self.journal = TrainLog(folder, args.resume_iter, branches, args.tensorboard)
        about = {
            "command": sys.argv,
            "resumed_from": args.resume_iter,
            "given": sorted(args.given),
            "settings": plain_settings(args),
            "device": device.describe_device(solver.device),
            "parameters": {name: sum(p.numel() for p in net.parameters()) for name, net in solver.nets.items()},
            "training_images": self.images["src"],
            "validation_images": self.images["val"],
            "versions": page.versions(),
        }
        write_options(folder, about)

    def passed(self, waited, worked):
        """One iteration has passed: seconds of waiting for images, seconds of everything."""
        self.iterations, self.waited, self.worked = self.iterations + 1, self.waited + waited, self.worked + worked

    def line(self, done, losses, skipped):
        """Print the line of iteration `done` and write it down. skipped: how many updates were, so far."""
        values = {name: float(value) for name, value in losses.items()}
        elapsed = time.monotonic() - self.began
        console.loss_line(elapsed, done, self.args.total_iters, values)
        if self.journal is None:
            return
        speed = {"it_per_s": self.iterations / max(self.worked, 1e-9), "data_s": self.waited / max(self.iterations, 1)}
        memory = {"memory_gb": peak_memory(self.device) / 1e9}
        about = {"elapsed_s": round(elapsed, 1), "skipped_updates": skipped}
        self.journal.add({"iteration": done} | values | speed | memory | about)
        self.iterations, self.waited, self.worked = 0, 0.0, 0.0

    def scores(self, done, means):
        """Tell TensorBoard the scores of a step, {mode: {metric: mean}}; the page finds them in scores.jsonl."""
        named = {f"{metric}/{mode}": found[metric] for mode, found in means.items() for metric in METRICS}
        if self.journal is not None:
            self.journal.show(done, named)

    def is_due(self):
        """Whether the page is old enough to be renewed without new pictures."""
        return time.monotonic() - self.renewed > RENEW

    def write(self, done, state="training"):
        """Write the page. state: "training", or how it ended. Raises UserError where it cannot be written."""
        self.renewed = time.monotonic()
        if self.journal is None:
            return
        args, total = self.args, self.args.total_iters
        sections = [page.facts("Now", self._now(done, state)), pictures(args.sample_dir, done, args.sample_every)]
        sections += [self._losses(), *score_sections(args.eval_dir, done)]
        sections += page.about(changed_flags(args))
        title = f"StarGAN v2: {', '.join(self.images['src'])}"
        status = f"Step {done:,} of {total:,}, {state}"
        place = Path(args.sample_dir, "index.html")
        page.write_page(place, title, sections, status, done / total, live=state == "training")

    def close(self):
        """Nothing more is written."""
        if self.journal is not None:
            self.journal.close()

    def _now(self, done, state):
        args, last = self.args, self.journal.last
        speed = last("it_per_s")
        rows = [("Step", f"{done:,} of {args.total_iters:,}")]
        if speed:
            waiting = 100 * (last("data_s") or 0) * speed
            left = timedelta(seconds=int((args.total_iters - done) / speed))
            if state == "training":
                rows.append(("Time left", f"about {left}"))
            rows.append(("Speed", f"{speed:.3g} iterations, {speed * args.batch_size:.3g} images a second"))
            rows.append(("Waiting for images", f"{waiting:.0f} % of the time"))
        if last("memory_gb"):
            rows.append(("Peak memory", f"{last('memory_gb'):.2f} GB"))
        if last("skipped_updates"):
            rows.append(("Skipped updates", f"{last('skipped_updates'):.0f}"))
        rows.append(("Runs on", f"{device.describe_device(self.device)}, {args.precision}"))
        named = {"src": "Training images", "val": "Validation images"}
        for what, counts in self.images.items():
            rows.append((named[what], ", ".join(f"{number:,} {name}" for name, number in counts.items())))
        return rows

    def _losses(self):
        charts = [self._chart(part, *texts) for part, texts in CHARTS.items()]
        for title, name in (("Weight of diversity, lambda_ds", "G/lambda_ds"), ("Iterations a second", "it_per_s")):
            charts.append(page.chart(title, "", {"now": self.journal.curve(name)}))
        if any(line["points"] for chart in charts for line in chart["lines"]):
            return page.curves("Losses", charts)
        return _not_yet("Losses", "print_every", self.args.print_every)

    def _chart(self, part, title, note):
        prefix = "D" if part in ("real", "fake", "reg") else "G"
        lines = {text: self.journal.curve(f"{prefix}/{mode}_{part}") for mode, text in MODES.items()}
        return page.chart(title, note, lines)


def _not_yet(title, flag, every):
    words = f"The first ones come with iteration {every:,} (--{flag})." if every else f"None are made (--{flag} 0)."
    return page.facts(title, [("", words)])


def snapshots(sample_dir):
    """(path, step, kind) of each picture that a training wrote."""
    for path in Path(sample_dir).glob("*_*.jpg"):
        step, _, kind = path.stem.partition("_")
        if kind in CAPTIONS and step.isdecimal():
            yield path, int(step), kind


def move_aside(sample_dir, start):
    """Move pictures of steps after `start`, which another training made, to earlier_1 or so. Raises UserError."""
    late = [path for path, step, _ in snapshots(sample_dir) if step > start]
    if not late:
        return
    aside = next_free_path(sample_dir, "earlier_{}")  # of its own: names of several trainings meet
    make_folder(aside)
    with system_errors(aside, "written"):
        for path in late:
            path.rename(aside / path.name)
            Path(sample_dir, SMALL, path.name).unlink(missing_ok=True)


def pictures(sample_dir, done, every):
    """The snapshots up to a step as a section of a page: with a slider, or a word that there are none yet."""
    by_step = {}
    for path, step, kind in snapshots(sample_dir):
        if step <= done:
            small = Path(SMALL, path.name)
            found = (path.name, small if Path(sample_dir, small).exists() else None)
            by_step.setdefault(step, {})[kind] = found
    if not by_step:
        return _not_yet("Pictures", "sample_every", every)
    return page.steps("Pictures", CAPTIONS, by_step)


def score_sections(eval_dir, done):
    """Scores up to a step as sections of a page: curves and a table; nothing where there are none."""
    rows = [
        (step, mode, row)
        for step, by_mode in sorted(history(eval_dir).items())
        for mode, row in by_mode.items()
        if step <= done and mode in SCORED
    ]
    if not rows:
        return []
    charts = []
    for metric, note in zip(METRICS, ("Lower is better.", "Lower is better.", "Higher is more diverse."), strict=True):
        lines = {text: [] for text in SCORED.values()}
        for step, mode, row in rows:
            if row.get(metric) is not None:
                lines[SCORED[mode]].append((step, row[metric]))
        charts.append(page.chart(metric, note, lines))
    table = [[f"{step:,}", mode, *(_shown(row.get(metric)) for metric in METRICS)] for step, mode, row in rows[::-1]]
    return [page.curves("Scores", charts), page.table("Scores by step", ["step", "mode", *METRICS], table, folded=True)]


def _shown(score):
    return "" if score is None else float(f"{score:.5g}")


def domain_counts(args, loader):
    """{domain: how many images a loader's data set has of it}"""
    count = Counter(loader.dataset.targets)
    names = args.domains or [str(label) for label in range(args.num_domains)]
    return {name: count[label] for label, name in enumerate(names)}
