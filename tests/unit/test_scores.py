"""Files of scores."""

import json

import pytest

from core.evaluation.scores import Scores, write_scores


def test_scores_that_cannot_be_computed_are_null(tmp_path):
    """One output has no pairs, one training image no kernel distance; then several seeds have no deviation either."""
    by_seed = {seed: {"a2b": Scores(float(seed), float("nan"), 0.5)} for seed in (1, 3)}
    means = write_scores(tmp_path, 7, "latent", by_seed, {})
    assert means == {
        "FID": 2.0,
        "FID_std": pytest.approx(2**0.5),
        "KID": None,
        "KID_std": None,
        "LPIPS": 0.5,
        "LPIPS_std": 0,
    }
    content = json.loads((tmp_path / "KID_00007_latent.json").read_text())
    assert content["KID_latent/a2b"] is None and content["std"]["KID_latent/mean"] is None
    assert json.loads((tmp_path / "scores.jsonl").read_text())["FID"] == 2.0
