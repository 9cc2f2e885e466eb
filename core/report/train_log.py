"""The log of a training: train.jsonl and, with --tensorboard, TensorBoard events."""

import json
import math
from array import array
from collections import defaultdict
from datetime import datetime, timezone
from pathlib import Path

from core.system import console
from core.system.errors import UserError, reason
from core.system.files import make_folder, next_free_path, write_text
from core.system.notes import read_json_lines, read_text

LINES, OPTIONS = "train.jsonl", "options.json"
MOST_POINTS = 500  # maximum number of points of a curve


class TrainLog:
    """Append one object per printed line to {folder}/train.jsonl, starting after iteration `start`.

    First remove lines after `start`; a killed run or a run resumed from an earlier step has them. branches: this
    training differs from the last one in this folder, so rename its file to train_earlier_1.jsonl. Raises UserError.
    """

    def __init__(self, folder, start, branches, tensorboard=False):
        make_folder(folder)
        self.path, self.has_warned, self.torn = Path(folder, LINES), False, False
        self.points = defaultdict(lambda: (array("q"), array("d")))  # name -> iterations, values
        for row in cut_lines(self.path, start, branches):
            self._remember(row)
        self.events = _summary_writer(folder, start) if tensorboard else None

    def add(self, row):
        """Write a line. row: {"iteration": number, name: number, ...}. NaN and infinity become null."""
        row = {name: value if math.isfinite(value) else None for name, value in row.items()}
        line = json.dumps(row | {"time": datetime.now(timezone.utc).isoformat(timespec="seconds")}) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"\n{line}" if self.torn else line)
            self.torn = False
        except OSError as error:
            if not self.has_warned:
                console.warn(
                    f"Cannot write {self.path} ({reason(error)}). Training continues, but this log will be incomplete."
                )
            self.has_warned = self.torn = True  # The file may contain a part of the line.
        self._remember(row)
        self.add_scalars(row["iteration"], {name: value for name, value in row.items() if name != "iteration"})

    def add_scalars(self, iteration, values):
        """Write values {name: number or None} of an iteration as TensorBoard events, if --tensorboard is set."""
        if self.events is None:
            return
        try:
            for name, value in values.items():
                if value is not None:
                    self.events.add_scalar(name, value, iteration)
            self.events.flush()
        except OSError as error:  # TensorBoard passes on errors of its thread.
            self._disable_events(error)

    def curve(self, name):
        """Return at most 500 points (iteration, value) of a name. For longer logs, a point is a mean over lines."""
        points = list(zip(*self.points.get(name, ((), ())), strict=True))
        size = math.ceil(len(points) / MOST_POINTS) or 1
        parts = [points[first : first + size] for first in range(0, len(points), size)]
        return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]

    def last(self, name):
        """Return the last value of a name, None without one."""
        return self.points[name][1][-1] if name in self.points else None

    def close(self):
        """Close the TensorBoard file, if there is one."""
        try:
            if self.events is not None:
                self.events.close()
        except OSError as error:
            self._disable_events(error)

    def _disable_events(self, error):
        folder, self.events = self.path.parent, None
        effect = "TensorBoard logging is disabled for this run"
        console.warn(f"Cannot write TensorBoard events in {folder} ({reason(error)}). {effect}.")

    def _remember(self, row):
        for name, value in row.items():
            if type(value) in (int, float) and math.isfinite(value):
                iterations, values = self.points[name]
                iterations.append(row["iteration"])
                values.append(value)


def cut_lines(path, start, branches):
    """Remove the lines of a log after iteration `start` and return the remaining rows. See TrainLog."""
    try:
        text = read_text(path, errors="replace") if path.exists() else ""
        rows = read_json_lines(path, lambda row: type(row.get("iteration")) is int and row["iteration"] >= 0)
        rows = [row for row in rows if row["iteration"] <= start]
        remaining = "".join(json.dumps(row) + "\n" for row in rows)
        if text and remaining != text:
            if branches:
                path.rename(next_free_path(path.parent, f"{path.stem}_earlier_{{}}{path.suffix}"))
            write_text(path, remaining)
    except OSError as error:
        raise UserError(f"Cannot update {path} ({reason(error)}). Choose another --log_dir.") from error
    return rows


def _summary_writer(folder, start):
    try:
        from torch.utils.tensorboard import SummaryWriter  # tensorboard is an optional package.
    except ImportError as error:
        raise UserError("Cannot use --tensorboard (package missing). Run python -m pip install tensorboard.") from error
    return SummaryWriter(folder, purge_step=start + 1)
