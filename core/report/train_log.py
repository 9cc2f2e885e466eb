"""What is written down of a training: train.jsonl, options.json, and TensorBoard's events where they are wanted."""

import json
import math
from array import array
from datetime import datetime, timezone
from pathlib import Path

from core.system import console
from core.system.errors import UserError
from core.system.files import atomic_write, make_folder, next_free_path

LINES, OPTIONS = "train.jsonl", "options.json"
MOST_POINTS = 500  # of a curve


class TrainLog:
    """Appends to {folder}/train.jsonl, one object for each printed line; goes on from the iteration `start`.

    Lines of iterations after `start`, of a run that was killed or gone back from, leave the file; where another
    training begins or branches off, the whole old file stays as train_earlier_1.jsonl. Where a line cannot be written
    that is told once, and the training goes on. tensorboard: whether its events are written too. Raises UserError.
    """

    def __init__(self, folder, start, branches, tensorboard=False):
        self.folder, self.told, self.torn = Path(folder), False, False
        make_folder(folder)
        self.columns = {}  # name -> array of floats, NaN where a line has none
        self.length = 0
        for row in take_up(self.folder / LINES, start, branches):
            self._remember(row)
        self.events = _summary_writer(folder, start) if tensorboard else None

    def add(self, row):
        """Write a line. row: {"iteration": number, name: number, ...}; what is no number is written as null."""
        row = {name: value if math.isfinite(value) else None for name, value in row.items()}
        moment = datetime.now(timezone.utc).isoformat(timespec="seconds")
        try:
            with (self.folder / LINES).open("a", encoding="utf-8") as file:
                file.write("\n" * self.torn + json.dumps({**row, "time": moment}) + "\n")
            self.torn = False
        except OSError as error:
            if not self.told:
                console.warn(f"{self.folder / LINES} cannot be written ({error.strerror}): lines are missing there")
            self.told = self.torn = True  # a part of it may be there
        self._remember(row)
        self.show(row["iteration"], {name: value for name, value in row.items() if name != "iteration"})

    def show(self, iteration, values):
        """Tell TensorBoard, where it is wanted, values {name: number or None} of an iteration."""
        if self.events is None:
            return
        try:
            for name, value in values.items():
                if value is not None:
                    self.events.add_scalar(name, value, iteration)
            self.events.flush()
        except OSError as error:  # its thread's, given on
            self._end_events(error)

    def curve(self, name):
        """Points (iteration, value) of what lines hold under a name: at most 500, each then a mean over some lines."""
        pairs = zip(self.columns.get("iteration", ()), self.columns.get(name, ()), strict=False)
        points = [(int(x), y) for x, y in pairs if not math.isnan(y)]
        together = math.ceil(len(points) / MOST_POINTS) or 1
        parts = [points[first : first + together] for first in range(0, len(points), together)]
        return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]

    def last(self, name):
        """The newest number under a name; None where there is none."""
        return next((value for value in reversed(self.columns.get(name, ())) if not math.isnan(value)), None)

    def close(self):
        """End TensorBoard's file, where there is one."""
        try:
            if self.events is not None:
                self.events.close()
        except OSError as error:
            self._end_events(error)

    def _end_events(self, error):
        console.warn(
            f"events for TensorBoard in {self.folder} cannot be written ({error.strerror}): there come no more"
        )
        self.events = None

    def _remember(self, row):
        numbers = {name: value for name, value in row.items() if isinstance(value, (int, float))}
        for name in numbers.keys() - self.columns.keys():
            self.columns[name] = array("d", [math.nan]) * self.length
        for name, column in self.columns.items():
            column.append(numbers.get(name, math.nan))
        self.length += 1


def take_up(path, start, branches):
    """Make a file of lines end with the iteration `start`; return its rows. branches: keep the old one beside it.

    Raises UserError where it cannot be read or written.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        kept = {line: row for line in text.splitlines() if (row := _row(line)) and row["iteration"] <= start}
        whole = "".join(line + "\n" for line in kept)
        if text and whole != text:
            if branches:
                path.rename(next_free_path(path.parent, f"{path.stem}_earlier_{{}}{path.suffix}"))
            with atomic_write(path) as temporary:
                temporary.write_text(whole, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be gone on with ({error.strerror}): choose another --log_dir") from error
    return list(kept.values())


def write_options(folder, options):
    """Write options.json, plain values and lists that say how a run was started. Raises UserError."""
    with atomic_write(Path(folder) / OPTIONS) as temporary:
        temporary.write_text(json.dumps(options, indent=2, default=str) + "\n", encoding="utf-8")


def _row(line):
    """A line's object; None where it is none of ours, or was torn when the run was killed."""
    try:
        row = json.loads(line)
        return row if isinstance(row["iteration"], int) else None
    except (ValueError, LookupError, TypeError):
        return None


def _summary_writer(folder, start):
    try:
        from torch.utils.tensorboard import SummaryWriter  # only who asks for it needs it
    except ImportError as error:
        raise UserError("--tensorboard needs a package that is not here: python -m pip install tensorboard") from error
    return SummaryWriter(folder, purge_step=start + 1)
