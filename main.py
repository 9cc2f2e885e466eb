"""StarGAN v2 on the command line: python main.py {train,sample,eval,align,play} --flag value ...; see --help."""

import sys

from core.cli.args import parse_args, parse_given
from core.system.errors import UserError
from core.system.launcher import is_launched
from core.system.signals import StopSignals, ending_at_once

__all__ = ["main", "parse_args"]  # parse_args: for code that builds a core.solver.Solver itself


def main(argv=None):
    """Run a command line; return the exit status: 0, or see core.system.exit. Raises errors that are bugs."""
    given, mistake = {}, None
    with ending_at_once():
        try:  # before PyTorch is imported: help and mistakes are answered at once
            given = parse_given(argv, raises=is_launched())
        except UserError as error:  # Perhaps only this process has a mistake. The others must end, too.
            mistake = error
        from core.cli.resolve import check_same_flags
        from core.commands import COMMANDS
        from core.system.distributed import process_group, sync_errors
        from core.system.exit import exit_status

    try:
        with StopSignals(), process_group():
            with sync_errors():
                if mistake:
                    raise mistake
            check_same_flags(given)
            COMMANDS[given["mode"]](given)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (bugs are raised again)
        return exit_status(error, is_training=given.get("mode") == "train")
    return 0


if __name__ == "__main__":
    sys.exit(main())
