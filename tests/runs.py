"""Short trainings, and readers of their files."""

import json

import torch

from core.checkpoint.steps import NETS, NETS_EMA, OPTIMS
from tests.command import RUN

FLAGS = f"{RUN} --sample_every 0 --eval_every 0 --val_batch_size 2 --num_outs_per_domain 1 --print_every 1"


def folders(tmp_path, data):
    return {**data, "checkpoint_dir": tmp_path / "checkpoints", "sample_dir": tmp_path / "samples"}


def steps(tmp_path):
    return sorted(int(path.name[:6]) for path in (tmp_path / "checkpoints").glob("*_manifest.json"))


def state(tmp_path, step):
    """Contents of the three files of a step."""
    templates = (NETS, NETS_EMA, OPTIMS)
    return [torch.load(tmp_path / "checkpoints" / name.format(step), weights_only=True) for name in templates]


def losses(text):
    """{iteration: its printed line, without the time}"""
    lines = [line.partition("Iteration [")[2] for line in text.splitlines() if "Iteration [" in line]
    return {int(line.partition("/")[0]): line.partition("]")[2] for line in lines}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("0*")}


def read_log(folder):
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
