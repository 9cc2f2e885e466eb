"""The face network and its masks against golden numbers, and its file."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from core.system.errors import UserError
from core.wing import FAN, landmarks_of, load_wing, preprocess
from tests import golden


@pytest.fixture(scope="module")
def fan():
    return golden.fill("fan", FAN())


@pytest.fixture(scope="module")
def expected():
    return golden.read("face.npz")


def heat_maps(points):
    """98 Gaussians of sigma 1.5 on the grid of 64 at points (98, 2): (1, 98, 64, 64)."""
    grid, x, y = torch.arange(64.0), points[:, 0, None, None], points[:, 1, None, None]
    return torch.exp(-((grid[None, None] - x) ** 2 + (grid[None, :, None] - y) ** 2) / (2 * 1.5**2))[None]


def test_keys_are_those_of_checkpoints(fan):
    keys = golden.read("state_dict_keys.json")["celeba_hq"]["fan"]
    assert {key: list(value.shape) for key, value in fan.state_dict().items()} == keys


def test_heat_maps(fan, expected):
    maps = fan.get_heatmap(golden.image("x256", 1, 3, 256, 256), b_preprocess=False)
    assert maps.shape == (1, 98, 64, 64)
    torch.testing.assert_close(maps[:, :, ::4, ::4], expected["heatmaps_every4"], atol=2e-3, rtol=0)
    torch.testing.assert_close(maps.mean(), expected["heatmaps_mean"], atol=2e-3, rtol=0)
    first, second = fan.get_heatmap(golden.image("x256", 1, 3, 256, 256))
    assert first.shape == second.shape == (1, 1, 256, 256)
    assert first.min() >= 0 and first.max() <= 1
    landmarks = fan.get_landmark(golden.image("x256", 1, 3, 256, 256))
    assert torch.equal(landmarks, landmarks_of(maps) * 4)


def test_masks_of_synthetic_maps(expected):
    maps = heat_maps(expected["synthetic_points"])
    masks = preprocess(F.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=True))
    for number, mask in enumerate(masks):
        torch.testing.assert_close(mask[:, :, ::4, ::4], expected[f"synthetic_mask{number}_every4"], atol=1e-3, rtol=0)


def test_masks_of_two_sizes_and_of_nothing(expected):
    maps = heat_maps(expected["synthetic_points"])
    large = F.interpolate(maps, scale_factor=8, mode="bilinear", align_corners=True)  # 512: moves are twice as far
    assert [mask.shape for mask in preprocess(large)] == [(1, 1, 512, 512)] * 2
    for mask in preprocess(torch.full((2, 98, 256, 256), float("nan"))):
        assert not mask.any()
    for mask in preprocess(torch.zeros(2, 98, 256, 256)):
        assert not mask.any()


def test_landmarks_of_synthetic_maps(expected):
    maps = heat_maps(expected["synthetic_points"])
    torch.testing.assert_close(landmarks_of(maps)[0], expected["synthetic_landmarks"])
    assert (landmarks_of(maps)[0] - 0.5 - expected["synthetic_points"]).abs().max() <= 0.5
    corners = torch.zeros(1, 98, 64, 64)
    corners[0, 0, 0, 0] = corners[0, 1, 63, 63] = corners[0, 2, 0, 5] = 1  # at the border nothing is added
    assert landmarks_of(corners)[0, :3].tolist() == [[0.5, 0.5], [63.5, 63.5], [5.5, 0.5]]


def test_it_stays_as_it_was_trained(fan):
    fan.train()
    assert not any(module.training for module in fan.modules())
    assert not any(p.requires_grad for p in fan.parameters())


def test_its_file(fan, tmp_path):
    """Which holds more than the weights, numbers of NumPy say, and may lack counters that are of no use."""
    path, state = tmp_path / "wing.ckpt", fan.state_dict()
    more = {"epoch": 7, "loss": np.float64(0.5), "options": Namespace(lr=1e-4)}
    plain = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    for written in ({**state, "conv1.planes": torch.zeros(1)}, {f"module.{key}": v for key, v in plain.items()}):
        torch.save({"state_dict": written, **more}, path)
        other = FAN()
        load_wing(other, path)
        assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())


def test_files_that_are_another(fan, tmp_path):
    path, state = tmp_path / "wing.ckpt", fan.state_dict()
    torch.save({"state_dict": {**state, "l0.bias": torch.full((99,), float("nan"))}}, path)
    with pytest.raises(UserError, match="no numbers"):
        load_wing(FAN(), path)
    del state["m0.b1_4.conv1.weight"], state["l0.bias"]
    torch.save({"state_dict": state}, path)
    with pytest.raises(UserError, match=r"missing: l0.bias, m0.b1_4.conv1.weight"):
        load_wing(FAN(), path)
    for content in ({"model": {}}, [1], {"state_dict": 3}, None):
        torch.save(content, path) if content else path.write_bytes(b"<html>")
        with pytest.raises(UserError, match=r"is not wing.ckpt, .* remove it and get it by python -m data"):
            load_wing(FAN(), path)
    path.unlink()
    with pytest.raises(UserError, match=r"python -m data.download wing, or choose --w_hpf 0"):
        load_wing(FAN(), path)
