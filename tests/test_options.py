import argparse

import pytest

import main
from core.cli import flags
from core.cli.args import changed_flags, style_kinds
from tests import golden


def test_flags_of_the_reference():
    """Names, types, defaults and choices of all 41 flags."""
    args = vars(main.parse_args(["--mode", "train"]))
    for flag in golden.read("cli.json"):
        name = flag["flag"].removeprefix("--")
        if flag["required"]:
            for choice in flag["choices"]:
                assert vars(main.parse_args([flag["flag"], choice]))[name] == choice
            continue
        assert args[name] == flag["default"], name
        value = {"int": 16, "float": 0.25, "str": "some/where"}[flag["type"]]
        line = ["--mode", "train", "--img_size", "16", flag["flag"], str(value)]
        parsed = vars(main.parse_args(line))[name]
        assert parsed == value and type(parsed).__name__ == flag["type"], name


def test_mode_is_required(capsys):
    with pytest.raises(SystemExit) as stop:
        main.parse_args([])
    assert stop.value.code == 2
    assert "--mode" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--img_size 100", "power of two"),
        ("--img_size 8", "power of two"),
        ("--img_size x", "invalid int value"),
        ("--batch_size 0", "--batch_size is 0"),
        ("--num_domains 0", "--num_domains is 0"),
        ("--lr nan", "--lr is nan"),
        ("--lambda_ds inf", "--lambda_ds is inf"),
        ("--lambda_cyc -1", "--lambda_cyc is -1"),
        ("--beta1 1", "less than 1"),
        ("--randcrop_prob 1.5", "between 0 and 1"),
        ("--channel_base 128", "at least --img_size 256"),
        ("--src_dir=", "--src_dir is empty"),
        ("--seed 99999999999999999999", "at most 18 digits"),
        ("--micro_batch some", "neither auto nor a number"),
        ("--precision half", "invalid choice"),
        ("--mode dream", "invalid choice"),
        ("--outputs reference,movie", "movie is none of reference"),
        ("--outputs ,reference", "empty name"),
        ("--domain_names cat,cat,dog", "has cat twice"),
        ("--seeds 5-3", "not a list of numbers"),
        ("--seeds x", "not a list of numbers"),
        ("--seeds 0-10000", "more than 10000 seeds"),
        ("--psi -1", "--psi is -1"),
        ("--video_format avi", "invalid choice"),
        ("--resize squeeze", "invalid choice"),
        ("--batchsize 4", "unrecognized arguments"),
    ],
)
def test_wrong_values_are_one_sentence(line, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main.parse_args(["--mode", "train", *line.split()])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert said in message and message.startswith("error: ") and message.count("\n") == 1


def test_given_flags_are_known():
    args = main.parse_args(["--mode", "train", "--lr", "1e-4", "--w_hpf=0"])
    assert args.given == {"mode", "lr", "w_hpf"}


def test_lists_on_the_command_line():
    args = main.parse_args(["--mode", "sample", "--seeds", "0-2,20,1", "--outputs", "latent, images"])
    assert args.seeds == [0, 1, 2, 20] and args.outputs == ["latent", "images"] and args.target_domains is None
    args = main.parse_args(["--mode", "sample", "--target_domains", "dog,wild"])
    assert args.target_domains == ["dog", "wild"] and args.outputs == ["reference", "video_ref"]
    assert args.seeds == list(range(10)) and args.psi == 1 and args.resize == "stretch"


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        ("--outputs reference", ["reference"]),
        ("--outputs video_latent", ["seed"]),
        ("--outputs images", ["reference"]),
        ("--outputs images --ref_dir x", ["reference"]),
        ("--outputs images --seeds 3", ["seed"]),
        ("--outputs images --seeds 3 --ref_dir x", ["reference", "seed"]),
    ],
)
def test_where_outputs_take_their_styles_from(line, kinds):
    args = main.parse_args(["--mode", "sample", *line.split()])
    assert style_kinds(args, args.outputs[0]) == kinds


def test_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit):
        main.parse_args(["--help"])
    assert "high-pass skip for aligned faces" in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")
    assert all(action.help for action in flags.build_parser()._actions)
    assert isinstance(main.parse_args(["--mode", "train"]), argparse.Namespace)


def test_settings_are_told_as_typed():
    args = main.parse_args(["--mode", "sample", "--outputs", "latent,images", "--seeds", "3-5", "--result_dir", "x"])
    told = dict(changed_flags(args))
    assert told["--outputs"] == "latent,images" and told["--seeds"] == "3,4,5" and list(told)[-1] == "--result_dir"
    assert "--num_workers" not in told and "" not in told.values()
