"""FAN, its masks and its file."""

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


def test_state_dict_keys_equal_the_reference(fan):
    keys = golden.read("state_dict_keys.json")["celeba_hq"]["fan"]
    assert {key: list(value.shape) for key, value in fan.state_dict().items()} == keys


def test_heat_maps_equal_golden_numbers(fan, expected):
    maps = fan.get_heatmap(golden.image("x256", 1, 3, 256, 256), b_preprocess=False)
    assert maps.shape == (1, 98, 64, 64)
    torch.testing.assert_close(maps[:, :, ::4, ::4], expected["heatmaps_every4"], atol=2e-3, rtol=0)
    torch.testing.assert_close(maps.mean(), expected["heatmaps_mean"], atol=2e-3, rtol=0)
    first, second = fan.get_heatmap(golden.image("x256", 1, 3, 256, 256))
    assert first.shape == second.shape == (1, 1, 256, 256)
    assert first.min() >= 0 and first.max() <= 1


def test_masks_of_synthetic_maps_equal_golden_numbers(expected):
    maps = golden.heat_maps(expected["synthetic_points"])
    masks = preprocess(F.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=True))
    for number, mask in enumerate(masks):
        torch.testing.assert_close(mask[:, :, ::4, ::4], expected[f"synthetic_mask{number}_every4"], atol=1e-3, rtol=0)


def test_masks_fit_the_image_size_and_are_empty_without_a_face(expected):
    maps = golden.heat_maps(expected["synthetic_points"])
    large = F.interpolate(maps, scale_factor=8, mode="bilinear", align_corners=True)  # 512: moves are twice as far
    assert [mask.shape for mask in preprocess(large)] == [(1, 1, 512, 512)] * 2
    for mask in preprocess(torch.full((2, 98, 256, 256), float("nan"))):
        assert not mask.any()
    for mask in preprocess(torch.zeros(2, 98, 256, 256)):
        assert not mask.any()


def test_landmarks_of_synthetic_maps_equal_golden_numbers(expected):
    maps = golden.heat_maps(expected["synthetic_points"])
    torch.testing.assert_close(landmarks_of(maps)[0], expected["synthetic_landmarks"])
    assert (landmarks_of(maps)[0] - 0.5 - expected["synthetic_points"]).abs().max() <= 0.5
    corners = torch.zeros(1, 98, 64, 64)
    corners[0, 0, 0, 0] = corners[0, 1, 63, 63] = corners[0, 2, 0, 5] = 1  # at the border nothing is added
    assert landmarks_of(corners)[0, :3].tolist() == [[0.5, 0.5], [63.5, 63.5], [5.5, 0.5]]


def test_fan_stays_frozen_and_in_eval_mode(fan):
    fan.train()
    assert not any(module.training for module in fan.modules())
    assert not any(p.requires_grad for p in fan.parameters())


def test_wing_file_may_hold_more_entries_and_a_prefix(fan, tmp_path):
    """It holds more than weights, such as NumPy numbers, and may lack counters that nothing uses."""
    path, state = tmp_path / "wing.ckpt", fan.state_dict()
    more = {"epoch": 7, "loss": np.float64(0.5), "options": Namespace(lr=1e-4)}
    plain = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    for written in ({**state, "conv1.planes": torch.zeros(1)}, {f"module.{key}": v for key, v in plain.items()}):
        torch.save({"state_dict": written, **more}, path)
        other = FAN()
        load_wing(other, path)
        assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())


def test_other_wing_files_are_refused(fan, tmp_path):
    path, state = tmp_path / "wing.ckpt", fan.state_dict()
    torch.save({"state_dict": {**state, "l0.bias": torch.full((99,), float("nan"))}}, path)
    with pytest.raises(UserError, match="NaN or infinite values in l0.bias"):
        load_wing(FAN(), path)
    del state["m0.b1_4.conv1.weight"], state["l0.bias"]
    torch.save({"state_dict": state}, path)
    with pytest.raises(UserError, match=r"missing: l0.bias, m0.b1_4.conv1.weight"):
        load_wing(FAN(), path)
    for content in ({"model": {}}, [1], {"state_dict": 3}, None):
        torch.save(content, path) if content else path.write_bytes(b"<html>")
        with pytest.raises(UserError, match=r"as the face landmark network: .*Delete it and run python -m data"):
            load_wing(FAN(), path)
    for change, said in ((lambda t: t.to_sparse(), "sparse or nested"), (lambda t: t * 1j, "complex64 instead")):
        torch.save({"state_dict": fan.state_dict() | {"l0.bias": change(fan.state_dict()["l0.bias"])}}, path)
        with pytest.raises(UserError, match=f"as the face landmark network: .*{said}.*l0.bias"):
            load_wing(FAN(), path)
    path.unlink()
    with pytest.raises(UserError, match=r"python -m data.download wing, or set --w_hpf 0"):
        load_wing(FAN(), path)
