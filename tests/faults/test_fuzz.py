"""Damaged and hostile files and random flags give a result or one sentence, never a traceback; nothing is executed."""

import io
import os
import random
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import main
from core.checkpoint.io import CheckpointIO
from core.checkpoint.steps import NETS_EMA
from core.cli.args import build_parser
from core.cli.resolve import config_of_step
from core.images.io import glance, read_rgb
from core.solver import Solver
from core.system.errors import UserError
from tests.command import NARROW, config_of


class Trap:
    """Unpickling this would run a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def cut(data, chance):
    return data[: chance.randrange(len(data))]


def flip(data, chance):
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def overwrite(data, chance):
    start, size = chance.randrange(len(data)), chance.randrange(1, 200)
    return data[:start] + chance.randbytes(size) + data[start + size :]


def shuffle_zip(data, chance):
    """Entries removed, swapped, emptied or renamed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [[entry.filename, archive.read(entry)] for entry in archive.infolist()]
    one, other = chance.sample(range(len(entries)), 2)
    change = chance.randrange(4)
    if change == 0:
        del entries[one]
    elif change == 1:
        entries[one][1], entries[other][1] = entries[other][1], entries[one][1]
    elif change == 2:
        entries[one][1] = b""
    else:
        entries[one][0] = entries[one][0].replace("data", "other")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return packed.getvalue()


def foreign(_data, chance, trap):
    """Foreign pickles in both formats of torch.save."""
    configs = [{"img_size": Trap(trap)}, {"img_size": "64"}, {"img_size": 2**70}, {"settings": {"batch_size": 1.5}}]
    contents = [Trap(trap), {"generator": Trap(trap)}, {"generator": {"a": 1}}, [1, 2], {1: 2}, None, "text"]
    content = chance.choice([*contents, *({"config": config} for config in configs)])
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=chance.random() < 0.5)
    return file.getvalue()


def test_damaged_checkpoints_raise_user_errors_and_execute_nothing(tmp_path, monkeypatch):
    config = config_of("train", *NARROW.split(), "--checkpoint_dir", tmp_path, domains=("a", "b"))
    solver, trap = Solver(config), tmp_path / "trapped"
    solver.save(1)
    path = tmp_path / NETS_EMA.format(1)
    whole, chance, refused = path.read_bytes(), random.Random(0), 0

    def load():
        given = {"mode": chance.choice(("sample", "train")), "checkpoint_dir": str(tmp_path), "resume_iter": 1}
        config_of_step(given, 1)
        CheckpointIO(tmp_path, NETS_EMA, **solver.nets_ema).load(1)

    ways = (cut, flip, overwrite, shuffle_zip, lambda data, chance: foreign(data, chance, trap))
    for number in range(300):
        path.write_bytes(ways[number % len(ways)](whole, chance))
        try:
            load()
        except UserError as error:
            refused += 1
            assert str(error) and "\n" not in str(error), error
    assert refused > 150 and not trap.exists()
    path.write_bytes(whole)
    load()


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
        for read in (read_rgb, glance):
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
