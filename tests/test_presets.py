import pytest

import main
from core.checkpoint import describe
from core.cli.flags import build_parser
from core.cli.presets import SETTINGS


def parse(mode, preset, *flags):
    return main.parse_args(["--mode", mode, "--preset", preset, *flags])


@pytest.mark.parametrize("preset", SETTINGS)
@pytest.mark.parametrize("mode", ["train", "sample", "eval"])
def test_presets_are_defaults_that_flags_override(mode, preset):
    plain, args = main.parse_args(["--mode", mode]), parse(mode, preset)
    assert args.preset == preset and plain.preset is None
    for name, value in SETTINGS[preset].items():
        assert getattr(args, name) == value, name
    assert preset in args.train_img_dir and preset in args.result_dir
    assert args.given == {"mode", "preset"}  # so a checkpoint's own settings count more
    assert parse(mode, preset, "--lambda_ds", "7").lambda_ds == 7
    assert parse(mode, preset, "--lambda_ds", "7").given == {"mode", "preset", "lambda_ds"}
    assert build_parser().get_default("lambda_ds") == 1  # nothing is left behind


def test_published_settings():
    """The three commands of the reference implementation, without repeating their flags."""
    line = "--mode train --num_domains 3 --w_hpf 0 --lambda_reg 1 --lambda_sty 1 --lambda_ds 2 --lambda_cyc 1"
    spelled = main.parse_args([*line.split(), "--train_img_dir", "data/afhq/train", "--val_img_dir", "data/afhq/val"])
    differing = {name for name, value in vars(spelled).items() if getattr(parse("train", "afhq"), name) != value}
    assert differing == {"given", "preset", *(f"{name}_dir" for name in DIRS)}
    line = "--mode train --num_domains 2 --w_hpf 1 --lambda_reg 1 --lambda_sty 1 --lambda_ds 1 --lambda_cyc 1"
    spelled = main.parse_args(line.split())
    differing = {name for name, value in vars(spelled).items() if getattr(parse("train", "celeba_hq"), name) != value}
    assert differing <= {"given", "preset", *(f"{name}_dir" for name in DIRS)}


DIRS = ("sample", "checkpoint", "eval", "result", "src", "ref")


def test_training_the_demo_leaves_the_shipped_checkpoint_alone():
    shipped = parse("sample", "demo").checkpoint_dir
    assert shipped == parse("eval", "demo").checkpoint_dir != parse("train", "demo").checkpoint_dir


def test_a_checkpoint_remembers_its_preset():
    made = parse("train", "demo", "--lambda_ds", "3")
    made.domains = ["a", "b", "c"]
    config = describe.network_config(made, 7)
    resumed = main.parse_args(["--mode", "train", "--resume_iter", "7", "--print_every", "1"])
    describe.adopt_config(resumed, config, "step 7")
    describe.adopt_settings(resumed, config, "step 7")
    assert resumed.preset == "demo" and resumed.print_every == 1 and resumed.lambda_ds == 3
    assert resumed.batch_size == made.batch_size and resumed.ds_iter == made.ds_iter and resumed.img_size == 64
    assert resumed.checkpoint_dir == main.parse_args(["--mode", "train"]).checkpoint_dir

    other = main.parse_args(["--mode", "train"])
    describe.adopt_settings(other, {**config, "preset": ["of", "tomorrow"]}, "step 7")
    assert other.preset is None


def test_sampling_does_not_ask_for_the_preset():
    made = parse("train", "demo")
    made.domains = ["a", "b", "c"]
    args = parse("sample", "afhq")
    describe.adopt_config(args, describe.network_config(made, 7), "step 7")
    assert args.img_size == 64 and args.domains == ["a", "b", "c"]
