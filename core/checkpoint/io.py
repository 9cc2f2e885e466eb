"""Checkpoint files: one per step, a dict of name -> state_dict plus a plain `config` entry."""

import pickle
import sys
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from core.system.console import listed
from core.system.errors import UserError, reason
from core.system.files import atomic_write

CONFIG = "config"
READ_ERRORS = (  # raised for damaged files by torch.load, zipfile and pickle
    pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError,
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
            raise UserError(f"Cannot load {path} (no entry {', '.join(missing)}). Use another file.")
        for name, module in modules.items():
            if isinstance(module, nn.Module):
                content[name] = fit_state(content[name], module, f"{name} from {path}")
        for name, module in modules.items():  # Load only after all states fit.
            if isinstance(module, nn.Module):
                module.load_state_dict(content[name])
            else:
                _load_optimizer(module, content[name], f"{name} from {path}")


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
    content = read_data(path, mapped)
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
        mapped = mapped and zipfile.is_zipfile(path)  # PyTorch's format since 1.6
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Damaged files also raise an error.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except READ_ERRORS as error:
        flaw = "damaged or not a checkpoint"
        raise UserError(f"Cannot read {path} ({flaw}). Use another file, or copy the file again.") from error


def plain_keys(state):
    """Return a state dict without the prefix that DataParallel adds."""
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def fit_state(state, module, where):
    """Return the state dict with the module's own keys. where: network and file in messages, "NAME from FILE".

    Raises UserError if keys or shapes differ, or if values are NaN or infinite.
    """
    state, expected = plain_keys(state), module.state_dict()
    if "hpf.filter" in expected:  # The official CelebA-HQ file lacks this constant.
        state.setdefault("hpf.filter", expected["hpf.filter"])
    differences = {
        "missing": sorted(expected.keys() - state.keys()),
        "unknown": sorted(state.keys() - expected.keys()),
        "of another shape": sorted(k for k in expected.keys() & state if _shape(state[k]) != expected[k].shape),
    }
    mismatches = "; ".join(f"{kind}: {listed(keys, 12)}" for kind, keys in differences.items() if keys)
    if mismatches:
        misfit = "it does not fit the network that its config or the flags define"
        raise UserError(f"Cannot load {where} ({misfit}; {mismatches}). Use another file.")
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        flaw = f"NaN or infinite values in {listed(broken, 3)}, so its training diverged"
        raise UserError(f"Cannot load {where} ({flaw}). Use an earlier step.")
    return state


def _shape(value):
    return value.shape if isinstance(value, torch.Tensor) else None


def _load_optimizer(optimizer, state, where):
    """Load an optimizer's saved moments. Its settings do not change: they are flags of this run. Raises UserError."""
    try:
        pairs = zip(optimizer.state_dict()["param_groups"], state["param_groups"], strict=True)
        groups = [{**current, "params": saved["params"]} for current, saved in pairs]
        # Intern the names: pickle writes them by identity, and a resumed run must save the same bytes.
        moments = {number: {sys.intern(key): value for key, value in p.items()} for number, p in state["state"].items()}
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    except (ValueError, LookupError, AttributeError, TypeError) as error:  # raised by optimizers for a wrong state
        raise UserError(f"Cannot load {where} (it belongs to other networks: {error}). Use another file.") from error
