"""Titles with characters that fonts lack."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.images import fonts
from core.images.grid import Grid
from core.sampling import translate
from core.sampling.outputs import OutputWriter
from core.system.memory import MicroBatch


@pytest.fixture
def only_own_font(monkeypatch):
    monkeypatch.setattr(fonts, "FONTS", ())


@pytest.mark.usefixtures("only_own_font")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("日本", r"\u65e5\u672c"),
        ("лiя", r"\u043bi\u044f"),
        ("🐱", r"\U0001f431"),
        ("\uff21\uff22", "AB"),  # wide letters
        ("café", "cafe"),
        ("cafe\u0301", "cafe"),  # as on a Mac
        ("a\x1b[31m", r"a\x1b[31m"),
        ("a\udcff", r"a\udcff"),  # bytes that are not UTF-8
        ("plain name 1", "plain name 1"),
    ],
)
def test_missing_characters_become_similar_ones_or_codes(text, shown):
    assert fonts.spelled(fonts.font_for(12, text), text) == shown


@pytest.mark.usefixtures("only_own_font")
def test_different_names_look_different():
    names = ["日本", "中国", "да", "дай"]
    grids = [np.asarray(Grid(1, 1, 128, [f"{name}\nx"], [name]).canvas) for name in names]
    assert len({(grid.shape, grid.tobytes()) for grid in grids}) == len(names)
    assert Grid(1, 1, 64, ["日"]).missing == {"日"} and not Grid(1, 1, 64, ["deja\nvu"], ["…"]).missing


@pytest.mark.usefixtures("only_own_font")
def test_sampling_warns_once_of_characters_without_glyphs(nets, pictures, tmp_path, capsys):
    x_src, x_ref, _ = pictures
    inference_batch = MicroBatch(2, 2)
    sources = replace(translate.read_sources(nets, [x_src[:1]], inference_batch), names=["a"])
    styles = translate.read_references(nets.style_encoder, [(x_ref[:2], torch.tensor([0, 1]))])
    styles = replace(styles, names=["x", "y"], origins=[{}, {}])
    for titled, warnings in ((True, 1), (False, 0)):
        writer = OutputWriter(nets.generator, tmp_path, inference_batch, ["日本", "да", "c"], titled)
        for output in ("reference", "latent"):
            writer.write(output, sources, styles if output == "reference" else replace(styles, shown=None))
        shown = capsys.readouterr().err
        assert shown.count("No installed font has") == warnings
