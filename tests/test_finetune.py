"""--init_from: trunks, heads of domains by name, lower learning rates, and a resume amid them."""

import json
import shutil

import pytest
import torch
from munch import Munch

import main
from core.checkpoint import init_from
from core.checkpoint.steps import NETS, NETS_EMA
from core.model import build_model
from core.solver import Solver
from core.system.errors import UserError
from core.training import slow_start
from tests import golden
from tests.command import NARROW, ROOT, RUN, call
from tests.runs import FLAGS, folders, losses, state

TRAINED = ("bear", "cat", "dog")  # domains of the file, in label order
OWN = ("ant", "cat", "bear")  # of the run that begins from it


def arguments(*line):
    args = main.parse_args(["--mode", "train", *RUN.split(), *map(str, line)])
    args.num_domains, args.domains = len(OWN), list(OWN)
    return args


@pytest.fixture(scope="module")
def trained():
    """Networks of three domains whose weights are golden, so not those of any initialisation."""
    args = arguments()
    nets, nets_ema = build_model(args)
    for name, network in nets.items():
        golden.fill(name, network)
    for name, network in nets_ema.items():
        golden.fill(f"averaged {name}", network)
    return nets, nets_ema


def save(trained, folder, form="ours", with_nets=True):
    """Files as this program writes them, in the reference's form, or D beside the averages in "one file"."""
    folder.mkdir(exist_ok=True)
    prefix = "module." if form == "official" else ""
    config = {} if form == "official" else {"config": {"num_domains": 3, "domains": list(TRAINED), "img_size": 32}}
    for template, nets in zip((NETS, NETS_EMA), trained, strict=True):
        states = {name: {prefix + key: v for key, v in net.state_dict().items()} for name, net in nets.items()}
        if form == "one file":  # what is beside it does not count then
            states["discriminator"] = trained[0].discriminator.state_dict() if template == NETS_EMA else {}
        if template == NETS_EMA or with_nets:
            torch.save(states | config, folder / template.format(7))
    return folder / NETS_EMA.format(7)


def begun(path, *line):
    args = arguments("--init_from", path, *line)
    args.inherited = init_from.adopt(args)
    solver = Solver(args)
    fresh, _ = build_model(args)
    solver.begin()
    return solver, fresh


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


def test_without_names_or_a_discriminator(trained, tmp_path, capsys):
    solver, fresh = begun(save(trained, tmp_path, "official", with_nets=False))
    said = capsys.readouterr()
    assert "--domain_names can name them" in said.err and "D starts anew" in said.out and "no heads" in said.out
    for name in ("discriminator", "mapping_network"):
        kept = name == "mapping_network"
        for key, value in solver.nets[name].state_dict().items():
            source = trained[1][name] if kept and not key.startswith("unshared") else fresh[name]
            assert torch.equal(value, source.state_dict()[key]), key


def test_a_face_network_comes_along(trained, tmp_path):
    args = arguments("--w_hpf", "1")
    nets, nets_ema = build_model(args)
    golden.fill("fan", nets.fan)
    states = {name: net.state_dict() for name, net in nets_ema.items()}
    states["generator"].pop("hpf.filter")  # as in the official file
    torch.save(states, tmp_path / NETS_EMA.format(1))
    args = main.parse_args(["--mode", "train", "--device", "cpu", "--init_from", str(tmp_path / NETS_EMA.format(1))])
    args.inherited = init_from.adopt(args)
    args.num_domains, args.domains = 3, list(OWN)
    assert args.w_hpf == 1 and args.img_size == 32
    solver = Solver(args)
    solver.begin()
    assert all(torch.equal(v, nets.fan.state_dict()[k]) for k, v in solver.nets.fan.state_dict().items())


def moved(path, scale, iters=1, iterations=1):
    """How far each parameter moves: {network: {key: tensor}}, all in float64."""
    solver, _ = begun(path, "--init_iters", iters, "--init_lr_scale", scale)
    for network in (*solver.nets.values(), *solver.nets_ema.values()):
        network.double()
    generator = torch.Generator().manual_seed(0)
    images = {name: torch.rand(2, 3, 32, 32, generator=generator).double() for name in ("x_src", "x_ref", "x_ref2")}
    codes = {name: torch.randn(2, 16, generator=generator).double() for name in ("z_trg", "z_trg2")}
    labels = {"y_src": torch.tensor([0, 1]), "y_ref": torch.tensor([2, 0])}
    before = {n: {k: p.detach().clone() for k, p in net.named_parameters()} for n, net in solver.nets.items()}
    for iteration in range(iterations):
        solver.update_averages()
        solver.train_step(Munch(**images, **codes, **labels), iteration)
    return {
        name: {key: p.detach() - before[name][key] for key, p in net.named_parameters()}
        for name, net in solver.nets.items()
    }


def test_what_was_inherited_learns_more_slowly(trained, tmp_path):
    """A scale of 0 leaves it where it was, for as long as was asked, and new heads learn."""
    path = save(trained, tmp_path)
    full, none = (moved(path, scale)["discriminator"] for scale in (1, 0))
    last = [key for key in full if len(full[key]) == 3 and key.startswith("main.")][-2:]
    for key, step in full.items():
        assert step.abs().max() > 0
        if key in last:  # row 0 is new
            assert none[key][0].abs().max() > 0 and none[key][1:].abs().max() == 0
        else:
            assert none[key].abs().max() == 0
    both = moved(path, 0)
    heads = {key: step for key, step in both["mapping_network"].items() if key.startswith("unshared.")}
    assert all((step.abs().max() > 0) == key.startswith("unshared.0.") for key, step in heads.items())
    assert all(step.abs().max() == 0 for step in both["generator"].values())
    later = moved(path, 0, iters=1, iterations=2)
    assert all(step.abs().max() > 0 for step in later["generator"].values())


def stepped(path, scale, bad=0.0):
    """How far each parameter moves in one update of all networks with the same gradients, the part of a loss `bad`."""
    solver, _ = begun(path, "--init_iters", 1, "--init_lr_scale", scale)
    generator, solver.is_slow, moves = torch.Generator().manual_seed(0), True, {}
    for network in solver.nets.values():
        network.double()
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator).double()
    before = {name: {k: p.detach().clone() for k, p in net.named_parameters()} for name, net in solver.nets.items()}
    gradients = [p.grad for net in solver.nets.values() for p in net.parameters()]
    solver._step("all", tuple(solver.nets), gradients, {"part": torch.tensor(bad)})
    for name, network in solver.nets.items():
        moves |= {f"{name} {key}": p.detach() - before[name][key] for key, p in network.named_parameters()}
    return moves


@pytest.mark.parametrize("with_nets", [True, False])
def test_what_was_inherited_moves_by_the_scale(with_nets, trained, tmp_path):
    """A quarter of the step, but for heads and rows of new domains, and a D that starts anew."""
    path = save(trained, tmp_path, with_nets=with_nets)
    full, quarter = (stepped(path, scale) for scale in (1, 0.25))
    for key, step in full.items():
        share = torch.full(step.shape[:1], 0.25, dtype=step.dtype)
        if ".unshared.0." in key.replace(" ", ".") or (key.startswith("discriminator") and not with_nets):
            share[:] = 1
        elif key in ("discriminator main.7.weight", "discriminator main.7.bias"):
            share[0] = 1  # ant
        assert step.abs().min() > 0
        torch.testing.assert_close(quarter[key], step * share.view(-1, *[1] * (step.ndim - 1)), rtol=1e-9, atol=1e-12)


def test_a_skipped_update_stays_skipped(trained, tmp_path):
    moves = stepped(save(trained, tmp_path), 0.25, bad=float("nan"))
    assert all(step.abs().max() == 0 for step in moves.values())


def test_a_pace_is_a_lower_learning_rate():
    """Adam with a quarter of the learning rate takes the same steps, weight decay included."""
    ends = []
    for rate, pace in ((0.01, 0.25), (0.0025, 1)):
        torch.manual_seed(0)
        network = torch.nn.Linear(4, 3).double()
        optimizer = torch.optim.Adam(network.parameters(), lr=rate, betas=(0.0, 0.99), weight_decay=0.1, fused=True)
        for number in range(3):
            optimizer.zero_grad()
            network(torch.full((2, 4), number + 1.0).double()).square().sum().backward()
            with slow_start.slowed(network, {"weight": pace, "bias": torch.full((3,), pace).double()}):
                optimizer.step()
        ends.append([p.detach() for p in network.parameters()])
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-14)


def test_a_resumed_run_learns_as_slowly(trained, data, tmp_path, capsys):
    path = save(trained, tmp_path / "from")
    flags = f"{FLAGS} --init_from {path} --init_iters 3 --total_iters 4"
    whole = folders(tmp_path / "whole", data)
    assert call("train", f"{flags} --save_every 2", **whole) == 0
    expected = losses(capsys.readouterr().out)
    half = folders(tmp_path / "half", data)
    assert call("train", flags.replace("--total_iters 4", "--total_iters 2"), **half) == 0
    first = losses(capsys.readouterr().out)
    path.unlink()  # no longer needed
    assert call("train", "--device cpu --resume_iter latest --total_iters 4", **half) == 0
    assert {**first, **losses(capsys.readouterr().out)} == expected
    found, wanted = state(tmp_path / "half", 4), state(tmp_path / "whole", 4)
    assert found[0]["config"]["inherited"]["domains"] == list(TRAINED)
    for content in (*found, *wanted):
        content.pop("config")
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert call("train", "--device cpu --resume_iter 4 --total_iters 5 --init_iters 9", **half) == 2
    assert "--init_iters 9 in place of 3" in capsys.readouterr().err
    for file, ignored in ((path, False), (tmp_path / "another.ckpt", True)):  # neither is there
        assert call("train", f"--device cpu --resume_iter 4 --total_iters 5 --dry_run --init_from {file}", **half) == 0
        assert ("is ignored, since training goes on from step 4" in capsys.readouterr().err) == ignored


def test_the_shipped_model_learns_another_animal(faces, tmp_path, capsys):
    for part in ("train", "val"):
        for name, new in (("cat", "cat"), ("dog", "dog"), ("bear", "panda")):
            shutil.copytree(faces / part / name, tmp_path / part / new)
    flags = f"--device cpu --num_workers 0 --init_from {ROOT}/assets/demo/010800_nets_ema.ckpt --total_iters 2"
    where = {"train_img_dir": tmp_path / "train", "val_img_dir": tmp_path / "val"}
    where |= {"checkpoint_dir": tmp_path / "c", "sample_dir": tmp_path / "s"}
    flags += " --batch_size 2 --val_batch_size 2 --num_outs_per_domain 1 --sample_every 2"
    assert call("train", flags, **where) == 0
    assert "heads of cat, dog; new: panda" in capsys.readouterr().out
    options = json.loads((tmp_path / "s" / "options.json").read_text())
    assert options["settings"]["img_size"] == 64 and options["settings"]["channel_base"] == 1024
    assert call("train", f"{flags} --dry_run --init_iters 5", **where) == 0
    assert "heads of cat, dog; new: panda" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--init_from nowhere.ckpt", "--init_from nowhere.ckpt does not exist"),
        ("--init_from README.md", "--init_from README.md is damaged or not a checkpoint"),
        ("--init_from {file} --domain_names a,b,c", "--domain_names is a,b,c, but --init_from"),
        ("--init_from {file} --img_size 64", "--img_size is 64, but --init_from"),
        ("--init_from {nets}", "is not a checkpoint with generator"),
        ("--init_from {official} --domain_names cat,dog", "--domain_names has 2 names"),
        ("--init_iters 5", "--init_iters says how what --init_from gives is to learn"),
        ("--init_from {file} --init_lr_scale 0.5", "--init_lr_scale counts for the first --init_iters"),
        ("--init_from {inside}", "lies in --checkpoint_dir"),
        ("--init_lr_scale 2", "--init_lr_scale is 2.0, but must be between 0 and 1"),
    ],
)
def test_mistakes(flags, said, trained, data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    torch.save({"discriminator": {}}, tmp_path / "other.ckpt")
    where = folders(tmp_path, data)
    known = {"file": save(trained, tmp_path / "ours"), "inside": save(trained, where["checkpoint_dir"])}
    known |= {"official": save(trained, tmp_path / "official", "official")}
    before = sorted(where["checkpoint_dir"].iterdir())
    line = flags.format(nets=tmp_path / "other.ckpt", **known)
    narrow = NARROW if "img_size 64" not in flags else "--device cpu"
    try:
        assert call("train", f"{narrow} {line}", **where) == 2
    except SystemExit as end:  # of the parser
        assert end.code == 2
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0]
    assert sorted(path for path in where["checkpoint_dir"].glob("[!.]*")) == before


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
        (NETS_EMA, _pop_head, "mapping_network does not fit .* missing: unshared.1.2.bias"),
        (NETS_EMA, _add_to_head, "style_encoder does not fit .* unknown: unshared.1.more"),
        (NETS, _cut_rows, "has 3 domains, but its discriminator.* has not as many rows in main.7.bias"),
        (NETS_EMA, _name_two, "its config says num_domains 2, its tensors 3"),
        (NETS_EMA, _spoil_config, "is not a checkpoint with generator"),
    ],
)
def test_files_that_contradict_themselves(template, change, said, trained, tmp_path):
    save(trained, tmp_path)
    states = torch.load(tmp_path / template.format(7), weights_only=True)
    change(states)
    torch.save(states, tmp_path / template.format(7))
    with pytest.raises(UserError, match=f"--init_from .*{said}"):
        begun(tmp_path / NETS_EMA.format(7))


def test_values_that_are_no_numbers(trained, tmp_path):
    path = save(trained, tmp_path)
    states = torch.load(path, weights_only=True)
    states["generator"]["from_rgb.bias"][0] = float("nan")
    torch.save(states, path)
    with pytest.raises(UserError, match="holds values that are no numbers"):
        begun(path)
