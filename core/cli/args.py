"""The command line of main.py: parse it, check it, and answer --help and --version."""

import argparse
import sys
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise

import core
from core.cli import help as help_text
from core.cli.config import merge
from core.cli.flags import FLAGS, GROUPS, MODES, check_values, flags_of
from core.cli.parser import Parser, is_rank_0, with_underscores
from core.cli.values import nearest, parse_value
from core.system import console
from core.system.errors import UserError


def parse_given(argv=None):
    """Return the flags on a command line: {name: value}; warn about those that its mode ignores.

    The mode is the first word, or the value of --mode. Exits with status 2 and one sentence where a value is wrong,
    with status 0 after --help, --help_all and --version.
    """
    tokens = with_underscores(argv)
    parser = build_parser()
    try:
        tokens = with_mode_as_flag(tokens)
        if {"-h", "--help", "--help_all", "--version"} & set(tokens):
            console.info("\n".join(_answer(tokens)))
            parser.exit(0)
        given = vars(parser.parse_args(tokens))
        if "mode" not in given:
            raise UserError(f"Cannot start without a mode. Add one: python main.py {', '.join(MODES)} (see --help).")
        check_values(merge(given))
    except UserError as error:
        parser.error(str(error))
    ignored = [f"--{name}" for name in given.keys() - {"mode"} if name not in flags_of(given["mode"])]
    if ignored and is_rank_0():
        console.warn(f"Ignoring {', '.join(sorted(ignored))} (no effect in {given['mode']} mode).")
    return given


def parse_args(argv=None):
    """Return the Namespace of all flags. Exits as `parse_given`."""
    return argparse.Namespace(**merge(parse_given(argv)))


def build_parser():
    """Return the parser of main.py; it yields only the flags on the command line."""
    parser = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    for flags in GROUPS.values():
        for flag in flags:
            parser.add(flag.name, flag.kind, argparse.SUPPRESS, flag.help)
    return parser


def with_mode_as_flag(tokens):
    """Return a command line with --mode MODE for its first word. Raises UserError where that is no mode."""
    if not tokens or tokens[0].startswith("-"):
        return tokens
    mode, rest = tokens[0], tokens[1:]
    if mode not in MODES:
        close = nearest(mode, MODES)
        advice = f"Use {close}" if close else f"Use {', '.join(MODES)}"
        raise UserError(f"Cannot run '{mode}' (there is no such mode). {advice}, or see --help.")
    if "--mode" in rest:
        raise UserError(f"Cannot use two modes at once. Remove {mode} or --mode.")
    return ["--mode", mode, *rest]


def _answer(tokens):
    """Return the lines that --help, --help_all or --version prints."""
    if "--version" in tokens:
        return [f"StarGAN v2 {core.__version__}, PyTorch {_installed('torch')}, Python {sys.version.split()[0]}"]
    if "--help_all" in tokens:
        return help_text.everything()
    modes = [value for name, value in pairwise(tokens) if name == "--mode"]
    modes += [token.partition("=")[2] for token in tokens if token.startswith("--mode=")]
    return help_text.of_mode(parse_value("mode", FLAGS["mode"].kind, modes[0])) if modes else help_text.overview()


def _installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
