"""The step that a run continues from: the newest one whose files are as they were written."""

import json

from core.checkpoint.io import read_checkpoint
from core.checkpoint.steps import FILES, any_steps, is_half, manifest_path, paths_of, write_manifest
from core.system import console
from core.system.errors import UserError
from core.system.files import sha256


def step_to_resume(folder, wanted, mend=True):
    """The step that a training continues from; 0: it begins. wanted: a step, or "latest", see `newest_whole_step`."""
    if wanted != "latest":
        return wanted
    step = newest_whole_step(folder, mend)
    if step is None:
        console.info(f"No step in {folder} yet: training begins")
    return step or 0


def check_whole(folder, step):
    """Raise UserError where a step's files are not as they were written."""
    flaw = find_flaw(folder, step)
    if flaw:
        raise UserError(f"step {step} in {folder} cannot be gone on from: {flaw}")


def newest_whole_step(folder, mend=True):
    """The newest step in the folder whose files are as they were written; None where there is none, or half of one.

    mend: write the manifest of a whole step without one, of a killed run. Raises UserError where no step is whole.
    """
    steps = any_steps(folder)
    for step in reversed(steps):
        flaw = find_flaw(folder, step)
        if not flaw:
            if mend and not manifest_path(folder, step).is_file():
                write_manifest(folder, step)
            return step
        console.warn(f"step {step} in {folder} is passed over: {flaw}")
    if not all(is_half(folder, step) for step in steps):
        raise UserError(f"no step in {folder} is whole: start anew with --resume_iter 0 and another --checkpoint_dir")
    return None


def find_flaw(folder, step):
    """What is wrong with a step's files, as the end of a sentence; an empty text where nothing is."""
    paths = paths_of(folder, step)
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        return f"{', '.join(missing)} is missing"
    manifest = manifest_path(folder, step)
    try:
        if not manifest.is_file():  # of another program, or of an earlier version
            for template in FILES:
                read_checkpoint(folder, template, step)
            return ""
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        changed = [path.name for path in paths if sha256(path) != files[path.name]["sha256"]]
        return f"{', '.join(changed)} is not as it was written" if changed else ""
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    except (ValueError, LookupError, TypeError):
        return f"{manifest.name} is damaged"
