"""The command line of main.py: parse it, check it, and answer --help and --version."""

import argparse
import sys

import core
from core.cli import help as help_text
from core.cli.config import merge
from core.cli.flags import FLAGS, GROUPS, MODES, check_values, flags_of
from core.cli.parser import Parser, with_underscores
from core.cli.values import nearest, parse_value
from core.system import console
from core.system.errors import UserError
from core.system.launcher import is_rank_0


def parse_given(argv=None, raises=False):
    """Return the flags on a command line: {name: value}; warn about those that its mode ignores.

    The mode is the first word, or the value of --mode. Exits with status 2 and one sentence where a value is wrong,
    with status 0 after --help, --help_all and --version. raises: raise UserError for a wrong value instead.
    """
    tokens = with_underscores(argv)
    parser = build_parser(raises)
    try:
        mode, tokens = split_mode(tokens)
        if {"-h", "--help", "--help_all", "--version"} & set(tokens):
            console.text("\n".join(_answer(mode, tokens)), sys.stdout)
            parser.exit(0)
        if mode is None:
            raise UserError(f"Cannot start without a mode. Add one: python main.py {', '.join(MODES)} (see --help).")
        parser.preferred = [f"--{name}" for name in flags_of(mode)]
        given = {"mode": mode} | vars(parser.parse_args(tokens))
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


def build_parser(raises=False):
    """Return the parser of main.py; it yields only the flags on the command line."""
    parser = Parser(raises, add_help=False, argument_default=argparse.SUPPRESS)
    for flags in GROUPS.values():
        for flag in flags:
            parser.add(flag.name, flag.kind, argparse.SUPPRESS, flag.help)
    return parser


def split_mode(tokens):
    """Return (mode or None, other tokens) of a command line. The mode is the first word, or the value of --mode.

    Raises UserError where there is no such mode, or more than one.
    """
    modes, rest, kind = [], [], FLAGS["mode"].kind
    words = iter(tokens)
    for number, token in enumerate(words):
        name, equals, value = token.partition("=")
        if number == 0 and not token.startswith("-"):
            if token not in MODES:
                close = nearest(token, MODES)
                advice = f"Use {close or ', '.join(MODES)}"
                raise UserError(f"Cannot run '{token}' (there is no such mode). {advice}, or see --help.")
            modes.append(token)
        elif name == "--mode":
            modes.append(parse_value("mode", kind, value if equals else next(words, "")))
        else:
            rest.append(token)
    if len(modes) > 1:
        raise UserError(f"Cannot use {len(modes)} modes at once ({', '.join(modes)}). Remove all but one.")
    return (modes or [None])[0], rest


def _answer(mode, tokens):
    """Return the lines that --help, --help_all or --version prints."""
    if "--version" in tokens:
        from core.report.page import versions  # other command lines start without it

        found = {"torch": "not installed"} | versions()
        return [f"StarGAN v2 {core.__version__}, PyTorch {found['torch']}, Python {found['python']}"]
    if "--help_all" in tokens:
        return help_text.everything()
    return help_text.of_mode(mode) if mode else help_text.overview()
