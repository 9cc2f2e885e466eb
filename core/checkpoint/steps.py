"""The steps of a training in a folder: three files each and, written last, a manifest that makes them whole."""

import json

from core.checkpoint.io import CheckpointIO, saved_steps
from core.system.files import atomic_write, next_free_path, sha256, system_errors

NETS, NETS_EMA, OPTIMS = FILES = "{:06d}_nets.ckpt", "{:06d}_nets_ema.ckpt", "{:06d}_optims.ckpt"
MANIFEST = "{:06d}_manifest.json"


class StepFiles:
    """Saves and loads whole steps.

    folder: a Path. groups: template of a file's name -> {name: module or optimizer}; empty ones are left out.
    """

    def __init__(self, folder, groups):
        self.folder = folder
        self.files = [CheckpointIO(folder, template, **group) for template, group in groups.items() if group]

    def modules(self):
        """All modules and optimizers in the files' order; one that is in several files, such as `fan`, once."""
        return list(dict.fromkeys(module for file in self.files for module in file.modules.values()))

    def steps(self):
        """Steps that have a file of every kind, ascending."""
        return sorted(set.intersection(*(set(file.steps()) for file in self.files)))

    def save(self, step, config):
        """Write the step's files, then its manifest. Raises UserError where the disk is full or gone."""
        with system_errors(self.folder, "written"):
            manifest_path(self.folder, step).unlink(missing_ok=True)
            for file in self.files:
                file.save(step, config)
            write_manifest(self.folder, step)

    def load(self, step, optional=None):
        """Load the step's files. Raises UserError. optional: see `CheckpointIO.load`."""
        for file in self.files:
            file.load(step, optional)

    def move_aside(self, step):
        """Move what comes after `step` into a folder beside it: a folder holds the steps of one training.

        Halves of steps, of a save that was killed, are removed. Returns the folder, None where nothing was moved.
        """
        later = [number for number in any_steps(self.folder) if number > step]
        aside = next_free_path(self.folder, "earlier_{}")
        for number in later:
            half = is_half(self.folder, number)
            for path in [*paths_of(self.folder, number), manifest_path(self.folder, number)]:
                if half:
                    path.unlink(missing_ok=True)
                elif path.exists():
                    aside.mkdir(exist_ok=True)
                    path.replace(aside / path.name)
        return aside if aside.exists() else None

    def prune(self, keep, spared=()):
        """Remove all but the newest `keep` steps and those spared; 0 keeps all. Steps without manifest stay."""
        steps = saved_steps(self.folder, MANIFEST)
        for step in set(steps[:-keep] if keep else ()) - set(spared):
            for path in paths_of(self.folder, step):
                path.unlink(missing_ok=True)
            manifest_path(self.folder, step).unlink(missing_ok=True)  # last: a removal cut short is ended next time


def paths_of(folder, step):
    """The files of a step, in the order of FILES, whether they are there or not."""
    return [folder / template.format(step) for template in FILES]


def manifest_path(folder, step):
    """Where the manifest of a step is, or would be."""
    return folder / MANIFEST.format(step)


def write_manifest(folder, step):
    """Say of a step's files, now that they are whole, how long they are (bytes) and what they hold (SHA-256).

    Raises OSError where one cannot be read, UserError where the manifest cannot be written.
    """
    files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in paths_of(folder, step)}
    with atomic_write(manifest_path(folder, step), durable=True) as temporary:
        temporary.write_text(json.dumps({"step": step, "files": files}, indent=2) + "\n", encoding="utf-8")


def is_half(folder, step):
    """Whether a step's files are what a save leaves that was killed: the first of them, and no manifest."""
    there = [path.is_file() for path in paths_of(folder, step)]
    return there[0] and not all(there) and not manifest_path(folder, step).is_file()


def any_steps(folder):
    """Steps of which there is a file, ascending."""
    return sorted({step for template in FILES for step in saved_steps(folder, template)})
