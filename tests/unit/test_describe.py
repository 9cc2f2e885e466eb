"""Settings of networks, from the config or the tensors of a checkpoint."""

import os

import pytest
import torch

import main
from core.checkpoint import describe
from core.checkpoint.steps import NETS_EMA
from core.cli.args import parse_given
from core.cli.domains import name_domains, settle_domains
from core.cli.resolve import loaded_config, saved_settings
from core.solver import Solver
from core.system.errors import UserError
from tests.command import config_of
from tests.reference_files import networks, recalled, save_as_reference


@pytest.mark.parametrize(("num_domains", "w_hpf"), [(2, 0), (3, 0), (10, 0), (2, 1), (3, 0.5), (10, 3)])
@pytest.mark.parametrize("img_size", [16, 64, 128, 256, 512, 1024])
def test_identify_finds_every_setting_at_full_width(img_size, num_domains, w_hpf):
    """The widths of the reference, without data, since only shapes and one constant matter."""
    flags = ("--img_size", img_size, "--num_domains", num_domains, "--w_hpf", w_hpf)
    with torch.device("meta"):
        nets = networks(*flags)
    states = {name: net.state_dict() for name, net in nets.items()}
    if w_hpf:
        states["generator"]["hpf.filter"] = torch.full((3, 3), 8 / w_hpf)
    found = describe.identify(states, "it", vars(main.parse_args(["--mode", "sample"])))
    own = main.parse_args(["--mode", "sample", *map(str, flags)])
    assert found == {name: getattr(own, name) for name in found} and len(found) == 8


def test_flags_that_contradict_the_shapes_are_refused(tmp_path):
    narrow = ("--img_size", 128, "--channel_base", 1024, "--max_conv_dim", 16)
    save_as_reference(networks(*narrow, "--w_hpf", 1), tmp_path, with_filter=False)
    for flag, value, own in (("img_size", 256, 128), ("num_domains", 3, 2), ("w_hpf", 0, 1), ("hidden_dim", 64, 512)):
        with pytest.raises(UserError, match=rf"--{flag} must be {own}(\.0)? as in step 100000 .*, got {value}(\.0)?\."):
            recalled(tmp_path, f"--{flag}", str(value))
    assert recalled(tmp_path, "--w_hpf", "0.5").w_hpf == 0.5  # the constant is not in the file
    assert recalled(tmp_path, "--img_size", "128", "--num_domains", "2").img_size == 128
    assert recalled(tmp_path, "--channel_base", "1055").channel_base == 1055  # 8 wide at 128 px, as 1024
    with pytest.raises(UserError, match="--channel_base must be 1024 as in .*, got 1200"):
        recalled(tmp_path, "--channel_base", "1200")
    with pytest.raises(UserError, match="--max_conv_dim must be 16 as in .*, got 17"):
        recalled(tmp_path, "--max_conv_dim", "17")


def test_w_hpf_rounded_to_fp32_is_accepted(tmp_path):
    save_as_reference(networks("--img_size", 32, "--channel_base", 256, "--w_hpf", 0.3), tmp_path)
    assert recalled(tmp_path).w_hpf == 0.3
    save_as_reference(networks("--img_size", 32, "--channel_base", 256, "--w_hpf", 1 / 3), tmp_path)
    assert recalled(tmp_path, "--w_hpf", str(1 / 3)).w_hpf == 1 / 3


class Trap:
    """Unpickling this would run a command."""

    def __reduce__(self):
        return os.system, ("touch trapped",)


@pytest.mark.parametrize(
    "kind", ["resnet", "numbers", "tensors", "trap", "text", "cut", "config", "huge", "wide", "domains"]
)
def test_foreign_files_are_refused_with_one_sentence(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / NETS_EMA.format(100000)
    nets = networks("--img_size", 32, "--channel_base", 256, "--max_conv_dim", 16)
    states = {name: net.state_dict() for name, net in nets.items()}
    contents = {
        "resnet": {"conv1.weight": torch.ones(64, 3, 7, 7)},
        "numbers": dict.fromkeys(states, 3),
        "tensors": {key: {"from_rgb.weight": torch.tensor(1.0)} for key in states},
        "trap": {**states, "config": Trap()},
        "config": {**states, "config": {"img_size": "large"}},
        "huge": {**states, "config": {"img_size": 2**80}},
        "wide": {**states, "config": {"hidden_dim": 10**10}},
        "domains": {**states, "config": {"num_domains": 2, "domains": ["cat", 3]}},
    }
    torch.save(contents.get(kind, states), path)
    if kind == "text":
        path.write_text("<html>404</html>")
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match="^Cannot (use|load|read) .*100000.*(not a .*checkpoint|in its tensors|: --)"):
        recalled(tmp_path)
    assert not (tmp_path / "trapped").exists()


def named(num_domains, found=(), known=None, *line):
    config = name_domains(config_of("sample", *line, domains=known).with_flags(num_domains=num_domains), list(found))
    assert ("no names" in config.domains_origin) == (not known and not config.domain_names)
    return config.names_by_label


def test_domain_names_come_from_checkpoint_then_flag_then_folders():
    """Names come from the checkpoint, else the flag, else the reference folders if their number fits, else numbers."""
    given = ("--domain_names", "a, b")
    assert named(2, ["x", "y"], ["cat", "dog"]) == ["cat", "dog"]
    assert named(2, ["x", "y"], None, *given) == ["a", "b"]
    assert named(2, ["x", "y"]) == ["x", "y"]
    assert named(3, ["x", "y"]) == ["0", "1", "2"]
    with pytest.raises(UserError, match="--domain_names must be 3 names, one per domain of the checkpoint, got 2"):
        named(3, [], None, *given)
    with pytest.raises(UserError, match="--domain_names must be cat,dog, as in the checkpoint, got a,b"):
        named(2, [], ["cat", "dog"], *given)


def target_labels(targets, domains):
    return config_of("sample", domains=domains).with_flags(target_domains=targets).target_labels()


def test_target_labels_follow_domain_names():
    domains = ["cat", "dog", "wild"]
    assert target_labels(None, domains) is None
    assert target_labels(["wild", "cat"], domains) == [2, 0]
    with pytest.raises(UserError, match="--target_domains must be some of cat, dog, wild, got cat,lion.$"):
        target_labels(["cat", "lion"], domains)
    with pytest.raises(UserError, match="must be some of 0, 1, got cat. .*--domain_names"):
        target_labels(["cat"], None)


def settled(found, *line):
    return settle_domains(config_of("train", *line), found, "some/folder")


def test_domains_of_folders_are_checked_against_flag_and_checkpoint():
    args = settled(["cat", "dog", "wild"])
    assert (args.num_domains, list(args.domains)) == (3, ["cat", "dog", "wild"])
    assert settled(["a", "b", "c"], "--num_domains", "3").num_domains == 3
    with pytest.raises(UserError, match=r"3 sub-folders \(a, b, c\), but --num_domains is 2"):
        settled(["a", "b", "c"], "--num_domains", "2")
    with pytest.raises(UserError, match=r"3 sub-folders .*, but the checkpoint's number of domains is 2"):
        settled(["a", "b", "c"], "--resume_iter", "100000")
    with pytest.raises(UserError, match="sub-folders are cat, dog, but the domains are cat, dog, wild"):
        settle_domains(args, ["cat", "dog"], "val")


def test_network_settings_come_from_the_checkpoint(tmp_path):
    narrow = ("--img_size", "64", "--channel_base", "512", "--max_conv_dim", "16")
    line = ("--device", "cpu", *narrow, "--w_hpf", "0.5", "--num_domains", "3", "--checkpoint_dir", tmp_path)
    made = config_of("train", *line, domains=("cat", "dog", "wild"))
    Solver(made).save(7)
    where = ["--checkpoint_dir", str(tmp_path)]
    args = loaded_config(parse_given(["--mode", "sample", *where]))
    assert (args.img_size, args.w_hpf, args.num_domains, tuple(args.domains)) == (64, 0.5, 3, made.domains)
    with pytest.raises(UserError, match="--img_size must be 64 as in step 7 .*, got 128"):
        loaded_config(parse_given(["--mode", "sample", *where, "--img_size", "128"]))


@pytest.mark.parametrize("name", ["batch_size", "val_batch_size", "total_iters", "seed", "keep_checkpoints"])
def test_invalid_saved_settings_are_refused(name):
    def saved(settings):
        return saved_settings({"mode": "train"}, describe.Description({}, None, settings), "step 7")

    for value in (1.5, "x", [1], None):
        with pytest.raises(UserError, match=f"--{name}"):
            saved({name: value})
    with pytest.raises(UserError, match="--precision must be one of fp32, tf32, bf16, got half"):
        saved({"precision": "half"})
