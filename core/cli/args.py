"""The command line: what main.py is called with, read and checked."""

import argparse

from core.cli.config import merge
from core.cli.flags import GROUPS, SWITCH, check_values
from core.system.distributed import is_main_process
from core.system.errors import UserError


def parse_given(argv=None):
    """The flags on a command line: {name: value}. Exits with status 2 and one sentence where a value is wrong."""
    parser = build_parser()
    given = vars(parser.parse_args(argv))
    try:
        check_values(merge(given))
    except UserError as error:
        parser.error(str(error))
    return given


def parse_args(argv=None):
    """Namespace of every flag. Exits with status 2 and one sentence where a value is wrong."""
    return argparse.Namespace(**merge(parse_given(argv)))


class Parser(argparse.ArgumentParser):
    """Reports a wrong flag in one sentence instead of a page of usage; only the main process prints."""

    def _print_message(self, message, file=None):
        if is_main_process():
            super()._print_message(message, file)

    def error(self, message):
        """Print the sentence to stderr, once for all processes, and exit with status 2."""
        self.exit(2, f"error: {message} (python main.py --help lists all flags)\n")


def build_parser():
    """The parser of main.py: what it returns holds the flags on the command line, and no others."""
    parser = Parser(
        description="StarGAN v2: translates images between domains, in the style of a reference or of a random code.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for title, flags in GROUPS.items():
        group = parser.add_argument_group(title) if title else parser
        for flag in flags:
            options = {"help": f"{flag.help} (default: {flag.default})"}
            if flag.kind is SWITCH:
                options["action"] = "store_true"
            else:
                options |= {"type": flag.kind.parse, "choices": flag.choices, "required": flag.name == "mode"}
            group.add_argument(f"--{flag.name}", **options)
    return parser
