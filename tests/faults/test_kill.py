"""A run killed at any moment resumes from its last complete step and ends with the files of an undisturbed run."""

import os
import random
import shutil
import time

import pytest

from tests import processes
from tests.command import RUN, as_flags
from tests.runs import contents

FLAGS = f"{RUN} --total_iters 6 --save_every 1 --sample_every 0 --eval_every 0 --val_batch_size 2 --resume_iter latest"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs processes that can be forked and killed")


@pytest.fixture(scope="module")
def run(faces, tmp_path_factory):
    """start(folder) -> process that trains into the folder."""
    samples = tmp_path_factory.mktemp("samples")

    def start(folder):
        where = {"train_img_dir": faces / "train", "val_img_dir": faces / "val", "sample_dir": samples}
        return processes.start(["--mode", "train", *FLAGS.split(), *as_flags({**where, "checkpoint_dir": folder})])

    return start


@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory):
    """Files of an undisturbed run, and its duration in seconds."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for _ in range(2):  # the first start is slower
        shutil.rmtree(folder)
        began, process = time.monotonic(), run(folder)
        process.join()
        assert process.exitcode == 0
    return contents(folder), time.monotonic() - began


def kill_and_resume(run, undisturbed, folder, moment):
    expected, seconds = undisturbed
    process = run(folder)
    time.sleep(moment * seconds)
    process.kill()
    process.join()
    found = contents(folder) if folder.exists() else {}
    process = run(folder)
    process.join()
    assert process.exitcode == 0
    assert contents(folder) == expected
    hidden = sorted(path.name for path in folder.glob(".*"))
    assert hidden in (
        [".train_img_dir.json", ".val_img_dir.json"],
        [".lock", ".train_img_dir.json", ".val_img_dir.json"],
    )
    return len(found)


def test_runs_killed_at_four_moments_resume_exactly(run, undisturbed, tmp_path):
    for number, moment in enumerate((0.4, 0.6, 0.8, 0.95)):
        kill_and_resume(run, undisturbed, tmp_path / str(number), moment)


@pytest.mark.slow
def test_runs_killed_at_fifty_moments_resume_exactly(run, undisturbed, tmp_path):
    chance = random.Random(0)
    found = [kill_and_resume(run, undisturbed, tmp_path / str(n), chance.random()) for n in range(50)]
    assert len(set(found)) > 6  # kills left many different sets of files, some during a save
