"""The environment variables of torchrun."""

import re

import pytest

import main
from core.system.distributed import process_group
from core.system.errors import UserError
from core.system.launcher import check_launcher, is_rank_0

TWO = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29771", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0"}


@pytest.fixture(autouse=True)
def launched(monkeypatch):
    """launched(**variables) sets the variables of one of two processes, with other values for some; None: not set."""

    def launched(**variables):
        for name, value in (TWO | {"LOCAL_WORLD_SIZE": "1"} | variables).items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    for name in (*TWO, "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return launched


def test_right_variables_are_accepted(launched):
    launched()
    check_launcher()
    launched(LOCAL_RANK=None, LOCAL_WORLD_SIZE=None)
    check_launcher()
    launched(WORLD_SIZE="8", RANK="7", LOCAL_RANK="3", LOCAL_WORLD_SIZE="4", MASTER_PORT="65535")
    check_launcher()


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("RANK", "x", "from 0 to 1, got x"),
        ("RANK", "2", "from 0 to 1, got 2"),
        ("RANK", "-1", "from 0 to 1, got -1"),
        ("RANK", "1.0", "from 0 to 1, got 1.0"),
        ("RANK", "", "from 0 to 1, but it is empty"),
        ("WORLD_SIZE", "two", "from 1 to 1048576, got two"),
        ("WORLD_SIZE", "0", "from 1 to 1048576, got 0"),
        ("WORLD_SIZE", "9" * 5000, "from 1 to 1048576, got 9"),
        ("MASTER_PORT", "none", "from 1 to 65535, got none"),
        ("MASTER_PORT", "70000", "from 1 to 65535, got 70000"),
        ("MASTER_PORT", None, "from 1 to 65535, but it is missing"),
        ("LOCAL_WORLD_SIZE", "3", "from 1 to 2, got 3"),
        ("LOCAL_RANK", "1", "from 0 to 0, got 1"),
        ("LOCAL_RANK", "gpu0", "from 0 to 0, got gpu0"),
    ],
)
def test_wrong_variables_are_one_sentence(name, value, rule, launched, capsys):
    launched(**{name: value})
    with pytest.raises(UserError, match=re.escape(f"variable {name} must be an integer {rule}")), process_group():
        pass
    assert main.main(["train", "--device", "cpu"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("error: Cannot join the processes of this run") == printed.count("\n") == 1


def test_variables_without_a_launcher_do_not_matter(launched):
    launched(RANK="1", WORLD_SIZE=None)  # left over from another program
    assert is_rank_0()
    launched()
    assert not is_rank_0()
    launched(RANK="0")
    assert is_rank_0()
