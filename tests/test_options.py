import argparse

import pytest

import main
from core import options
from core.errors import UserError
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


def settled(found, *line):
    args = main.parse_args(["--mode", "train", *line])
    options.settle_domains(args, found, "some/folder")
    return args


def test_domains_are_counted_or_held_against_the_flag():
    args = settled(["cat", "dog", "wild"])
    assert (args.num_domains, args.domains) == (3, ["cat", "dog", "wild"])
    assert settled(["a", "b", "c"], "--num_domains", "3").num_domains == 3
    with pytest.raises(UserError, match="--num_domains is 2, but some/folder has 3 .*a, b, c"):
        settled(["a", "b", "c"], "--num_domains", "2")
    with pytest.raises(UserError, match="sub-folders cat, dog, but the domains are cat, dog, wild"):
        options.settle_domains(args, ["cat", "dog"], "val")


def test_a_checkpoint_says_what_it_is():
    made = main.parse_args(["--mode", "train", "--img_size", "64", "--w_hpf", "0", "--num_domains", "3"])
    made.domains = ["cat", "dog", "wild"]
    config = options.network_config(made, 7)
    args = main.parse_args(["--mode", "sample"])
    options.adopt_config(args, config, "step 7")
    assert (args.img_size, args.w_hpf, args.num_domains, args.domains) == (64, 0, 3, made.domains)
    with pytest.raises(UserError, match="--img_size is 128, but step 7 was made with 64"):
        options.adopt_config(main.parse_args(["--mode", "sample", "--img_size", "128"]), config, "step 7")


def test_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit):
        main.parse_args(["--help"])
    assert "high-pass skip for aligned faces" in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")
    assert all(action.help for action in options.build_parser()._actions)
    assert isinstance(main.parse_args(["--mode", "train"]), argparse.Namespace)
