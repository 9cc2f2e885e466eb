"""Checkpoints that say, or show, what they are."""

import os
from itertools import product

import pytest
import torch

import main
from core.checkpoint import describe
from core.checkpoint.io import CheckpointIO
from core.checkpoint.steps import NETS_EMA
from core.model import build_model
from core.system.errors import UserError
from tests import golden


def networks(*line):
    return build_model(main.parse_args(["--mode", "sample", "--device", "cpu", *map(str, line)]))[1]


def save_as_reference(nets, folder, prefix="", with_filter=True):
    """As the reference writes it: no config; perhaps DataParallel's prefix; perhaps no hpf.filter."""
    folder.mkdir(exist_ok=True)
    states = {
        name: {prefix + key: v for key, v in net.state_dict().items() if with_filter or key != "hpf.filter"}
        for name, net in nets.items()
    }
    torch.save(states, folder / NETS_EMA.format(100000))


def recalled(folder, *line):
    args = main.parse_args(["--mode", "sample", "--device", "cpu", "--checkpoint_dir", str(folder), *line])
    describe.recall(args, NETS_EMA, 100000)
    return args


def load(folder, *line):
    """The networks of a file, from flags that say nothing about them."""
    _, nets = build_model(recalled(folder, *line))
    CheckpointIO(folder, NETS_EMA, **nets).load(100000)
    return nets


@pytest.mark.parametrize("img_size", [128, 256, 512])
def test_shapes_say_what_the_networks_are(img_size, tmp_path):
    """Narrow networks: what is counted does not depend on the width."""
    for num_domains, w_hpf in product((2, 3, 10), (0, 1)):
        flags = ("--img_size", img_size, "--num_domains", num_domains, "--w_hpf", w_hpf)
        nets = networks(*flags, "--channel_base", 2048, "--max_conv_dim", 24)
        for prefix, with_filter in product(("", "module."), (True, False)):
            save_as_reference(nets, tmp_path, prefix, with_filter)
            found = load(tmp_path)
            for name, net in nets.items():
                state = found[name].state_dict()
                assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize(("num_domains", "w_hpf"), [(2, 0), (3, 0), (10, 0), (2, 1), (3, 0.5), (10, 3)])
@pytest.mark.parametrize("img_size", [16, 64, 128, 256, 512, 1024])
def test_full_width(img_size, num_domains, w_hpf):
    """The reference's own widths; without data, since only shapes and one constant count."""
    flags = ("--img_size", img_size, "--num_domains", num_domains, "--w_hpf", w_hpf)
    with torch.device("meta"):
        nets = networks(*flags)
    states = {name: net.state_dict() for name, net in nets.items()}
    if w_hpf:
        states["generator"]["hpf.filter"] = torch.full((3, 3), 8 / w_hpf)
    found = describe.identify(states, "it", vars(main.parse_args(["--mode", "sample"])))
    own = main.parse_args(["--mode", "sample", *map(str, flags)])
    assert found == {name: getattr(own, name) for name in found} and len(found) == 8


@torch.no_grad()
@pytest.mark.parametrize(
    ("file", "num_domains", "w_hpf", "prefix", "with_filter"),
    [("networks_256.npz", 3, 0, "module.", True), ("networks_256_masked.npz", 2, 1, "", False)],
)
def test_golden_pictures_from_a_file_of_the_reference(file, num_domains, w_hpf, prefix, with_filter, tmp_path):
    nets = networks("--num_domains", num_domains, "--w_hpf", w_hpf)
    for name, net in nets.items():
        golden.fill(name, net)
    save_as_reference(nets, tmp_path, prefix, with_filter)
    found, expected = load(tmp_path), golden.read(file)
    x, y = golden.image("x256", 1, 3, 256, 256), torch.tensor([1])
    masks = [golden.image(f"mask{i}_256", 1, 1, 256, 256).abs() for i in range(2)] if w_hpf else None
    style = found.mapping_network(golden.code("z256", 1, 16), y)
    fake = found.generator(x, style, masks)[:, :, ::8, ::8]
    torch.testing.assert_close(fake, expected["fake_every8"], atol=1e-4, rtol=0)
    torch.testing.assert_close(found.style_encoder(x, y), expected["style_ref"], atol=1e-4, rtol=0)


def test_flags_that_contradict_the_shapes(tmp_path):
    narrow = ("--img_size", 128, "--channel_base", 1024, "--max_conv_dim", 16)
    save_as_reference(networks(*narrow, "--w_hpf", 1), tmp_path, with_filter=False)
    for flag, value, own in (("img_size", 256, 128), ("num_domains", 3, 2), ("w_hpf", 0, 1), ("hidden_dim", 64, 512)):
        with pytest.raises(UserError, match=rf"--{flag} is {value}(\.0)?, but step 100000 .* was made with {own}"):
            recalled(tmp_path, f"--{flag}", str(value))
    assert recalled(tmp_path, "--w_hpf", "0.5").w_hpf == 0.5  # the constant is not in the file
    assert recalled(tmp_path, "--img_size", "128", "--num_domains", "2").img_size == 128
    assert recalled(tmp_path, "--channel_base", "1055").channel_base == 1055  # 8 wide at 128 px, as 1024
    with pytest.raises(UserError, match="--channel_base is 1200, but .* was made with 1024"):
        recalled(tmp_path, "--channel_base", "1200")
    with pytest.raises(UserError, match="--max_conv_dim is 17, but .* was made with 16"):
        recalled(tmp_path, "--max_conv_dim", "17")


def test_weights_that_fp32_rounds_do_not_contradict(tmp_path):
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
def test_files_of_other_kinds_are_refused_in_a_sentence(kind, tmp_path, monkeypatch):
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
    with pytest.raises(UserError, match="100000.*(not a checkpoint|cannot be used|contradicts itself)"):
        recalled(tmp_path)
    assert not (tmp_path / "trapped").exists()


def named(num_domains, found=(), known=None, *line):
    args = main.parse_args(["--mode", "sample", *line])
    args.num_domains, args.domains = num_domains, known
    origin = describe.name_domains(args, list(found))
    assert ("no names" in origin) == (not known and not args.domain_names)
    return args.domains


def test_names_of_domains():
    """The checkpoint's; else the flag's; else the references' folders where there are as many; else numbers."""
    given = ("--domain_names", "a, b")
    assert named(2, ["x", "y"], ["cat", "dog"]) == ["cat", "dog"]
    assert named(2, ["x", "y"], None, *given) == ["a", "b"]
    assert named(2, ["x", "y"]) == ["x", "y"]
    assert named(3, ["x", "y"]) == ["0", "1", "2"]
    with pytest.raises(UserError, match="--domain_names has 2 names, but the checkpoint has 3"):
        named(3, [], None, *given)
    with pytest.raises(UserError, match="--domain_names is a,b, but the checkpoint has cat,dog"):
        named(2, [], ["cat", "dog"], *given)


def test_targets_by_name():
    domains = ["cat", "dog", "wild"]
    assert describe.target_labels(None, domains) is None
    assert describe.target_labels(["wild", "cat"], domains) == [2, 0]
    with pytest.raises(UserError, match="--target_domains lion: choose of the domains cat, dog, wild$"):
        describe.target_labels(["cat", "lion"], domains)
    with pytest.raises(UserError, match="choose of the domains 0, 1; .*--domain_names"):
        describe.target_labels(["cat"], ["0", "1"])


def settled(found, *line):
    args = main.parse_args(["--mode", "train", *line])
    describe.settle_domains(args, found, "some/folder")
    return args


def test_domains_are_counted_or_held_against_what_is_known():
    args = settled(["cat", "dog", "wild"])
    assert (args.num_domains, args.domains) == (3, ["cat", "dog", "wild"])
    assert settled(["a", "b", "c"], "--num_domains", "3").num_domains == 3
    with pytest.raises(UserError, match="--num_domains is 2, but some/folder has 3 .*a, b, c"):
        settled(["a", "b", "c"], "--num_domains", "2")
    with pytest.raises(UserError, match="the checkpoint's number of domains is 2, but some/folder has 3"):
        settled(["a", "b", "c"], "--resume_iter", "100000")
    with pytest.raises(UserError, match="sub-folders cat, dog, but the domains are cat, dog, wild"):
        describe.settle_domains(args, ["cat", "dog"], "val")


def test_a_checkpoint_says_what_it_is():
    made = main.parse_args(["--mode", "train", "--img_size", "64", "--w_hpf", "0.5", "--num_domains", "3"])
    made.domains = ["cat", "dog", "wild"]
    config = describe.network_config(made, 7)
    args = main.parse_args(["--mode", "sample"])
    describe.adopt_config(args, config, "step 7")
    assert (args.img_size, args.w_hpf, args.num_domains, args.domains) == (64, 0.5, 3, made.domains)
    with pytest.raises(UserError, match="--img_size is 128, but step 7 was made with 64"):
        describe.adopt_config(main.parse_args(["--mode", "sample", "--img_size", "128"]), config, "step 7")
