"""Checkpoint files as the reference implementation writes them."""

import torch

import main
from core.checkpoint.io import CheckpointIO
from core.checkpoint.steps import NETS_EMA
from core.cli.args import parse_given
from core.cli.resolve import loaded_config
from core.model import build_model


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
    line = ["--mode", "sample", "--device", "cpu", "--checkpoint_dir", str(folder), *line]
    return loaded_config(parse_given([*line, "--resume_iter", "100000"]))


def load(folder, *line):
    """The networks of a file, from flags that say nothing about them."""
    _, nets = build_model(recalled(folder, *line))
    CheckpointIO(folder, NETS_EMA, **nets).load(100000)
    return nets
