import pytest

import main
from data import demo
from tests.command import NARROW, as_flags


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """A small data set of three domains: train/ (12 each) and val/ (3 each), 64 px."""
    folder = tmp_path_factory.mktemp("shapes")
    demo.make(folder, size=64, train=12, val=3)
    return folder


@pytest.fixture
def parse():
    """parse("train", "--img_size 32 ...", **paths) -> Namespace of a narrow network without masks."""

    def parse(mode, flags="", **folders):
        narrow = f"{NARROW} --num_workers 0"
        return main.parse_args(["--mode", mode, *narrow.split(), *flags.split(), *as_flags(folders)])

    return parse
