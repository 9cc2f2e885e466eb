"""Peak memory of sampling, measured by the operating system (Linux and macOS)."""

import subprocess
import sys
from pathlib import Path

import av
import pytest

import main
from core.images import read_rgb
from core.solver import Solver
from data import demo
from tests.command import as_flags

NARROW = "--device cpu --w_hpf 0 --img_size 256 --channel_base 2048 --max_conv_dim 32 --num_domains 3"


# A process of its own, since what a child is said to have held includes what its parent did.
LAUNCHER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def peak_memory(command):
    """Run a command -> the most memory it held at once, in bytes."""
    launch = [sys.executable, "-c", LAUNCHER, *command]
    done = subprocess.run(launch, cwd=Path(main.__file__).parent, check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout)


@pytest.mark.slow
def test_a_long_wide_video_needs_little_memory(tmp_path):
    """15 sources and 28 references at 256 px: 785 frames of 512 x 4128 (19.9 GB if all were kept)."""
    demo.make(tmp_path / "src", size=256, train=5, val=0)
    demo.make(tmp_path / "ref", size=256, train=10, val=0)
    for number in (8, 9):
        (tmp_path / "ref" / "train" / "square" / f"{number:05d}.png").unlink()
    folders = {
        "checkpoint_dir": tmp_path / "checkpoints",
        "src_dir": tmp_path / "src" / "train",
        "ref_dir": tmp_path / "ref" / "train",
        "result_dir": tmp_path / "results",
    }
    paths = as_flags(folders)
    args = main.parse_args(["--mode", "train", *NARROW.split(), *paths])
    args.domains = sorted(demo.CORNERS)
    Solver(args).save(1)

    peak = peak_memory([sys.executable, "main.py", "--mode", "sample", "--num_workers", "0", *paths])
    assert peak < 1.5e9, f"{peak / 1e9:.2f} GB"
    assert read_rgb(tmp_path / "results" / "reference.jpg").size == (16 * 256, 29 * 256)
    with av.open(tmp_path / "results" / "video_ref.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.width, stream.height) == (785, 4128, 512)
