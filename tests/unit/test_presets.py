import pytest
import torch

import main
from core.checkpoint.steps import NETS_EMA
from core.cli.args import parse_given
from core.cli.config import defaults
from core.cli.presets import SETTINGS
from core.cli.resolve import config_of_step, loaded_config
from core.solver import Solver
from tests.command import config_of


def parse(mode, preset, *flags):
    return main.parse_args(["--mode", mode, "--preset", preset, *flags])


def given(mode, preset, *flags):
    return parse_given(["--mode", mode, "--preset", preset, *flags])


def save(folder):
    """A step 7 of a training of the demo preset."""
    line = ("--preset", "demo", "--lambda_ds", "3", "--device", "cpu", "--checkpoint_dir", folder)
    made = config_of("train", *line, domains=("a", "b", "c"))
    Solver(made).save(7)
    return made


@pytest.mark.parametrize("preset", SETTINGS)
@pytest.mark.parametrize("mode", ["train", "sample", "eval"])
def test_presets_are_defaults_that_flags_override(mode, preset):
    plain, args = main.parse_args(["--mode", mode]), parse(mode, preset)
    assert args.preset == preset and plain.preset is None
    for name, value in SETTINGS[preset].items():
        assert getattr(args, name) == value, name
    assert preset in args.train_img_dir and preset in args.result_dir
    assert set(given(mode, preset)) == {"mode", "preset"}  # so a checkpoint's own settings count more
    assert parse(mode, preset, "--lambda_ds", "7").lambda_ds == 7
    assert set(given(mode, preset, "--lambda_ds", "7")) == {"mode", "preset", "lambda_ds"}
    assert defaults()["lambda_ds"] == 1  # nothing is left behind


def test_presets_equal_the_published_commands():
    """The three commands of the reference implementation, without repeating their flags."""
    line = "--mode train --num_domains 3 --w_hpf 0 --lambda_reg 1 --lambda_sty 1 --lambda_ds 2 --lambda_cyc 1"
    spelled = main.parse_args([*line.split(), "--train_img_dir", "data/afhq/train", "--val_img_dir", "data/afhq/val"])
    differing = {name for name, value in vars(spelled).items() if getattr(parse("train", "afhq"), name) != value}
    assert differing == {"preset", *(f"{name}_dir" for name in DIRS)}
    line = "--mode train --num_domains 2 --w_hpf 1 --lambda_reg 1 --lambda_sty 1 --lambda_ds 1 --lambda_cyc 1"
    spelled = main.parse_args(line.split())
    differing = {name for name, value in vars(spelled).items() if getattr(parse("train", "celeba_hq"), name) != value}
    assert differing <= {"preset", *(f"{name}_dir" for name in DIRS)}


DIRS = ("sample", "checkpoint", "eval", "result", "src", "ref")


def test_training_the_demo_does_not_write_beside_the_shipped_checkpoint():
    shipped = parse("sample", "demo").checkpoint_dir
    assert shipped == parse("eval", "demo").checkpoint_dir != parse("train", "demo").checkpoint_dir


def test_resuming_uses_the_preset_of_the_checkpoint(tmp_path):
    made = save(tmp_path)
    line = ["--mode", "train", "--print_every", "1", "--checkpoint_dir", str(tmp_path)]
    resumed = config_of_step(parse_given(line), 7)
    assert resumed.preset == "demo" and resumed.print_every == 1 and resumed.lambda_ds == 3
    assert resumed.batch_size == made.batch_size and resumed.ds_iter == made.ds_iter and resumed.img_size == 64
    assert resumed.sample_dir == main.parse_args(["--mode", "train"]).sample_dir

    path = tmp_path / NETS_EMA.format(7)
    content = torch.load(path, weights_only=True)
    content["config"]["preset"] = ["of", "tomorrow"]
    torch.save(content, path)
    assert config_of_step(parse_given(line), 7).preset is None


def test_sampling_ignores_a_different_preset(tmp_path):
    save(tmp_path)
    args = loaded_config(given("sample", "afhq", "--checkpoint_dir", str(tmp_path)))
    assert args.img_size == 64 and list(args.domains) == ["a", "b", "c"]
