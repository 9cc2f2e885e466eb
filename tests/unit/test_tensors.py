"""Tensors of files: prefixes, kinds, values, and the moments of optimizers."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from torch import nn

from core.checkpoint.io import CheckpointIO, read_checkpoint
from core.checkpoint.steps import NETS_EMA, OPTIMS
from core.checkpoint.tensors import fit_state, plain_keys
from core.system.errors import UserError
from tests.pretrained import begun, pretrained, save

KINDS = {  # a change of a weight (2, 3), and what the error says of it
    "meta": (lambda t: t.to("meta"), "without data"),
    "sparse": (lambda t: t.to_sparse(), "sparse or nested"),
    "sparse rows": (lambda t: t.to_sparse_csr(), "sparse or nested"),
    "nested": (lambda t: torch.nested.nested_tensor(list(t)), "sparse or nested"),
    "complex": (lambda t: t.to(torch.complex64), "complex64 instead of float32"),
    "integers": (lambda t: t.to(torch.int8), "int8 instead of float32"),
    "quantized": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "qint8 instead of float32"),
    "float4": (lambda t: torch.empty(2, 3, dtype=torch.float4_e2m1fn_x2), "float4_e2m1fn_x2 instead of float32"),
    "other shape": (lambda t: t.t(), "of another shape"),
    "expanded": (lambda t: torch.ones(()).expand(2**40, 3), "of another shape"),
    "no tensor": (lambda t: t.tolist(), "not a plain tensor"),
    "infinite": (lambda t: t / 0, "NaN or infinite values"),
    "infinite float8": (lambda t: (t / 0).to(torch.float8_e5m2), "NaN or infinite values"),
    "too large": (lambda t: t.double() + 1e300, "NaN or infinite values"),
}


@pytest.mark.filterwarnings("ignore")  # PyTorch announces that some kinds of tensors will change
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_unusual_kinds_are_refused(kind, tmp_path):
    change, said = KINDS[kind]
    io = CheckpointIO(tmp_path, NETS_EMA, net=nn.Linear(3, 2))
    before = io.modules["net"].weight.clone()
    state = {"weight": change(torch.ones(2, 3)), "bias": torch.zeros(2)}
    torch.save({"net": state}, io.path(1))
    with pytest.raises(UserError, match=f"^Cannot load net from .*{said}.*weight"):
        io.load(1)
    with pytest.raises(UserError, match=said):  # in the memory of this process
        fit_state(state, io.modules["net"], "net")
    assert torch.equal(io.modules["net"].weight, before)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_weights_of_other_precisions_are_converted(kind):
    network = nn.BatchNorm1d(2)
    state = {key: value.to(kind) for key, value in network.state_dict().items()}  # the counter, too
    fitting = fit_state(state, network, "net")
    assert {key: value.dtype for key, value in fitting.items()} == {k: v.dtype for k, v in network.state_dict().items()}
    network.load_state_dict(fitting)


def test_prefixes_are_removed_in_any_order_and_place():
    for key in ("module._orig_mod.a.b", "_orig_mod.module.a.b", "a._orig_mod.b", "module.module.a.module.b", "a.b"):
        assert plain_keys({key: 1}) == {"a.b": 1}
    assert plain_keys({"module.a": 1, "a": 2}) == {"module.a": 1, "a": 2}, "both names stay where two would be equal"


def test_networks_in_an_entry_of_another_tool_load(tmp_path):
    networks = {name: {"a": torch.ones(1)} for name in ("generator", "mapping_network", "style_encoder")}
    for wrapper in ("state_dict", "model", "ema"):
        torch.save({wrapper: networks, "epoch": 3}, tmp_path / NETS_EMA.format(1))
        assert read_checkpoint(tmp_path, NETS_EMA, 1) == networks
    torch.save({"nets": networks, "ema": networks}, tmp_path / NETS_EMA.format(1))
    with pytest.raises(UserError, match="no entry generator; found: nets, ema"):
        CheckpointIO(tmp_path, NETS_EMA, generator=nn.Linear(1, 1)).load(1)


class Settings:
    """A class of another program."""


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Namespace(lr=1), "argparse.Namespace"),
        (Settings(), ".*test_tensors.Settings"),
        (np.float64(1), "numpy.*scalar"),
        (print, "print"),
    ],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_classes_that_are_not_read_are_named(value, name, is_zip, tmp_path):
    path = tmp_path / NETS_EMA.format(1)
    torch.save({"generator": {}, "args": value}, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(UserError, match=f"complete, but .* a Python object, {name}\\). Convert it"):
        read_checkpoint(tmp_path, NETS_EMA, 1)
    if is_zip:
        whole = path.read_bytes()
        at = whole.index(b"generator")
        path.write_bytes(whole[:at] + b"x" + whole[at + 1 :])
        with pytest.raises(UserError, match=r"\(damaged or not a checkpoint\)"):
            read_checkpoint(tmp_path, NETS_EMA, 1)


def adam(folder, memory_format=torch.contiguous_format):
    """The file of an Adam after one step of a convolution."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 2, 3).to(memory_format=memory_format)
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    layer(torch.ones(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    return CheckpointIO(folder, OPTIMS, net=optimizer), layer


MOMENTS = {  # a change of the entries of the first parameter
    "shape": lambda s: s | {"exp_avg": torch.zeros(3)},
    "meta": lambda s: s | {"exp_avg": s["exp_avg"].to("meta")},
    "sparse": lambda s: s | {"exp_avg_sq": s["exp_avg_sq"].to_sparse()},
    "complex": lambda s: s | {"exp_avg": s["exp_avg"].to(torch.complex64)},
    "nan": lambda s: s | {"exp_avg": s["exp_avg"] * float("nan")},
    "too large": lambda s: s | {"exp_avg": s["exp_avg"].double() + 1e300},
    "negative": lambda s: s | {"exp_avg_sq": s["exp_avg_sq"] - 1e9},
    "number": lambda s: s | {"exp_avg": 1.0},
    "missing": lambda s: {"step": s["step"]},
    "unknown": lambda s: s | {"max_exp_avg_sq": s["exp_avg_sq"]},
    "step nan": lambda s: s | {"step": torch.tensor(float("nan"))},
    "step huge": lambda s: s | {"step": 10**400},
    "step negative": lambda s: s | {"step": -1},
    "step text": lambda s: s | {"step": "1"},
    "step vector": lambda s: s | {"step": torch.ones(2)},
    "list": list,
}


@pytest.mark.parametrize("change", MOMENTS)
def test_moments_that_do_not_fit_are_refused(change, tmp_path):
    io, _ = adam(tmp_path)
    content = {"net": io.modules["net"].state_dict()}
    state = content["net"]["state"]
    state[0] = MOMENTS[change](state[0])
    torch.save(content, io.path(1))
    with pytest.raises(UserError, match="^Cannot load net from .*belongs to other networks: "):
        adam(tmp_path)[0].load(1)


@pytest.mark.parametrize("groups", [[], [{}], [{"params": [0]}], [{"params": [0, 0]}], [{"params": [0, 7]}], [3], "ab"])
def test_optimizers_of_other_parameters_are_refused(groups, tmp_path):
    io, _ = adam(tmp_path)
    torch.save({"net": io.modules["net"].state_dict() | {"param_groups": groups}}, io.path(1))
    with pytest.raises(UserError, match="belongs to other networks: its"):
        io.load(1)


def test_moments_are_copies_in_the_memory_format_of_the_parameters(tmp_path):
    """A fused Adam reads memory in order, and moments may share memory in a file."""
    io, _ = adam(tmp_path)
    content = {"net": io.modules["net"].state_dict()}
    first = content["net"]["state"][0]
    first["exp_avg"] = first["exp_avg_sq"]  # one tensor
    for step in (1, nn.Parameter(torch.tensor(1.0, dtype=torch.float64))):  # a number before PyTorch 1.12
        first["step"] = step
        torch.save(content, io.path(1))
        other, layer = adam(tmp_path, torch.channels_last)
        other.load(1)
        loaded = other.modules["net"].state[layer.weight]
        assert torch.equal(loaded["exp_avg"], first["exp_avg_sq"]) and loaded["step"] == 1
        assert loaded["step"].dtype == torch.float32 and not loaded["step"].requires_grad
    assert loaded["exp_avg"].stride() == layer.weight.stride()
    assert loaded["exp_avg"].data_ptr() != loaded["exp_avg_sq"].data_ptr()


@pytest.mark.parametrize("network", ["generator", "discriminator"])
@pytest.mark.parametrize("kind", ["meta", "sparse", "complex"])
def test_init_from_refuses_weights_of_unusual_kinds(network, kind, tmp_path):
    path = save(pretrained(), tmp_path)
    path = path if network == "generator" else path.with_name(path.name.replace("_nets_ema", "_nets"))
    content = torch.load(path, weights_only=True)
    key = list(content[network])[-1]
    content[network][key] = KINDS[kind][0](content[network][key])
    torch.save(content, path)
    with pytest.raises(UserError, match=r"^Cannot (load|use|read) "):
        begun(path)
