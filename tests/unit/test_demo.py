import json

import numpy as np
import pytest

from data import demo, demo_faces
from tests.command import picture


def make(folder, *flags):
    demo.main(["--out", str(folder), "--size", "32", "--train", "3", "--val", "1", *flags])
    return sorted(path.relative_to(folder) for path in folder.rglob("*.png"))


def test_images_depend_only_on_the_seed(tmp_path):
    files = [make(tmp_path / name, "--seed", seed) for name, seed in (("a", "0"), ("b", "0"), ("c", "1"))]
    assert files[0] == files[1] == files[2] and len(files[0]) == 3 * 4
    content = {name: [(tmp_path / name / file).read_bytes() for file in files[0]] for name in "abc"}
    assert content["a"] == content["b"]
    assert not set(content["a"]) & set(content["c"])
    assert len(set(content["a"])) == len(files[0])


def test_listed_factors_reproduce_the_images(tmp_path):
    """Every file has a line, and drawing from the line gives the file again."""
    files = make(tmp_path)
    lines = (tmp_path / demo.FACTORS).read_text(encoding="utf-8").splitlines()
    rows = {row.pop("file"): row for row in map(json.loads, lines)}
    assert sorted(rows) == [file.as_posix() for file in files]
    for file, row in rows.items():
        assert row["domain"] == file.split("/")[1]
        assert np.array_equal(demo_faces.draw(demo_faces.Face(**row), 32), picture(tmp_path / file))


def test_a_smaller_set_replaces_a_larger_one(tmp_path):
    make(tmp_path)
    assert len(make(tmp_path, "--train", "1")) == 3 * 2


def face(**changes):
    fields = {
        "domain": "cat", "x": 0.5, "y": 0.5, "size": 0.25, "tilt": 0.0, "gaze": (0.0, 0.0), "fur": (0.8, 0.4, 0.2),
        "mark": (0.1, 0.1, 0.1), "pattern": "plain", "eyes": (0.2, 0.6, 0.3), "background": (0.0, 1.0, 1.0),
    }  # fmt: skip
    return np.asarray(demo_faces.draw(demo_faces.Face(**{**fields, **changes}), 64)).astype(float)


@pytest.mark.parametrize("domain", demo_faces.DOMAINS)
def test_content_moves_the_face_and_style_changes_its_colours(domain):
    plain = face(domain=domain)
    assert np.array_equal(plain[0, 0], (0, 255, 255)) and np.array_equal(plain[23, 35], (204, 102, 51))  # forehead
    assert np.array_equal(np.roll(plain, (4, -8), (0, 1)), face(domain=domain, x=0.375, y=0.5625))
    turned = face(domain=domain, tilt=np.pi / 2)
    assert np.abs(turned - np.rot90(plain, -1)).mean() < 4  # clockwise; pixels at edges may differ
    larger, smaller = (((face(domain=domain, size=size) - (0, 255, 255)) != 0).any(2).mean() for size in (0.3, 0.2))
    assert 2 < larger / smaller < 2.5  # (0.3 / 0.2) squared
    for style in ({"eyes": (1, 0, 0)}, {"fur": (0.2, 0.2, 0.9)}, {"pattern": "patch"}, {"pattern": "stripes"}):
        changed = (face(domain=domain, **style) != plain).any(2)
        assert changed.any() and not changed[:4].any()
    assert np.array_equal(plain, face(domain=domain, mark=(1, 1, 1)))  # no pattern, no mark


def test_mirrored_gaze_is_the_opposite_gaze():
    assert np.abs(face(gaze=(1.0, 0.3))[:, ::-1] - face(gaze=(-1.0, 0.3))).mean() < 2  # highlights stay right
    assert np.abs(face(gaze=(1.0, 0.3)) - face(gaze=(-1.0, 0.3))).max() > 100


def test_domains_differ_by_their_ears():
    above = {domain: (face(domain=domain)[:14] != (0, 255, 255)).any(2).mean() for domain in demo_faces.DOMAINS}
    beside = {domain: (face(domain=domain)[24:48, :15] != (0, 255, 255)).any(2).mean() for domain in demo_faces.DOMAINS}
    assert above["cat"] > 2 * above["dog"]  # pointed up
    assert beside["dog"] > 2 * max(beside["cat"], beside["bear"])  # hanging
