"""The flags of the command line."""

import argparse

import pytest

import main
from core.cli import args
from tests import golden


def test_flags_equal_those_of_the_reference():
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


def test_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit):
        main.parse_args(["--help"])
    assert "high-pass skip for aligned faces" in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")
    assert all(action.help for action in args.build_parser()._actions)
    assert isinstance(main.parse_args(["--mode", "train"]), argparse.Namespace)
