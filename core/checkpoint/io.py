"""Checkpoint files: one per step, a dict of name -> state_dict plus a plain `config` entry."""

import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from core.checkpoint.tensors import fit_optimizer, fit_state
from core.system.console import listed
from core.system.errors import UserError, reason
from core.system.files import atomic_write

CONFIG = "config"
NETWORKS = ("generator", "mapping_network", "style_encoder")  # entries of every file of a step
READ_ERRORS = (  # raised for damaged files by torch.load, zipfile and pickle
    pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError,
    ArithmeticError, AssertionError, ImportError, MemoryError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


class CheckpointIO:
    """Save and load modules or optimizers, one file per step. template: of file names, e.g. "{:06d}_nets.ckpt"."""

    def __init__(self, folder, template, **modules):
        self.folder = Path(folder) if isinstance(folder, str) else folder
        self.template, self.modules = template, modules

    def path(self, step):
        """Return the path of the file of `step`, whether it exists or not."""
        # Format the name first: Windows would read the colon in the template as a drive letter's.
        return self.folder / self.template.format(step)

    def steps(self):
        """Return the steps that have a file, ascending."""
        return saved_steps(self.folder, self.template)

    def save(self, step, config=None):
        """Write the file of `step`. config: plain values that describe the modules. Raises UserError."""
        content = {name: module.state_dict() for name, module in self.modules.items()} | {CONFIG: config or {}}
        with atomic_write(self.path(step), durable=True) as temporary:
            try:
                with temporary.open("wb") as file:  # If given a path, PyTorch would store the name in the file.
                    torch.save(content, file)
            except RuntimeError as error:  # PyTorch's writer raises this if the disk is full.
                raise OSError("the file is incomplete, perhaps the disk is full") from error

    def load(self, step, optional=None):
        """Load the modules from a step's file. Raises UserError.

        optional: {name: function} of modules that the file may lack; the function is then called to load the module.
        """
        content, path = read_checkpoint(self.folder, self.template, step), self.path(step)
        elsewhere = self.modules.keys() & (optional or {}).keys() - content.keys()
        for name in elsewhere:
            optional[name]()
        modules = {name: module for name, module in self.modules.items() if name not in elsewhere}
        missing = [name for name in modules if not isinstance(content.get(name), dict)]
        if missing:
            raise UserError(f"Cannot load {path} (no entry {', '.join(missing)}{found(content)}). Use another file.")
        states = {}
        for name, module in modules.items():
            fit = fit_state if isinstance(module, nn.Module) else fit_optimizer
            states[name] = fit(content[name], module, f"{name} from {path}")
        for name, module in modules.items():  # Load only after all states fit.
            module.load_state_dict(states[name])


def saved_steps(folder, template):
    """Return the steps that have a file in the folder, ascending."""
    suffix = template.partition("}")[2]
    names = [path.name.removesuffix(suffix) for path in Path(folder).glob(f"*{suffix}") if path.is_file()]
    return sorted(int(name) for name in names if name.isdecimal() and template.format(int(name)) == name + suffix)


def newest_step(folder, template):
    """Return the newest step in the folder. Raises UserError if there is none."""
    steps = saved_steps(folder, template)
    if steps:
        return steps[-1]
    if Path(folder).is_file():
        hint = "Give its folder, and the step with --resume_iter"
        raise UserError(f"Cannot use --checkpoint_dir {folder} (it is a file). {hint}.")
    hint = "Train first, or set --checkpoint_dir to a folder with checkpoints"
    others = sorted(path.name for path in Path(folder).glob("*") if path.suffix in (".ckpt", ".pt", ".pth"))
    if others:
        hint = f"Rename your checkpoint if it is one of these files: {', '.join(others[:3])}"
    raise UserError(f"No checkpoint named like {template.format(100000)} in {folder}. {hint}.")


def read_checkpoint(folder, template, step, mapped=False):
    """Return the dict in a step's file, see `read_data`. Raises UserError, also for other kinds of files."""
    path = Path(folder) / template.format(step)
    if not path.is_file():
        steps = ", ".join(map(str, saved_steps(folder, template))) or "none"
        raise UserError(f"Cannot read {path} (no such file). Set --resume_iter to an existing step (found: {steps}).")
    content = unwrapped(read_data(path, mapped))
    if not (isinstance(content, dict) and isinstance(content.get(CONFIG, {}), dict)):
        raise UserError(f"Cannot load {path} (not a StarGAN v2 checkpoint). Use another file.")
    return content


def read_data(path, mapped=False):
    """Load a file of torch.save to the CPU without executing code. mapped: leave tensors on the disk until used."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"Cannot read {path} ({reason(error)}). Check its permissions or use another file.") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Damaged files also raise an error.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and _is_mappable(path))
    except READ_ERRORS as error:
        refused = re.search(r"(?:GLOBAL|class|function) <?([\w.]+(?: function \w+)?)", str(error))
        if isinstance(error, pickle.UnpicklingError) and refused and is_intact(path):
            flaw = f"complete, but not a plain checkpoint: it contains a Python object, {refused[1]}"
            advice = "Convert it to a file of state dicts, since this program executes no code of a file"
            raise UserError(f"Cannot read {path} ({flaw}). {advice}.") from error
        flaw = "damaged or not a checkpoint"
        raise UserError(f"Cannot read {path} ({flaw}). Use another file, or copy the file again.") from error


def _is_mappable(path):
    """Whether a file has PyTorch's format since 1.6, not compressed by another program."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def is_intact(path):
    """Whether the file's own checksums are right. True for PyTorch's format before 1.6, which has none."""
    try:
        if not zipfile.is_zipfile(path):
            return True
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except READ_ERRORS:
        return False


def unwrapped(content):
    """Return the networks' dict of a file: the content, or its only entry that has NETWORKS (other tools)."""
    if not isinstance(content, dict) or content.keys() & set(NETWORKS):
        return content
    inner = [entry for entry in content.values() if isinstance(entry, dict) and entry.keys() >= set(NETWORKS)]
    return inner[0] if len(inner) == 1 else content


def found(content):
    """Return the names of a file's entries as part of a sentence."""
    return f"; found: {listed(content, 6) or 'nothing'}"
