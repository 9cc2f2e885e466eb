"""Peak memory of sampling, measured by the operating system (Linux and macOS)."""

import shutil
import subprocess
import sys
from pathlib import Path

import av
import pytest

import main
from core.images.io import read_rgb
from core.solver import Solver
from data import demo
from data.demo_faces import DOMAINS
from tests.clips import make_clip
from tests.command import as_flags, config_of

NARROW = "--device cpu --w_hpf 0 --img_size 256 --channel_base 2048 --max_conv_dim 32 --num_domains 3"


# In a process of its own, since the maximum of a child includes that of its parent at the fork.
LAUNCHER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def peak_memory(command):
    """Run a command -> its peak memory in bytes."""
    launch = [sys.executable, "-c", LAUNCHER, *command]
    done = subprocess.run(launch, cwd=Path(main.__file__).parent, check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint of a narrow network, 15 sources, and references by their number."""
    folder = tmp_path_factory.mktemp("memory")
    line = (*NARROW.split(), "--checkpoint_dir", folder / "checkpoints")
    Solver(config_of("train", *line, domains=tuple(DOMAINS))).save(1)
    demo.make(folder / "src", size=256, train=5, val=0)
    for count, per_domain in ((28, 10), (56, 20), (112, 40)):
        demo.make(folder / f"ref{count}", size=256, train=per_domain, val=0)
        surplus = sorted((folder / f"ref{count}" / "train" / "cat").iterdir())[per_domain * 4 // 5 :]
        for path in surplus:
            path.unlink()
    return folder


def sample(files, references, flags, result_dir, sources=""):
    """Run the program -> its peak memory."""
    folders = {
        "checkpoint_dir": files / "checkpoints",
        "src_dir": files / "src" / "train" / sources,
        "ref_dir": files / f"ref{references}" / "train",
        "result_dir": result_dir,
    }
    line = ["--mode", "sample", "--num_workers", "0", *flags.split(), *as_flags(folders)]
    return peak_memory([sys.executable, "main.py", *line])


@pytest.mark.slow
def test_a_long_wide_video_stays_below_1500_mb(files, tmp_path):
    """15 sources and 28 references at 256 px: 785 frames of 512 x 4128 (19.9 GB if all were kept)."""
    peak = sample(files, 28, "", tmp_path)
    assert peak < 1.5e9, f"{peak / 1e9:.2f} GB"
    assert read_rgb(tmp_path / "reference.jpg").size == (16 * 256, 29 * 256)
    with av.open(tmp_path / "video_ref.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.width, stream.height) == (785, 4128, 512)


@pytest.mark.slow
def test_the_full_width_stays_below_2_gb(files, tmp_path):
    """Grid and video of 15 sources; two references are enough, since the video holds one frame at a time."""
    line = "--device cpu --w_hpf 0 --num_domains 3 --checkpoint_dir"
    Solver(config_of("train", *line.split(), tmp_path / "checkpoints", domains=tuple(DOMAINS))).save(1)
    for number in range(2):
        target = tmp_path / "ref" / "bear" / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(files / "ref28" / "train" / "bear" / f"{number:05d}.png", target)
    folders = {"checkpoint_dir": tmp_path / "checkpoints", "src_dir": files / "src" / "train"}
    folders |= {"ref_dir": tmp_path / "ref", "result_dir": tmp_path / "results"}
    line = ["--mode", "sample", "--num_workers", "0", *as_flags(folders)]
    peak = peak_memory([sys.executable, "main.py", *line])
    assert peak < 2e9, f"{peak / 1e9:.2f} GB"


@pytest.mark.slow
@pytest.mark.parametrize(("output", "sources"), [("reference", ""), ("video_ref", "bear/00000.png")])
def test_memory_does_not_grow_with_the_references(files, tmp_path, output, sources):
    # A grid with 15 sources takes one page for 56 references, and two of the same size for 112.
    few, many = (sample(files, count, f"--outputs {output}", tmp_path, sources) for count in (56, 112))
    assert many < 1.1 * few, f"{few / 1e9:.2f} GB for 56 references, {many / 1e9:.2f} GB for 112"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_clip(tmp_path):
    peaks = []
    for count in (60, 600):
        make_clip(tmp_path / f"{count}.mp4", count=count, size=(320, 240))
        line = "--preset demo --device cpu --num_workers 0 --outputs video --seeds 3 --target_domains cat"
        folders = {"src_dir": tmp_path / f"{count}.mp4", "result_dir": tmp_path / "out"}
        line = ["--mode", "sample", "--checkpoint", "assets/demo", *line.split(), *as_flags(folders)]
        peaks.append(peak_memory([sys.executable, "main.py", *line]))
    assert peaks[1] < 1.1 * peaks[0]
