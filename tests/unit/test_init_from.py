"""--init_from: trunks are inherited, heads by the names of their domains."""

import pytest
import torch

from core.checkpoint.steps import NETS, NETS_EMA
from core.model import build_model
from core.system.errors import UserError
from tests import golden
from tests.pretrained import OWN, TRAINED, arguments, begun, pretrained, save


@pytest.fixture(scope="module")
def trained():
    return pretrained()


@pytest.mark.parametrize("form", ["ours", "official", "one file"])
def test_heads_are_matched_by_name(form, trained, tmp_path, capsys):
    names = ("--domain_names", ",".join(TRAINED)) if form == "official" else ()
    solver, fresh = begun(save(trained, tmp_path, form), *names)
    expected = {**trained[1], "discriminator": trained[0].discriminator}
    at = {"cat": 1, "bear": 0}  # labels in the file
    for name, network in expected.items():
        found, source, new = (net.state_dict() for net in (solver.nets[name], network, fresh[name]))
        for key, value in found.items():
            if key.startswith("unshared."):
                _, label, rest = key.split(".", 2)
                there = at.get(OWN[int(label)])
                wanted = new[key] if there is None else source[f"unshared.{there}.{rest}"]
            elif name == "discriminator" and len(value) == 3 and key == list(found)[-1 if value.ndim == 1 else -2]:
                wanted = torch.stack([new[key][0], source[key][1], source[key][0]])
            else:
                wanted = source[key]
            assert torch.equal(value, wanted), (name, key)
    for name, average in solver.nets_ema.items():
        assert all(torch.equal(v, solver.nets[name].state_dict()[k]) for k, v in average.state_dict().items())
    assert "heads of cat, bear; new: ant" in capsys.readouterr().out


def test_without_names_or_discriminator_only_trunks_are_inherited(trained, tmp_path, capsys):
    solver, fresh = begun(save(trained, tmp_path, "official", with_nets=False))
    said = capsys.readouterr()
    assert "give their names with --domain_names" in said.err
    assert "D starts with random weights" in said.out and "no heads" in said.out
    for name in ("discriminator", "mapping_network"):
        kept = name == "mapping_network"
        for key, value in solver.nets[name].state_dict().items():
            source = trained[1][name] if kept and not key.startswith("unshared") else fresh[name]
            assert torch.equal(value, source.state_dict()[key]), key


def test_the_face_network_is_inherited(trained, tmp_path):
    args = arguments("--w_hpf", "1")
    nets, nets_ema = build_model(args)
    golden.fill("fan", nets.fan)
    states = {name: net.state_dict() for name, net in nets_ema.items()}
    states["generator"].pop("hpf.filter")  # as in the official file
    torch.save(states, tmp_path / NETS_EMA.format(1))
    solver, _ = begun(tmp_path / NETS_EMA.format(1), base="--device cpu")
    assert solver.config.w_hpf == 1 and solver.config.img_size == 32
    assert all(torch.equal(v, nets.fan.state_dict()[k]) for k, v in solver.nets.fan.state_dict().items())


def _pop_head(states):
    del states["mapping_network"]["unshared.1.2.bias"]


def _add_to_head(states):
    states["style_encoder"]["unshared.1.more"] = torch.ones(1)


def _cut_rows(states):
    states["discriminator"]["main.7.bias"] = states["discriminator"]["main.7.bias"][:2]


def _name_two(states):
    states["config"] = {"num_domains": 2, "domains": ["bear", "cat"], "img_size": 32}


def _spoil_config(states):
    states["config"] = torch.ones(3)


@pytest.mark.parametrize(
    ("template", "change", "said"),
    [
        (NETS_EMA, _pop_head, "mapping_network from --init_from .*does not fit .*; missing: unshared.1.2.bias"),
        (NETS_EMA, _add_to_head, "style_encoder from --init_from .*does not fit .*; unknown: unshared.1.more"),
        (NETS, _cut_rows, "--init_from .*it has 3 domains, but main.7.bias of its discriminator has another number"),
        (NETS_EMA, _name_two, "--init_from .*num_domains is 2 in its config, but 3 in its tensors"),
        (NETS_EMA, _spoil_config, "--init_from .*: cannot find generator"),
    ],
)
def test_contradictory_files_are_refused(template, change, said, trained, tmp_path):
    save(trained, tmp_path)
    states = torch.load(tmp_path / template.format(7), weights_only=True)
    change(states)
    torch.save(states, tmp_path / template.format(7))
    with pytest.raises(UserError, match=said):
        begun(tmp_path / NETS_EMA.format(7))


def test_nan_weights_in_init_from_are_refused(trained, tmp_path):
    path = save(trained, tmp_path)
    states = torch.load(path, weights_only=True)
    states["generator"]["from_rgb.bias"][0] = float("nan")
    torch.save(states, path)
    with pytest.raises(UserError, match="Cannot load generator from .*NaN or infinite values"):
        begun(path)
