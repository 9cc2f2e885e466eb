"""Damaged arrays: statistics of real images are computed again, a mean face is refused."""

import zipfile

import numpy as np
import pytest

from core.evaluation import features
from core.sampling.align import read_mean_face
from core.system.errors import UserError


def statistics(count=3):
    accumulator = features.FeatureAccumulator(count)
    generator = np.random.default_rng(0)
    accumulator.add(features.torch.from_numpy(generator.random((count, features.FEATURES), np.float32)), 0)
    return accumulator.result()


def spoil(path, name, change):
    with np.load(path) as arrays:
        content = dict(arrays)
    content[name] = change(content[name])
    np.savez(path, **content)


def nan_at_first(array):
    array = array.copy()
    array.flat[0] = np.nan
    return array


STATISTICS = {
    "count": ("count", lambda a: a + 1),
    "type of the count": ("count", lambda a: np.array("three")),
    "vector of counts": ("count", lambda a: np.array([3, 3])),
    "fewer": ("kept", lambda a: a[:2]),
    "narrower": ("mean", lambda a: a[:-1]),
    "infinite": ("mean", lambda a: a / 0),
    "nan": ("cov", nan_at_first),
    "type": ("mean", lambda a: a.astype(np.float32)),
    "complex": ("cov", lambda a: a * 1j),
    "byte order": ("mean", lambda a: a.astype(">f8")),
    "objects": ("mean", lambda a: a.astype(object)),
    "other mean": ("mean", lambda a: a + 1),
    "negative variance": ("cov", lambda a: -a),
    "not symmetric": ("cov", np.triu),
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("kind", STATISTICS)
def test_wrong_statistics_of_real_images_are_not_used(kind, tmp_path, capsys):
    path, whole = tmp_path / "real.npz", statistics()
    features.write_features(path, whole)
    read = features.read_features(path, 3)
    assert all(np.array_equal(getattr(read, name), getattr(whole, name)) for name in features.ARRAYS)
    assert features.read_features(path, 4) is None and features.read_features(tmp_path / "other.npz", 3) is None
    spoil(path, *STATISTICS[kind])
    capsys.readouterr()
    assert features.read_features(path, 3) is None
    assert f"warning: Cannot use {path} (" in capsys.readouterr().err


def cut_compression(path):
    """Statistics whose compressed bytes are damaged."""
    with np.load(path) as arrays:
        np.savez_compressed(path, **arrays)
    data = bytearray(path.read_bytes())
    data[100:160] = b"\xff" * 60
    path.write_bytes(data)


def unknown_compression(path):
    data = path.read_bytes()
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = data.index(mark) + at
        data = data[:start] + b"\x63\x00" + data[start + 2 :]
    path.write_bytes(data)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def deep_header(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in features.ARRAYS:
            header = ("{'descr': " + "[" * 5000).encode()
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header)


def huge_header(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in features.ARRAYS:
            header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999, 99999)}"
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header)


@pytest.mark.parametrize("damage", [cut_compression, unknown_compression, flip, deep_header, huge_header])
def test_damaged_archives_of_arrays_are_not_used(damage, tmp_path, capsys, mean_face):
    path = tmp_path / "real.npz"
    features.write_features(path, statistics())
    damage(path)
    assert features.read_features(path, 3) is None and "damaged or incomplete" in capsys.readouterr().err
    np.savez(path, mean=mean_face)
    assert (read_mean_face(path) == mean_face).all()
    damage(path)
    with pytest.raises(UserError, match=r"^Cannot read the mean face .*(damaged or incomplete)"):
        read_mean_face(path)


@pytest.mark.parametrize("change", [
    lambda a: a * 1j, lambda a: a.astype(str), lambda a: a[:97], lambda a: a * 1e300, nan_at_first, lambda a: a * 0,
    lambda a: a > 1,
])  # fmt: skip
def test_mean_faces_of_other_numbers_are_refused(change, tmp_path, mean_face):
    np.savez(tmp_path / "mean.npz", mean=change(mean_face))
    with pytest.raises(UserError, match="^Cannot use the mean face .*98 distinct points"):
        read_mean_face(tmp_path / "mean.npz")
