import os
from pathlib import PurePosixPath, PureWindowsPath

import pytest
import torch
from torch import nn

from core.checkpoint.io import CheckpointIO, newest_step, read_checkpoint, saved_steps
from core.model import Generator
from core.system.errors import UserError

TEMPLATE = "{:06d}_nets.ckpt"


@pytest.fixture
def io(tmp_path):
    torch.manual_seed(0)
    return CheckpointIO(str(tmp_path), TEMPLATE, first=nn.Linear(3, 2), second=nn.Linear(2, 1))


def twin(io):
    """A CheckpointIO of the same kind with other weights."""
    return CheckpointIO(io.folder, TEMPLATE, first=nn.Linear(3, 2), second=nn.Linear(2, 1))


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        (PureWindowsPath("C:/expr/checkpoints"), "C:\\expr\\checkpoints\\000010_nets.ckpt"),
        (PureWindowsPath("expr"), "expr\\000010_nets.ckpt"),
        (PurePosixPath("/expr/checkpoints"), "/expr/checkpoints/000010_nets.ckpt"),
        (PurePosixPath("ex{pr"), "ex{pr/000010_nets.ckpt"),
    ],
)
def test_path_formats_the_step_into_the_file_name_only(folder, expected):
    """Windows and POSIX paths; braces in the name of the folder are not formatted."""
    assert str(CheckpointIO(folder, TEMPLATE).path(10)) == expected


def test_save_and_load_round_trip_with_one_file_per_step(io):
    io.save(5, {"img_size": 64, "domains": ["cat", "dog"]})
    old = {key: value.clone() for key, value in io.modules["first"].state_dict().items()}
    nn.init.zeros_(io.modules["first"].weight)
    io.save(123456)
    assert io.steps() == [5, 123456]
    other = twin(io)
    other.load(5)
    assert all(torch.equal(value, old[key]) for key, value in other.modules["first"].state_dict().items())
    assert read_checkpoint(io.folder, TEMPLATE, 5, mapped=True)["config"] == {
        "img_size": 64,
        "domains": ["cat", "dog"],
    }
    assert newest_step(io.folder, TEMPLATE) == 123456


def test_the_file_is_a_plain_dict_of_state_dicts(io):
    """The format of the reference: name -> state_dict; the reference ignores the additional entry."""
    io.save(1, {"step": 1})
    content = torch.load(io.path(1), weights_only=True)
    assert set(content) == {"first", "second", "config"}
    assert list(content["first"]) == ["weight", "bias"]


def test_a_full_disk_keeps_the_old_file(io):
    resource = pytest.importorskip("resource")
    io.save(1)
    before = io.path(1).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(UserError, match=r"^Cannot write .*\(file too large"):
            io.save(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert io.path(1).read_bytes() == before
    assert [path.name for path in io.folder.iterdir()] == [io.path(1).name]


def test_flipped_bytes_raise_only_user_errors(io):
    """Every outcome is a UserError or, where the flip hit a weight, a load."""
    io.save(1, {"img_size": 64})
    whole = io.path(1).read_bytes()
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for position in torch.randint(len(whole), (300,), generator=generator).tolist():
        io.path(1).write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            io.load(1)
        except UserError:
            refused += 1
    assert refused > 20


def test_missing_step_error_lists_existing_steps(io):
    io.save(10)
    with pytest.raises(UserError, match=r"000011_nets.ckpt \(no such file\).*found: 10"):
        io.load(11)


def test_folder_without_checkpoints_is_an_error(tmp_path):
    with pytest.raises(UserError, match="^No checkpoint named like 100000_nets.ckpt in .*nowhere. Train first"):
        newest_step(tmp_path / "nowhere", TEMPLATE)
    (tmp_path / "100_nets.ckpt").write_bytes(b"")  # the name has six digits
    (tmp_path / "000007_nets.ckpt").mkdir()
    assert saved_steps(tmp_path, TEMPLATE) == []
    with pytest.raises(UserError, match="Rename your checkpoint .*: 000007_nets.ckpt, 100_nets.ckpt"):
        newest_step(tmp_path, TEMPLATE)


def test_nan_weights_are_refused(io):
    io.modules["second"].bias.data.fill_(float("nan"))
    io.save(1)
    with pytest.raises(UserError, match="Cannot load second from .*NaN or infinite values in bias.*earlier step"):
        twin(io).load(1)


class Trap:
    """Unpickling this would run a command."""

    def __reduce__(self):
        return os.system, ("touch trapped",)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "code", "list", "bare", "config", "values"])
def test_files_that_are_not_checkpoints_are_refused(io, damage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    io.save(1)
    whole = io.path(1).read_bytes()
    if damage == "cut":
        io.path(1).write_bytes(whole[: len(whole) // 2])
    elif damage in ("text", "empty"):
        io.path(1).write_bytes(b"<html>not found</html>" if damage == "text" else b"")
    else:
        contents = {
            "code": {"first": Trap()},
            "list": [1, 2],
            "bare": {"first": 3, "second": 4},
            "config": {"first": {}, "second": {}, "config": "text"},
            "values": {"first": {"weight": 1, 2: None}, "second": {}},
        }
        torch.save(contents[damage], io.path(1))
    with pytest.raises(UserError, match=r"000001_nets\.ckpt"):
        io.load(1)
    assert not (tmp_path / "trapped").exists()


def test_mismatched_keys_are_listed_and_nothing_is_loaded(io):
    io.save(1)
    other = CheckpointIO(io.folder, TEMPLATE, first=nn.Linear(3, 2), second=nn.Linear(2, 1, bias=False))
    before = other.modules["first"].weight.clone()
    with pytest.raises(UserError, match="second.*unknown: bias"):
        other.load(1)
    assert torch.equal(other.modules["first"].weight, before)
    with pytest.raises(UserError, match="of another shape: weight"):
        CheckpointIO(io.folder, TEMPLATE, second=nn.Linear(3, 1)).load(1)
    with pytest.raises(UserError, match="no entry third"):
        CheckpointIO(io.folder, TEMPLATE, third=nn.Linear(3, 1)).load(1)


def test_reference_files_with_data_parallel_prefix_load(tmp_path):
    """DataParallel's prefix, and the official CelebA-HQ file's missing constant."""
    torch.manual_seed(0)
    shape = {"img_size": 32, "max_conv_dim": 8, "channel_base": 128}
    original, own = Generator(**shape), Generator(**shape)
    state = {f"module.{key}": value for key, value in original.state_dict().items() if key != "hpf.filter"}
    torch.save({"generator": state}, tmp_path / TEMPLATE.format(1))
    CheckpointIO(tmp_path, TEMPLATE, generator=own).load(1)
    assert all(torch.equal(value, own.state_dict()[key]) for key, value in original.state_dict().items())


def test_optimizers_keep_their_settings_and_refuse_foreign_states(tmp_path):
    def adam(rate, *shape):
        p = nn.Parameter(torch.ones(shape))
        optimizer = torch.optim.Adam([p], lr=rate, fused=True)
        p.sum().backward()
        optimizer.step()
        return CheckpointIO(tmp_path, TEMPLATE, net=optimizer)

    adam(0.1, 3).save(1)
    plain = torch.load(tmp_path / TEMPLATE.format(1), weights_only=True)
    for key in ("fused", "foreach", "decoupled_weight_decay"):  # as older releases wrote it
        plain["net"]["param_groups"][0].pop(key)
    torch.save(plain, tmp_path / TEMPLATE.format(2))
    for step in (1, 2):
        slow = adam(0.01, 3)
        slow.load(step)
        group = slow.modules["net"].param_groups[0]
        assert group["lr"] == 0.01 and group["fused"] is True
        torch.testing.assert_close(slow.modules["net"].state_dict()["state"], plain["net"]["state"])
        slow.modules["net"].step()
    for broken in ({}, {"param_groups": [1], "state": {}}, {"param_groups": [], "state": {}}):
        torch.save({"net": broken}, tmp_path / TEMPLATE.format(3))
        with pytest.raises(UserError, match="belongs to other networks"):
            adam(0.1, 3).load(3)
