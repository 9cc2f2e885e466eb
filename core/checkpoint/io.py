"""Checkpoints: one file per step, a dict of name -> state_dict plus a plain `config` entry."""

import pickle
import sys
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from core.system.errors import UserError
from core.system.files import atomic_write

CONFIG = "config"
READ_ERRORS = (  # what torch.load and zip and pickle beneath it raise over damaged bytes
    pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError,
)  # fmt: skip


class CheckpointIO:
    """Saves and loads a group of modules or optimizers under one name per step.

    folder: where the files live. template: the file's name with a place for the step, such as
    "{:06d}_nets.ckpt". It is formatted before it is joined to the folder: joined first, Windows takes
    the colon for a drive letter's. modules: name -> object with a state_dict.
    """

    def __init__(self, folder, template, **modules):
        self.folder = Path(folder) if isinstance(folder, str) else folder
        self.template = template
        self.modules = modules

    def path(self, step):
        """Where the file of `step` is, or would be."""
        return self.folder / self.template.format(step)

    def steps(self):
        """Steps that have a file, ascending."""
        return saved_steps(self.folder, self.template)

    def save(self, step, config=None):
        """Write the file of `step`; `config` holds plain values that say what the modules are. Raises UserError."""
        content = {name: module.state_dict() for name, module in self.modules.items()}
        with atomic_write(self.path(step), durable=True) as temporary:
            try:
                with temporary.open("wb") as file:  # given a name, PyTorch would write it into the file
                    torch.save({**content, CONFIG: config or {}}, file)
            except RuntimeError as error:  # how PyTorch's writer says that the disk is full
                raise OSError("it could not be written to its end; is the disk full?") from error

    def load(self, step, optional=None):
        """Load the modules from the file of `step`. Raises UserError where file and modules differ.

        optional: {name: load}, what loads a module from elsewhere where the file does not have it.
        """
        content = read_checkpoint(self.folder, self.template, step)
        elsewhere = {name: load for name, load in (optional or {}).items() if name in self.modules.keys() - content}
        for load in elsewhere.values():
            load()
        modules = {name: module for name, module in self.modules.items() if name not in elsewhere}
        missing = [name for name in modules if not isinstance(content.get(name), dict)]
        if missing:
            raise UserError(f"{self.path(step)} has no entry {', '.join(missing)}: it is another kind of file")
        states = {name: content[name] for name in modules}
        for name, module in modules.items():
            if isinstance(module, nn.Module):
                states[name] = fit_state(states[name], module, f"{self.path(step)}, {name}")
                check_finite(states[name], f"{self.path(step)}, {name}")
        for name, module in modules.items():  # nothing is loaded before all of it fits
            if isinstance(module, nn.Module):
                module.load_state_dict(states[name])
                continue
            try:
                module.load_state_dict(_with_own_settings(states[name], module))
            except (ValueError, LookupError, AttributeError, TypeError) as error:  # an optimizer's ways to say so
                raise UserError(f"{self.path(step)}, {name}, belongs to other networks ({error})") from error


def saved_steps(folder, template):
    """Steps whose file lies in the folder, ascending."""
    suffix = template.partition("}")[2]
    names = [path.name.removesuffix(suffix) for path in Path(folder).glob(f"*{suffix}") if path.is_file()]
    return sorted(int(name) for name in names if name.isdecimal() and template.format(int(name)) == name + suffix)


def newest_step(folder, template):
    """The newest step in the folder. Raises UserError where there is none."""
    steps = saved_steps(folder, template)
    if Path(folder).is_file():
        raise UserError(
            f"--checkpoint_dir {folder} is a file: give the folder it lies in, and its step by --resume_iter"
        )
    if not steps:
        others = sorted(path.name for path in Path(folder).glob("*") if path.suffix in (".ckpt", ".pt", ".pth"))
        found = "train first, or point --checkpoint_dir to a folder that has one"
        if others:
            found = f"there is {', '.join(others[:3])}: if it is one, rename it to such a name"
        raise UserError(f"{folder} holds no checkpoint named like {template.format(100000)}; {found}")
    return steps[-1]


def read_checkpoint(folder, template, step, mapped=False):
    """Read the dict in a step's file, on the CPU, as data: nothing in it is executed.

    Raises UserError where it is missing, damaged or another kind of file. mapped: leave tensors on the disk until
    they are used, which is soon or not at all.
    """
    path = Path(folder) / template.format(step)
    if not path.is_file():
        steps = ", ".join(map(str, saved_steps(folder, template))) or "none"
        raise UserError(f"{path} does not exist: give --resume_iter a step that is there (found: {steps})")
    content = read_data(path, mapped)
    if not (isinstance(content, dict) and isinstance(content.get(CONFIG, {}), dict)):
        raise UserError(f"{path} is not a checkpoint of StarGAN v2: use another file")
    return content


def read_data(path, mapped=False):
    """What torch.save wrote into a file, on the CPU. Raises UserError. mapped: see `read_checkpoint`."""
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
    """Return the state dict under the module's own keys, or raise UserError with what differs."""
    state = plain_keys(state)
    own = module.state_dict()
    if "hpf.filter" in own:  # a constant, and missing from the official CelebA-HQ file
        state.setdefault("hpf.filter", own["hpf.filter"])
    differences = {
        "missing": sorted(own.keys() - state.keys()),
        "unknown": sorted(state.keys() - own.keys()),
        "of another shape": sorted(k for k in own.keys() & state.keys() if _shape(state[k]) != own[k].shape),
    }
    found = "; ".join(f"{kind}: {_listed(keys)}" for kind, keys in differences.items() if keys)
    if found:
        raise UserError(
            f"{where} does not fit the networks that its config or the flags describe, use another file; {found}"
        )
    return state


def check_finite(state, where):
    """Raise UserError where a state dict holds NaN or infinity. where: names file and network in the message."""
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise UserError(
            f"{where} holds values that are no numbers ({_listed(broken, 3)}), since its training diverged: "
            "use an earlier step"
        )


def _listed(keys, most=12):
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def _with_own_settings(state, optimizer):
    """An optimizer's saved moments beside the settings it has now: the flags of this run count."""
    pairs = zip(optimizer.state_dict()["param_groups"], state["param_groups"], strict=True)
    groups = [{**own, "params": saved["params"]} for own, saved in pairs]
    # Names are made the optimizer's own objects, so that it is saved byte for byte as if it had never been loaded.
    moments = {number: {sys.intern(key): value for key, value in p.items()} for number, p in state["state"].items()}
    return {"state": moments, "param_groups": groups}


def _shape(value):
    return value.shape if isinstance(value, torch.Tensor) else None
