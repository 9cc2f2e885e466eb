"""Checkpoints: one file per step, a dict of name -> state_dict plus a plain `config` entry."""

import pickle
import sys
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from core.system.console import listed
from core.system.errors import UserError
from core.system.files import atomic_write

CONFIG = "config"
READ_ERRORS = (  # what torch.load and zip and pickle beneath it raise over damaged bytes
    pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError,
)  # fmt: skip


class CheckpointIO:
    """Saves and loads modules or optimizers, one file per step. template: of its name, as "{:06d}_nets.ckpt"."""

    def __init__(self, folder, template, **modules):
        self.folder = Path(folder) if isinstance(folder, str) else folder
        self.template, self.modules = template, modules

    def path(self, step):
        """Where the file of `step` is, or would be."""
        # Joined first, Windows would take the template's colon for that of a drive.
        return self.folder / self.template.format(step)

    def steps(self):
        """Steps that have a file, ascending."""
        return saved_steps(self.folder, self.template)

    def save(self, step, config=None):
        """Write the file of `step`; `config` holds plain values that say what the modules are. Raises UserError."""
        content = {name: module.state_dict() for name, module in self.modules.items()} | {CONFIG: config or {}}
        with atomic_write(self.path(step), durable=True) as temporary:
            try:
                with temporary.open("wb") as file:  # given a name, PyTorch would write it into the file
                    torch.save(content, file)
            except RuntimeError as error:  # how PyTorch's writer says that the disk is full
                raise OSError("it could not be written to its end; is the disk full?") from error

    def load(self, step, optional=None):
        """Load the modules from a step's file; optional: {name: function} for one that it lacks. Raises UserError."""
        content, path = read_checkpoint(self.folder, self.template, step), self.path(step)
        elsewhere = self.modules.keys() & (optional or {}).keys() - content.keys()
        for name in elsewhere:
            optional[name]()
        modules = {name: module for name, module in self.modules.items() if name not in elsewhere}
        missing = [name for name in modules if not isinstance(content.get(name), dict)]
        if missing:
            raise UserError(f"{path} has no entry {', '.join(missing)}: it is another kind of file")
        for name, module in modules.items():
            if isinstance(module, nn.Module):
                content[name] = fit_state(content[name], module, f"{path}, {name}")
        for name, module in modules.items():  # nothing is loaded before all of it fits
            if isinstance(module, nn.Module):
                module.load_state_dict(content[name])
            else:
                _load_optimizer(module, content[name], f"{path}, {name}")


def saved_steps(folder, template):
    """Steps whose file lies in the folder, ascending."""
    suffix = template.partition("}")[2]
    names = [path.name.removesuffix(suffix) for path in Path(folder).glob(f"*{suffix}") if path.is_file()]
    return sorted(int(name) for name in names if name.isdecimal() and template.format(int(name)) == name + suffix)


def newest_step(folder, template):
    """The newest step in the folder. Raises UserError where there is none."""
    steps = saved_steps(folder, template)
    if steps:
        return steps[-1]
    if Path(folder).is_file():
        hint = "give the folder it lies in, and its step by --resume_iter"
        raise UserError(f"--checkpoint_dir {folder} is a file: {hint}")
    hint = "train first, or point --checkpoint_dir to a folder that has one"
    others = sorted(path.name for path in Path(folder).glob("*") if path.suffix in (".ckpt", ".pt", ".pth"))
    if others:
        hint = f"there is {', '.join(others[:3])}: if it is one, rename it to such a name"
    raise UserError(f"{folder} holds no checkpoint named like {template.format(100000)}; {hint}")


def read_checkpoint(folder, template, step, mapped=False):
    """Read the dict in a step's file, as `read_data` does. Raises UserError, also for another kind of file."""
    path = Path(folder) / template.format(step)
    if not path.is_file():
        steps = ", ".join(map(str, saved_steps(folder, template))) or "none"
        raise UserError(f"{path} does not exist: give --resume_iter a step that is there (found: {steps})")
    content = read_data(path, mapped)
    if not (isinstance(content, dict) and isinstance(content.get(CONFIG, {}), dict)):
        raise UserError(f"{path} is not a checkpoint of StarGAN v2: use another file")
    return content


def read_data(path, mapped=False):
    """Read what torch.save wrote, on the CPU, without executing anything. mapped: tensors stay on disk until used."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): allow it, or use another file") from error
    try:
        mapped = mapped and zipfile.is_zipfile(path)  # as PyTorch has written them since 1.6
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PyTorch remarks on damaged bytes becomes an error anyway
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except READ_ERRORS as error:
        raise UserError(f"{path} is damaged or not a checkpoint: use another step or copy it again") from error


def plain_keys(state):
    """A state dict without the prefix that DataParallel's files carry."""
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def fit_state(state, module, where):
    """Return the state dict under the module's own keys. where: names file and network in messages.

    Raises UserError where keys or shapes differ, or values are NaN or infinite.
    """
    state, expected = plain_keys(state), module.state_dict()
    if "hpf.filter" in expected:  # a constant, and missing from the official CelebA-HQ file
        state.setdefault("hpf.filter", expected["hpf.filter"])
    differences = {
        "missing": sorted(expected.keys() - state.keys()),
        "unknown": sorted(state.keys() - expected.keys()),
        "of another shape": sorted(k for k in expected.keys() & state if _shape(state[k]) != expected[k].shape),
    }
    mismatches = "; ".join(f"{kind}: {listed(keys, 12)}" for kind, keys in differences.items() if keys)
    if mismatches:
        misfit = "does not fit the networks that its config or the flags describe, use another file"
        raise UserError(f"{where} {misfit}; {mismatches}")
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        cause = "since its training diverged: use an earlier step"
        raise UserError(f"{where} holds values that are no numbers ({listed(broken, 3)}), {cause}")
    return state


def _shape(value):
    return value.shape if isinstance(value, torch.Tensor) else None


def _load_optimizer(optimizer, state, where):
    """Load an optimizer's saved moments; its settings stay, since the flags of this run count. Raises UserError."""
    try:
        pairs = zip(optimizer.state_dict()["param_groups"], state["param_groups"], strict=True)
        groups = [{**current, "params": saved["params"]} for current, saved in pairs]
        # Names are made the optimizer's own objects, so that it is saved byte for byte as if it had never been loaded.
        moments = {number: {sys.intern(key): value for key, value in p.items()} for number, p in state["state"].items()}
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    except (ValueError, LookupError, AttributeError, TypeError) as error:  # an optimizer's ways to refuse a state
        raise UserError(f"{where}, belongs to other networks ({error})") from error
