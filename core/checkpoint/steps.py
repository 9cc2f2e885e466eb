"""The steps of a training in a folder. A step has three files; a manifest, written last, marks it as complete."""

import json
from contextlib import suppress

from core.checkpoint.io import CheckpointIO, saved_steps
from core.system.errors import UserError
from core.system.files import move_aside, sha256, system_errors, write_text

NETS, NETS_EMA, OPTIMS = FILES = "{:06d}_nets.ckpt", "{:06d}_nets_ema.ckpt", "{:06d}_optims.ckpt"
MANIFEST = "{:06d}_manifest.json"


class StepFiles:
    """Save and load complete steps. groups: template of a file's name -> {name: module or optimizer}, may be empty."""

    def __init__(self, folder, groups):
        self.folder = folder
        self.files = [CheckpointIO(folder, template, **group) for template, group in groups.items() if group]

    def modules(self):
        """Return all modules and optimizers in the order of the files, without duplicates (`fan` is in two files)."""
        return list(dict.fromkeys(module for file in self.files for module in file.modules.values()))

    def steps(self):
        """Return the steps that have all files, ascending."""
        return sorted(set.intersection(*(set(file.steps()) for file in self.files)))

    def save(self, step, config):
        """Write the step's files, then its manifest. Raises UserError if this fails."""
        is_new = not any(path.exists() for path in self._paths(step))
        try:
            with system_errors(self.folder, "write"):
                manifest_path(self.folder, step).unlink(missing_ok=True)
                for file in self.files:
                    file.save(step, config)
                write_manifest(self.folder, step)
        except UserError:
            with suppress(OSError):
                if is_new:
                    self._remove(step)  # On a full disk, an incomplete step would take the room of the next one.
            raise

    def load(self, step, optional=None):
        """Load the step's files. optional: see `CheckpointIO.load`. Raises UserError."""
        for file in self.files:
            file.load(step, optional)

    def move_aside(self, step):
        """Move the files of later steps to a new subfolder and return it, None without files. Remove half steps."""
        later = [number for number in any_steps(self.folder) if number > step]
        with system_errors(self.folder, "write"):
            for number in later:
                if is_half(self.folder, number):
                    self._remove(number)
        return move_aside([path for number in later for path in self._paths(number) if path.exists()], self.folder)

    def prune(self, keep, spared=()):
        """Remove all steps with a manifest except the newest `keep` (0: all) and the `spared` ones."""
        steps = saved_steps(self.folder, MANIFEST)
        for step in set(steps[:-keep] if keep else ()) - set(spared):
            self._remove(step)

    def _remove(self, step):
        for path in self._paths(step):
            path.unlink(missing_ok=True)

    def _paths(self, step):
        """Return the step's files and, last, its manifest: an interrupted removal is then completed next time."""
        return [*paths_of(self.folder, step), manifest_path(self.folder, step)]


def paths_of(folder, step):
    """Return the paths of a step's files in the order of FILES, whether they exist or not."""
    return [folder / template.format(step) for template in FILES]


def manifest_path(folder, step):
    """Return the path of a step's manifest, whether it exists or not."""
    return folder / MANIFEST.format(step)


def write_manifest(folder, step):
    """Write the manifest: sizes and hashes of a step's files. Raises OSError, UserError."""
    files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in paths_of(folder, step)}
    content = json.dumps({"step": step, "files": files}, indent=2) + "\n"
    write_text(manifest_path(folder, step), content, durable=True)


def is_half(folder, step):
    """Whether a step was left by an interrupted save: its first file exists, others and the manifest are missing."""
    there = [path.is_file() for path in paths_of(folder, step)]
    return there[0] and not all(there) and not manifest_path(folder, step).is_file()


def any_steps(folder):
    """Return the steps that have at least one file, ascending."""
    return sorted({step for template in FILES for step in saved_steps(folder, template)})
