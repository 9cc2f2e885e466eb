import numpy as np

from data import demo


def test_pictures_depend_on_the_seed_alone(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        demo.main(["--out", str(tmp_path / name), "--size", "32", "--train", "2", "--val", "1", "--seed", str(seed)])
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.png"))
    assert len(files) == 3 * 3
    content = {name: [(tmp_path / name / file).read_bytes() for file in files] for name in "abc"}
    assert content["a"] == content["b"]
    assert not set(content["a"]) & set(content["c"])
    assert len(set(content["a"])) == len(files)


def test_shapes_differ_in_area():
    """Equal radius: a circle covers more than a square, a square more than a triangle."""
    areas = []
    for domain in demo.CORNERS:
        image = np.asarray(demo.draw(domain, 64, np.random.default_rng(0))).astype(int)
        areas.append((np.abs(image - image[0, 0]).sum(2) > 40).mean())
    assert areas == sorted(areas, reverse=True)
