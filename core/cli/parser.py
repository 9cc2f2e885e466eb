"""A parser of command lines that answers a mistake with one sentence."""

import argparse
import re
import sys

from core.cli.values import AUTO_SWITCH, SWITCH, TRUTH, nearest, parse_value
from core.system import console
from core.system.errors import UserError
from core.system.launcher import is_rank_0


class Parser(argparse.ArgumentParser):
    """Accepts dashes for underscores in flags. A mistake ends the program with one sentence and exit status 2.

    Of several processes that torchrun started, only rank 0 prints. raises: raise UserError for a mistake instead.
    """

    def __init__(self, raises=False, **options):
        self.raises = raises
        module = getattr(sys.modules["__main__"], "__spec__", None)
        options |= {"prog": f"python -m {module.name}" if module else None, "allow_abbrev": False}
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self._negative_number_matcher = re.compile(r"-\.?\d")  # argparse's own takes -1e-3 for a flag
        self.color = False  # Python 3.14 would colour the help.
        console.open_missing_streams()  # Every command begins with its parser.
        self.kinds, self.preferred = {}, []  # preferred: flags that are named first instead of a misspelt one

    def add(self, name, kind, default=None, help=None, **options):
        """Add the flag --name with values of a Kind. options: of add_argument; with nargs, each value is of the kind.

        A flag of kind TRUTH gets --no_name, too.
        """
        self.kinds[f"--{name}"] = kind
        options |= {"default": default, "help": help}
        if kind is SWITCH:
            self.add_argument(f"--{name}", action="store_true", **options)
            return
        if kind is AUTO_SWITCH:
            options |= {"nargs": "?", "const": True}
        options.setdefault("metavar", kind.metavar)
        self.add_argument(f"--{name}", type=lambda text: parse_value(name, kind, text), **options)
        if kind is TRUTH:
            self.kinds[f"--no_{name}"] = SWITCH
            self.add_argument(f"--no_{name}", dest=name, action="store_false", default=default, help=argparse.SUPPRESS)

    def parse_args(self, argv=None, namespace=None):
        """Parse a command line, sys.argv if None. Exits with status 2 where it has a mistake."""
        tokens = with_underscores(argv)
        known = [option for action in self._actions for option in action.option_strings]
        names = [token.partition("=")[0] for token in tokens if re.match(r"--\w", token)]
        try:
            for name in names:
                if name not in known:
                    close = nearest(name, self.preferred) or nearest(name, known)
                    advice = f"Use {close}" if close else "Remove it"
                    raise UserError(f"Cannot use {name} (there is no such flag). {advice}, or see --help.")
            args, words = self.parse_known_args(tokens, namespace)
            if words:
                hint = "Remove it, or separate the values of a flag with commas"
                raise UserError(f"Cannot use '{words[0]}' (it belongs to no flag). {hint}.")
        except UserError as error:
            self.error(str(error))
        return args

    def run(self, work, argv=None):
        """Parse a command line and call work(args). Exits with status 2 after a UserError."""
        args = self.parse_args(argv)
        try:
            work(args)
        except UserError as error:
            self.error(str(error))

    def error(self, message):
        """Print one sentence to stderr, on rank 0 alone, and exit with status 2. See `raises`."""
        sentence = self._plain(message)
        if self.raises:
            raise UserError(sentence)
        if is_rank_0():
            console.error(sentence)
        self.exit(2)

    def _print_message(self, message, file=None):
        if is_rank_0():
            console.text(message, file or sys.stderr)

    def _plain(self, message):
        """Reword argparse's own messages."""
        name = next(iter(re.findall(r"^argument (--\w+)", message)), "")
        if "expected" in message and name in self.kinds:
            dash = f" Write {name}=VALUE if the value begins with a dash."
            return f"{name} must be {self.kinds[name].rule}, got nothing.{dash}"
        if "ignored explicit argument" in message:
            return f"{name} must be given without a value, got {message.rpartition(' ')[2].strip(chr(39))}."
        wrong = re.match(r"argument (--\w+): invalid (int|float|choice)( value)?: '?([^' ]*)", message)
        if wrong:
            rule = {"int": "an integer", "float": "a number"}.get(wrong[2])
            rule = rule or "one of " + message.rpartition("choose from ")[2].rstrip(")").replace("'", "")
            return f"{wrong[1]} must be {rule}, got {wrong[4]}."
        if message.startswith("the following arguments are required: "):
            missing = message.rpartition(": ")[2]
            return f"Cannot start without {missing}. Add {missing}, or see --help."
        return message


def with_underscores(argv=None):
    """Return a command line, sys.argv if None, with underscores for dashes in the names of its flags."""
    tokens = []
    for token in sys.argv[1:] if argv is None else argv:
        name, equals, value = token.partition("=")
        is_flag = re.fullmatch(r"--\w[\w-]*", name)
        tokens.append(f"--{name[2:].replace('-', '_')}{equals}{value}" if is_flag else token)
    return tokens
