"""Check the tensors of a file against the networks and optimizers that they are loaded into."""

from itertools import chain

import torch
from torch import nn

from core.system.console import listed
from core.system.errors import UserError

WRAPPERS = {"module", "_orig_mod"}  # parts of names that DataParallel and torch.compile add
MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam; literals like its own: pickle writes equal objects only once


def plain_keys(state):
    """Return a state dict without the parts of its names that DataParallel and torch.compile add."""
    plain = {".".join(part for part in str(key).split(".") if part not in WRAPPERS): state[key] for key in state}
    return plain if len(plain) == len(state) else {str(key): value for key, value in state.items()}


def fit_state(state, module, where):
    """Return the state dict with the module's own keys and types. where: network and file, "NAME from FILE".

    Raises UserError if keys, shapes or kinds of tensors differ, or if values are NaN or infinite.
    """
    state, expected = plain_keys(state), module.state_dict()
    if "hpf.filter" in expected:  # The official CelebA-HQ file lacks this constant.
        state.setdefault("hpf.filter", expected["hpf.filter"])
    differences = {"missing": sorted(expected.keys() - state.keys()), "unknown": sorted(state.keys() - expected.keys())}
    for key in sorted(expected.keys() & state.keys()):
        flaw = kind_flaw(state[key], expected[key])
        differences.setdefault(flaw, []).append(key)
    differences.pop("", None)
    mismatches = "; ".join(f"{kind}: {listed(keys, 12)}" for kind, keys in differences.items() if keys)
    if mismatches:
        misfit = "it does not fit the network that its config or the flags define"
        raise UserError(f"Cannot load {where} ({misfit}; {mismatches}). Use another file.")
    fitting = {key: _cast(value, expected[key]) for key, value in state.items()}
    broken = [key for key, value in fitting.items() if not value.isfinite().all()]
    if broken:
        flaw = f"NaN or infinite values in {listed(broken, 3)}, so its training diverged"
        raise UserError(f"Cannot load {where} ({flaw}). Use an earlier step.")
    return fitting


def is_dense(value):
    """Whether a value is a tensor with a shape and strides."""
    return isinstance(value, torch.Tensor) and not value.is_nested and value.layout is torch.strided


def kind_flaw(value, expected):
    """Return why a value of a file cannot be copied to the tensor `expected`, an empty text if it can."""
    if type(value) not in (torch.Tensor, nn.Parameter):
        return "not a plain tensor"
    if not is_dense(value):
        return "sparse or nested"
    if value.is_meta:
        return "without data"
    if value.shape != expected.shape:
        return "of another shape"
    is_number = value.is_floating_point() or not (expected.is_floating_point() or value.is_complex())
    if value.is_quantized or not is_number or _cast(torch.empty(1, dtype=value.dtype), expected) is None:
        return f"{str(value.dtype).removeprefix('torch.')} instead of {str(expected.dtype).removeprefix('torch.')}"
    return ""


def _cast(value, expected):
    """Return the values in the type of another tensor, None if PyTorch cannot convert them."""
    try:
        return value.detach().to(expected.dtype)
    except (RuntimeError, TypeError):  # packed types such as float4
        return None


def fit_optimizer(state, optimizer, where):
    """Return the state dict of an Adam with the moments of a file, and its own settings: they are flags of this run.

    Raises UserError if the moments do not fit the parameters.
    """
    own_groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    try:
        numbers = [list(group["params"]) for group in state["param_groups"]]
        if list(map(len, numbers)) != [len(group["params"]) for group in own_groups]:
            raise _Misfit("its numbers of parameters differ")
        by_number = dict(zip(chain(*numbers), parameters, strict=True))
        if len(by_number) < len(parameters) or not state["state"].keys() <= by_number.keys():
            raise _Misfit("its numbers of parameters are not unique or unknown")
        moments = {number: _fit_moments(saved, by_number[number]) for number, saved in state["state"].items()}
    except (LookupError, AttributeError, TypeError, ValueError, OverflowError) as error:
        flaw = str(error) if isinstance(error, _Misfit) else "its entries have unexpected names or types"
        raise UserError(f"Cannot load {where} (it belongs to other networks: {flaw}). Use another file.") from error
    groups = [{**own, "params": params} for own, params in zip(own_groups, numbers, strict=True)]
    return {"state": moments, "param_groups": groups}


class _Misfit(ValueError):
    """Moments that do not fit. The message is part of a sentence."""


def _fit_moments(saved, parameter):
    """Return Adam's state of a parameter. The moments are copies in the memory format of the parameter."""
    if saved.keys() != {"step", *MOMENTS}:
        raise _Misfit(f"it must have the entries step, {', '.join(MOMENTS)} per parameter")
    step = saved["step"]  # a number in files of PyTorch before 1.12
    flaw = "" if isinstance(step, (int, float)) else kind_flaw(step, torch.tensor(0.0))
    if flaw:
        raise _Misfit(f"step is {flaw}")
    step = step.detach() if isinstance(step, torch.Tensor) else step
    fitting = {"step": torch.tensor(float(step))}
    if not 0 <= fitting["step"] < torch.inf:
        raise _Misfit("step is negative, NaN or infinite")
    for name in MOMENTS:
        flaw = kind_flaw(saved[name], parameter)
        if flaw:
            raise _Misfit(f"{name} of a parameter of shape {tuple(parameter.shape)} is {flaw}")
        moment = torch.empty_like(parameter, device="cpu", requires_grad=False).copy_(saved[name].detach())
        if not moment.isfinite().all() or (name == "exp_avg_sq" and moment.min() < 0):
            raise _Misfit(f"{name} has NaN, infinite or negative values")
        fitting[name] = moment
    return fitting
