"""The steps of a training in a folder: three files each and, written last, a manifest that makes them whole."""

import json

from core.checkpoint.io import CheckpointIO, saved_steps
from core.system.files import move_aside, sha256, system_errors, write_text

NETS, NETS_EMA, OPTIMS = FILES = "{:06d}_nets.ckpt", "{:06d}_nets_ema.ckpt", "{:06d}_optims.ckpt"
MANIFEST = "{:06d}_manifest.json"


class StepFiles:
    """Saves and loads whole steps. groups: template of a file's name -> {name: module or optimizer}, maybe none."""

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
        """Move the files of later steps into a new sub-folder and return it, None without files; remove half steps."""
        later = [number for number in any_steps(self.folder) if number > step]
        with system_errors(self.folder, "written"):
            for number in later:
                if is_half(self.folder, number):
                    self._remove(number)
        return move_aside([path for number in later for path in self._paths(number) if path.exists()], self.folder)

    def prune(self, keep, spared=()):
        """Remove all but the newest `keep` steps and those spared; 0 keeps all. Steps without manifest stay."""
        steps = saved_steps(self.folder, MANIFEST)
        for step in set(steps[:-keep] if keep else ()) - set(spared):
            self._remove(step)

    def _remove(self, step):
        for path in self._paths(step):
            path.unlink(missing_ok=True)

    def _paths(self, step):
        """The step's files and, last, its manifest, so that a removal that was cut short is ended next time."""
        return [*paths_of(self.folder, step), manifest_path(self.folder, step)]


def paths_of(folder, step):
    """The files of a step, in the order of FILES, whether they are there or not."""
    return [folder / template.format(step) for template in FILES]


def manifest_path(folder, step):
    """Where the manifest of a step is, or would be."""
    return folder / MANIFEST.format(step)


def write_manifest(folder, step):
    """Write the sizes and hashes of a step's files, now that they are whole. Raises OSError, UserError."""
    files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in paths_of(folder, step)}
    content = json.dumps({"step": step, "files": files}, indent=2) + "\n"
    write_text(manifest_path(folder, step), content, durable=True)


def is_half(folder, step):
    """Whether a step's files are what a save leaves that was killed: the first of them, and no manifest."""
    there = [path.is_file() for path in paths_of(folder, step)]
    return there[0] and not all(there) and not manifest_path(folder, step).is_file()


def any_steps(folder):
    """Steps of which there is a file, ascending."""
    return sorted({step for template in FILES for step in saved_steps(folder, template)})
