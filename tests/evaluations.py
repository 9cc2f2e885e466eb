"""Evaluations of narrow networks on a small data set."""

import torch

import main
from core.evaluation.evaluator import Evaluation
from core.images.io import read_rgb
from core.model import build_model
from core.system.memory import MicroBatch
from tests.command import NARROW


def evaluation(data, folder, **options):
    defaults = {"img_size": 32, "outputs": 3, "batch_size": 2, "device": torch.device("cpu")}
    defaults |= {"inference_batch": MicroBatch(2, 2), "train_dir": data / "train", "val_dir": data / "val"}
    return Evaluation(["bear", "cat"], eval_dir=folder, **defaults | options)


def images_of(folder):
    return [read_rgb(path) for path in sorted(folder.iterdir())]


def networks():
    return build_model(main.parse_args(["--mode", "eval", *NARROW.split()]))[1]
