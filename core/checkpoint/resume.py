"""The step that a run continues from: the newest one whose files are as they were written."""

import json

from core.checkpoint.io import read_checkpoint
from core.checkpoint.steps import FILES, any_steps, is_half, manifest_path, paths_of, write_manifest
from core.system import console
from core.system.errors import UserError
from core.system.files import sha256


def newest_whole_step(folder, mend=True):
    """The newest step in the folder whose three files are as they were written; None where there is no step, or
    nothing but the half of a first one.

    Newer ones that are not are named. A run that was killed just before it wrote its manifest left a whole step:
    the manifest is written now, if it may be (mend). Raises UserError where no step is whole.
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
    """What is wrong with a step's files, or an empty text."""
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
