"""Files of scores."""

import json

import pytest

from core.evaluation.scores import Scores, missing_scores, score_table, write_scores


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


@pytest.mark.parametrize(
    ("training", "validation", "outputs", "words"),
    [
        ({"a": 9, "b": 9}, {"a": 3, "b": 3}, 2, {}),
        ({"a": 9, "b": 9}, {"a": 3, "b": 3}, 1, {"LPIPS": "--num_outs_per_domain is 1"}),
        ({"a": 1, "b": 9}, {"a": 3, "b": 3}, 2, {"KID": "into a (1 training image)."}),
        ({"a": 9, "b": 9}, {"a": 1, "b": 3}, 2, {}),
        (
            {"a": 9, "b": 1},
            {"a": 1, "b": 3},
            1,
            {"KID": "into b (1 training image) and from a (1 output)", "LPIPS": ""},
        ),
    ],
)
def test_missing_scores_say_what_they_need(training, validation, outputs, words):
    missing = missing_scores(training, validation, outputs)
    assert missing.keys() == words.keys() and all(words[metric] in missing[metric] for metric in words)


def test_means_are_over_the_scores_that_exist(tmp_path, capsys):
    nan, why = float("nan"), {"KID": "KID has no value for translations into a (1 training image). Reason."}
    by_seed = {seed: {"a2b": Scores(2.0, 0.5, 0.1), "b2a": Scores(4.0, nan, nan)} for seed in (1, 2)}
    means = write_scores(tmp_path, 7, "latent", by_seed, {"missing_scores": why})
    assert (means["FID"], means["KID"], means["LPIPS"], means["KID_std"]) == (3.0, 0.5, 0.1, 0)
    content = json.loads((tmp_path / "KID_00007_latent.json").read_text())
    assert content["KID_latent/b2a"] is None and content["KID_latent/mean"] == 0.5 and content["missing"] == why["KID"]
    assert "missing" not in json.loads((tmp_path / "FID_00007_latent.json").read_text())
    assert "missing_scores" not in (tmp_path / "scores.jsonl").read_text()
    score_table(7, {"latent": by_seed}, why)
    shown = capsys.readouterr().out
    assert "nan: KID has no value for translations into a (1 training image)." in shown
    assert next(line for line in shown.splitlines() if " mean " in line).endswith("0.1 ± 0")
