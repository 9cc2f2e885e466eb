import pytest

import main
from data import demo


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
        narrow = (
            "--device cpu --w_hpf 0 --img_size 32 --channel_base 256 --max_conv_dim 16 --hidden_dim 32 --num_workers 0"
        )
        paths = [text for name, path in folders.items() for text in (f"--{name}", str(path))]
        return main.parse_args(["--mode", mode, *narrow.split(), *flags.split(), *paths])

    return parse
