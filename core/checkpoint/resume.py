"""Find the step to resume from: the newest complete one."""

import re

from core.checkpoint.io import is_intact, read_checkpoint
from core.checkpoint.steps import FILES, any_steps, is_half, manifest_path, paths_of, write_manifest
from core.system import console
from core.system.errors import UserError, reason
from core.system.files import sha256
from core.system.notes import parse_json, read_text


def newest_whole_step(folder, mend=True):
    """Return the newest complete step in the folder; 0 if there is none, or only an interrupted save.

    mend: write the manifest of a complete step if it is missing or damaged. Raises UserError if all steps are damaged.
    """
    steps = any_steps(folder)
    for step in reversed(steps):
        flaw = find_flaw(folder, step)
        if not flaw:
            if mend and not read_manifest(folder, step):
                write_manifest(folder, step)
            return step
        console.warn(f"Skipping step {step} in {folder}: {flaw}. Looking for an earlier step.")
    if not all(is_half(folder, step) for step in steps):
        raise UserError(f"No complete step in {folder}. Restart with --resume_iter 0 and another --checkpoint_dir.")
    console.info(f"No checkpoint in {folder}. Training starts from iteration 0.")
    return 0


def find_flaw(folder, step):
    """Return the flaw of a step's files as part of a sentence, an empty text if they are complete."""
    paths = paths_of(folder, step)
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        return f"missing {', '.join(missing)}"
    try:
        hashes, manifest = read_manifest(folder, step), manifest_path(folder, step)
        if hashes is None and manifest.exists():
            console.warn(f"Ignoring the damaged file {manifest}. The program checks the files of the step itself.")
        if hashes:
            changed = [path.name for path in paths if sha256(path) != hashes[path.name]]
        else:  # Another program or an earlier version wrote the step, or the manifest is damaged.
            for template in FILES:
                read_checkpoint(folder, template, step)
            changed = [path.name for path in paths if not is_intact(path)]
        return f"wrong checksum of {', '.join(changed)}" if changed else ""
    except UserError as error:
        return reason(error)
    except OSError as error:
        return f"unreadable files ({reason(error)})"


def read_manifest(folder, step):
    """Return the hashes of a step's files {name: text}, None without a valid manifest."""
    path = manifest_path(folder, step)
    try:
        manifest = parse_json(read_text(path))
        hashes = {file.name: manifest["files"][file.name]["sha256"] for file in paths_of(folder, step)}
        is_valid = manifest["step"] == step and all(re.fullmatch("[0-9a-f]{64}", text) for text in hashes.values())
        return hashes if is_valid else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
