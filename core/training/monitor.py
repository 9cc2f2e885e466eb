"""Record a training: options.json, losses and speed in train.jsonl, and the page {sample_dir}/index.html."""

import json
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from core.evaluation.score_page import score_sections
from core.evaluation.scores import METRICS
from core.report import page
from core.report.train_log import OPTIONS, TrainLog
from core.sampling.snapshots import SMALL
from core.system import console, device, distributed
from core.system.files import move_aside, system_errors, write_text
from core.system.memory import peak_memory
from core.training.page_sections import loss_section, snapshot_section, snapshots

PAGE_AGE = 60  # age in seconds after which a printed line also updates the page
CENTURY = 100 * 365.25 * 24 * 3600  # seconds


class Monitor:
    """Record what the training loop reports, on rank 0 only. loaders: Munch(src, ref, val)."""

    def __init__(self, solver, loaders, branches):
        self.config, self.device, self.start_time = solver.config, solver.device, time.monotonic()
        self.iterations, self.waited, self.worked = 0, 0.0, 0.0  # since the last printed line; times in seconds
        self.page_time = 0.0
        self.log = None
        if distributed.is_main_process():
            self._open_log(solver.nets, loaders, branches)

    def _open_log(self, nets, loaders, branches):
        config = self.config
        self.num_images = {}  # {name of a loader: {domain: number of images}}
        for name in ("src", "val"):
            count = Counter(loaders[name].dataset.targets)
            self.num_images[name] = {domain: count[label] for label, domain in enumerate(config.names_by_label)}
        if branches:  # Later snapshots belong to another training.
            late = [path for path, step, _ in snapshots(config.sample_dir) if step > config.resume_iter]
            with system_errors(config.sample_dir, "write"):
                for path in late:
                    Path(config.sample_dir, SMALL, path.name).unlink(missing_ok=True)
            move_aside(late, config.sample_dir)
        folder = config.log_dir or config.sample_dir
        self.log = TrainLog(folder, config.resume_iter, branches, config.tensorboard)
        options = {
            "command": sys.argv,
            "resumed_from": config.resume_iter,
            "given": sorted(config.given),
            "settings": dict(config.flags),
            "device": device.describe_device(self.device),
            "parameters": {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()},
            "training_images": self.num_images["src"],
            "validation_images": self.num_images["val"],
            "versions": page.versions(),
        }
        write_text(Path(folder, OPTIONS), json.dumps(options, indent=2, default=str) + "\n")

    def count_iteration(self, waited, worked):
        """Count one iteration. waited: seconds of waiting for images. worked: total seconds."""
        self.iterations, self.waited, self.worked = self.iterations + 1, self.waited + waited, self.worked + worked

    def log_losses(self, done, losses, skipped):
        """Print and log the losses of iteration `done`. skipped: number of skipped updates so far."""
        if self.log is None:
            return
        values = {name: float(value) for name, value in losses.items()}
        elapsed = time.monotonic() - self.start_time
        console.loss_line(elapsed, done, self.config.total_iters, values)
        speed = {"it_per_s": self.iterations / max(self.worked, 1e-9), "data_s": self.waited / max(self.iterations, 1)}
        usage = {"memory_gb": peak_memory(self.device) / 1e9, "elapsed_s": round(elapsed, 1)}
        self.log.add({"iteration": done, **values, **speed, **usage, "skipped_updates": skipped})
        self.iterations, self.waited, self.worked = 0, 0.0, 0.0

    def log_scores(self, done, means):
        """Pass the scores of a step, {mode: {metric: mean}}, to TensorBoard. The page reads them from scores.jsonl."""
        if self.log is not None:
            scores = {f"{metric}/{mode}": by_metric[metric] for mode, by_metric in means.items() for metric in METRICS}
            self.log.add_scalars(done, scores)

    def page_is_due(self):
        """Whether the page is old enough to be written again without new snapshots."""
        return time.monotonic() - self.page_time > PAGE_AGE

    def write_page(self, done, state="training"):
        """Write the page. state: "training", or how the run ended. Raises UserError if this fails."""
        self.page_time = time.monotonic()
        if self.log is None:
            return
        config = self.config
        sections = [
            page.facts("Status", self._facts(done, state)),
            snapshot_section(config.sample_dir, done, config.sample_every),
            loss_section(self.log, config.print_every),
            *score_sections(config.eval_dir, done),
            *page.about(config.changed_flags()),
        ]
        title = f"StarGAN v2: {', '.join(self.num_images['src'])}"
        status = f"Step {done:,} of {config.total_iters:,}, {state}"
        path, progress = Path(config.sample_dir, "index.html"), done / config.total_iters
        page.write_page(path, title, sections, status, progress, live=state == "training")

    def close(self):
        """Close the log."""
        if self.log is not None:
            self.log.close()

    def _facts(self, done, state):
        """Return rows (name, value) about the current state of the run."""
        config, last = self.config, self.log.last
        rows = {"Step": f"{done:,} of {config.total_iters:,}"}
        speed, memory, skipped = last("it_per_s"), last("memory_gb"), last("skipped_updates")
        if speed:
            if state == "training":
                rows["Time left"] = time_left((config.total_iters - done) / speed)
            rows["Speed"] = f"{speed:.3g} iterations, {speed * config.batch_size:.3g} images per second"
            rows["Waiting for images"] = f"{100 * (last('data_s') or 0) * speed:.0f} % of the time"
        if memory:
            rows["Peak memory"] = f"{memory:.2f} GB"
        if skipped:
            rows["Skipped updates"] = f"{skipped:.0f}"
        rows["Device"] = f"{device.describe_device(self.device)}, {config.precision}"
        for title, counts in zip(("Training images", "Validation images"), self.num_images.values(), strict=True):
            rows[title] = ", ".join(f"{number:,} {name}" for name, number in counts.items())
        return list(rows.items())


def time_left(seconds):
    """Return a number of seconds as text."""
    return f"about {timedelta(seconds=int(seconds))}" if seconds < CENTURY else "more than 100 years"
