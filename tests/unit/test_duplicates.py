"""Detection of images that are copies of one another."""

from dataclasses import replace

import numpy as np
from PIL import Image

from data import demo_faces, prepare
from data.duplicates import CELLS, detail, originals
from tests.photos import face, save


def cells(image):
    return np.asarray(image.resize((CELLS, CELLS), Image.Resampling.BILINEAR))


def looked_at(path):
    one = prepare.Photo(path, path.name, "cat", path.stem)
    prepare.look(one)
    return one.cells


def test_copies_are_distinguished_from_similar_images(tmp_path):
    """Ten faces: resized and recompressed images are copies; a face that moves, tilts or looks elsewhere is not."""
    for number in range(10):
        one = replace(face(number, demo_faces.DOMAINS[number % 3]), gaze=(-0.5, 0.2))
        image = demo_faces.draw(one, 256)
        save(tmp_path / "0.jpg", image, quality=95, subsampling=0)
        save(tmp_path / "1.jpg", image, quality=50)
        save(tmp_path / "2.webp", image.resize((170, 170), Image.Resampling.LANCZOS), quality=80)
        save(tmp_path / "3.jpg", image.resize((128, 128), Image.Resampling.BICUBIC), quality=80)
        save(tmp_path / "4.png", image.resize((600, 600), Image.Resampling.BICUBIC))
        save(tmp_path / "5.jpg", image.resize((700, 700), Image.Resampling.BICUBIC), quality=80)
        copies = [looked_at(path) for path in sorted(tmp_path.glob("*.*"))]
        assert originals(copies).tolist() == [0] * 6, number
        changes = [{}, {"x": one.x + 0.01}, {"tilt": one.tilt + 0.04}, {"gaze": (0.5, 0.2)}, {"size": one.size + 0.01}]
        series = [cells(demo_faces.draw(replace(one, **change), 256)) for change in changes]
        assert originals(series).tolist() == [0, 1, 2, 3, 4], number


def test_all_pairs_are_compared_across_blocks():
    """More images than fit into a block; a copy of a copy belongs to the original; dark images that differ stay."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 250, (600, 8, 8, 3), dtype=np.uint8)
    coarse[300:303] = generator.integers(9, 15, (3, 8, 8, 3))  # dark, and not alike
    coarse[599] = coarse[0]
    coarse[598] = coarse[300]
    coarse[597] = coarse[599] + 1
    pictures = list(coarse.repeat(4, 1).repeat(4, 2))
    assert originals(pictures).tolist() == [*range(597), 0, 300, 0]
    assert originals([]).tolist() == []


def test_thresholds_of_copies():
    """Mean difference 0.13 of the step from a cell to the next, and 20 in a single cell. An image that resembles a
    copy, but not its original, is no copy."""
    board = np.indices((CELLS, CELLS)).sum(0)[..., None] % 2 * 100 + np.full(3, 50)
    assert np.allclose(detail(board[None].astype(np.uint8)), 100)
    dots = [board.copy() for _ in range(2)]
    dots[0][7, 7, 1] += 20
    dots[1][7, 7, 1] += 21
    chain = [board, board + 10, board + 20]
    cases = [
        ([board, board + 12], [0, 0]),
        ([board, board + 14], [0, 1]),
        ([board, *dots], [0, 0, 2]),
        (chain, [0, 0, 2]),
    ]
    for pictures, expected in cases:
        assert originals([one.astype(np.uint8) for one in pictures]).tolist() == expected
