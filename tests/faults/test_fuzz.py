"""Damaged and hostile files and random flags give a result or one sentence, never a traceback; nothing is executed."""

import faulthandler
import io
import os
import random
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import main
from core.checkpoint.init_from import load_source
from core.checkpoint.io import CheckpointIO
from core.checkpoint.steps import NETS_EMA, OPTIMS
from core.cli.args import build_parser, parse_given
from core.cli.resolve import beginning_config, config_of_step
from core.images.io import read_rgb, read_with_size
from core.solver import Solver
from core.system.errors import UserError
from tests.command import NARROW, config_of
from tests.mutations import change_content, change_pickle, cut, flip, foreign, overwrite, shuffle_zip

ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "150"))  # per reader; FUZZ_ROUNDS=3400 takes about ten minutes
SEED = int(os.environ.get("FUZZ_SEED", "0"))
LONGEST = 10  # seconds for one file


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A Solver with a saved step, after one update of each network, and its folder."""
    folder = tmp_path_factory.mktemp("trained")
    solver = Solver(config_of("train", *NARROW.split(), "--checkpoint_dir", folder, domains=("a", "b")))
    step_all(solver.optims)
    solver.save(1)
    return solver, folder


def step_all(optimizers):
    """Update all parameters. This would read and write the memory of wrong moments."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.full_like(parameter, 1e-3)
        optimizer.step()


def load_networks(solver, folder, chance):
    given = {"mode": chance.choice(("sample", "train")), "checkpoint_dir": str(folder), "resume_iter": 1}
    config_of_step(given, 1)
    CheckpointIO(folder, NETS_EMA, **solver.nets_ema).load(1)


def load_optimizers(solver, folder, _chance):
    CheckpointIO(folder, OPTIMS, **solver.optims).load(1)
    step_all(solver.optims)


def start_from(solver, folder, _chance):
    path = folder / NETS_EMA.format(1)
    config = beginning_config(parse_given(["--mode", "train", "--init_from", str(path)]))
    load_source(solver.nets, solver.nets_ema, config.inherited, ["a", "b"])


READERS = {load_networks: NETS_EMA, load_optimizers: OPTIMS, start_from: NETS_EMA}


@pytest.mark.parametrize("load", READERS, ids=lambda load: load.__name__)
def test_damaged_checkpoints_raise_user_errors_and_execute_nothing(load, trained, tmp_path):
    solver, folder = trained
    trap, path = tmp_path / "trapped", folder / READERS[load].format(1)
    ways = (cut, flip, overwrite, shuffle_zip, change_pickle, lambda data, chance: foreign(data, chance, trap))
    ways += (change_content,) * 4
    whole, chance, refused = path.read_bytes(), random.Random(SEED), 0
    try:
        for number in range(ROUNDS):
            way = ways[number % len(ways)]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch announces that some kinds of tensors will change
                path.write_bytes(way(whole, chance))
            faulthandler.dump_traceback_later(LONGEST, exit=True)
            try:
                load(solver, folder, chance)
            except UserError as error:
                refused += 1
                assert str(error) and "\n" not in str(error), error
            finally:
                faulthandler.cancel_dump_traceback_later()
        assert refused > ROUNDS / 2 and not trap.exists()
    finally:
        path.write_bytes(whole)
    load(solver, folder, chance)
    assert all(p.isfinite().all() for net in solver.nets.values() for p in net.parameters())


def test_damaged_images_raise_user_errors(tmp_path):
    generator, chance, refused = np.random.default_rng(0), random.Random(0), 0
    picture = Image.fromarray(generator.integers(0, 255, (40, 30, 3), dtype=np.uint8))
    wholes = []
    exif = picture.getexif()
    exif[0x0112] = 6  # turned
    for suffix in ("jpg", "png", "webp", "gif", "bmp", "tiff", "avif", "jp2", "tga"):
        picture.save(tmp_path / f"whole.{suffix}", **({"exif": exif} if suffix in ("jpg", "png", "webp") else {}))
        wholes.append((suffix, (tmp_path / f"whole.{suffix}").read_bytes()))
    for number in range(900):
        suffix, whole = wholes[number % len(wholes)]
        path = tmp_path / f"damaged.{suffix}"
        path.write_bytes(chance.choice((cut, flip, overwrite))(whole, chance))
        for read in (read_rgb, partial(read_with_size, least_side=32)):
            try:
                found = read(path)
            except UserError as error:
                refused += 1
                assert "damaged" in str(error)
            else:
                assert (found if read is read_rgb else found[0]).mode == "RGB"
    assert refused > 100
    for suffix, _ in wholes:
        turned = suffix in ("jpg", "png", "webp")
        assert read_rgb(tmp_path / f"whole.{suffix}").size == ((40, 30) if turned else (30, 40))


FLAGS = [
    action for action in build_parser()._actions if action.option_strings[0].startswith("--") and action.dest != "help"
]
VALUES = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", "0", "1", "latest", "true", "a,b", "0-9", "afhq", "demo", "cpu", "nan", "1e400", "tests", "../.."]
    ),
    st.text(max_size=8),
)


@st.composite
def lines(draw):
    """A mode and some flags with valid or invalid values."""
    line = ["--mode", draw(st.sampled_from(["train", "sample", "eval", "align"]))]
    for action in draw(st.lists(st.sampled_from(FLAGS), max_size=6)):
        line.append(action.option_strings[0])
        if action.nargs != 0:
            line.append(draw(VALUES))
    return line


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(lines())
def test_random_flags_parse_or_exit_2(line):
    """A command line is accepted, or refused with one sentence and exit status 2."""
    with pytest.MonkeyPatch.context() as patch:
        said = io.StringIO()
        patch.setattr("sys.stderr", said)
        try:
            args = main.parse_args(line)
        except SystemExit as stop:
            assert stop.code == 2 and said.getvalue().startswith("error: ") and said.getvalue().endswith("\n")
        else:
            assert args.mode in ("train", "sample", "eval", "align") and 0 < args.lr + 1 < 10**19


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(lines())
def test_random_command_lines_exit_2(tmp_path_factory, line):
    """The whole program in a folder without data: exit status 2 and one sentence."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        said = io.StringIO()
        patch.setattr("sys.stderr", said)
        try:
            status = main.main(line)
        except SystemExit as stop:
            status = stop.code
        assert status == 2, said.getvalue()
        assert "error: " in said.getvalue() and "Traceback" not in said.getvalue()
