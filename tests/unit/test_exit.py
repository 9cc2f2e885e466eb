import signal

import pytest
import torch

from core.system.errors import PeerError, PeerLost, Stopped, UserError
from core.system.exit import exit_status

HINT = " To continue from the last saved step, add --resume_iter latest."


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (UserError("wrong"), 2, "wrong"),
        (FileNotFoundError(2, "No such file", "x.png"), 2, "Cannot use x.png (no such file). Check"),
        (torch.OutOfMemoryError(), 2, "Cannot allocate memory (out of memory). Reduce --img_size"),
        (Stopped(signal.SIGINT), 130, f"Stopped by Ctrl-C.{HINT}"),
        (Stopped(signal.SIGTERM), 143, f"Stopped by SIGTERM.{HINT}"),
        (PeerLost("gone"), 1, f"gone{HINT}"),
        (KeyboardInterrupt(), 130, "Stopped at once by a second Ctrl-C."),
    ],
)
def test_status_and_sentence_of_an_error(error, status, sentence, capsys):
    assert exit_status(error, is_training=True) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {sentence}") and (HINT in line) == (HINT in sentence)


def test_only_an_interrupted_training_can_be_resumed(capsys):
    assert exit_status(Stopped(signal.SIGINT)) == 130
    assert capsys.readouterr().err == "error: Stopped by Ctrl-C.\n"


def test_an_error_of_another_rank_is_not_reported_twice(capsys):
    assert exit_status(PeerError()) == 2
    assert capsys.readouterr().err == ""


def test_a_bug_is_raised_again(capsys):
    with pytest.raises(KeyError) as caught:
        try:
            raise KeyError
        except KeyError as error:
            exit_status(error)
    assert caught.traceback[-1].name == "test_a_bug_is_raised_again" and capsys.readouterr().err == ""
