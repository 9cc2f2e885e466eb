"""Checkpoints for --init_from, and runs that start from them."""

from dataclasses import replace

import torch

from core.checkpoint.steps import NETS, NETS_EMA
from core.cli.args import parse_given
from core.cli.resolve import beginning_config
from core.model import build_model
from core.solver import Solver
from tests import golden
from tests.command import RUN, config_of

TRAINED = ("bear", "cat", "dog")  # domains of the file, in label order


OWN = ("ant", "cat", "bear")  # of the run that starts from it


def arguments(*line):
    return config_of("train", *RUN.split(), *line, domains=OWN).with_flags(num_domains=len(OWN))


def save(trained, folder, form="ours", with_nets=True):
    """Files of this program, of the reference ("official"), or with D among the averages ("one file")."""
    folder.mkdir(exist_ok=True)
    prefix = "module." if form == "official" else ""
    config = {} if form == "official" else {"config": {"num_domains": 3, "domains": list(TRAINED), "img_size": 32}}
    for template, nets in zip((NETS, NETS_EMA), trained, strict=True):
        states = {name: {prefix + key: v for key, v in net.state_dict().items()} for name, net in nets.items()}
        if form == "one file":  # the nets file beside it is ignored then
            states["discriminator"] = trained[0].discriminator.state_dict() if template == NETS_EMA else {}
        if template == NETS_EMA or with_nets:
            torch.save(states | config, folder / template.format(7))
    return folder / NETS_EMA.format(7)


def begun(path, *line, base=RUN):
    config = beginning_config(
        parse_given(["--mode", "train", *base.split(), "--init_from", str(path), *map(str, line)])
    )
    config = replace(config.with_flags(num_domains=len(OWN)), domains=OWN)
    solver = Solver(config)
    fresh, _ = build_model(config)
    solver.begin()
    return solver, fresh


def pretrained():
    """Networks of three domains with golden weights, which no initialisation gives."""
    args = arguments()
    nets, nets_ema = build_model(args)
    for name, network in nets.items():
        golden.fill(name, network)
    for name, network in nets_ema.items():
        golden.fill(f"averaged {name}", network)
    return nets, nets_ema
