"""Files of scores."""

import json

import pytest

from core.evaluation.scores import METRICS, Scores, add_to_history, history, missing_scores, score_table, write_scores

NAN = float("nan")


def scores(fid, kid, lpips):
    """Scores of which all but three are 0.5."""
    return Scores(**dict.fromkeys(METRICS, 0.5) | {"FID": fid, "KID": kid, "LPIPS": lpips})


def test_scores_that_cannot_be_computed_are_null(tmp_path):
    """One output has no pairs, one training image no kernel distance; then several seeds have no deviation either."""
    by_seed = {seed: {"a2b": scores(float(seed), NAN, 0.5)} for seed in (1, 3)}
    write_scores(tmp_path, 7, "latent", by_seed, {})
    means = add_to_history(tmp_path, 7, "latent", by_seed, {})
    expected = {"FID": 2.0, "FID_std": pytest.approx(2**0.5), "KID": None, "KID_std": None}
    assert means == {name: 0.5 for name in METRICS} | {f"{name}_std": 0 for name in METRICS} | expected
    content = json.loads((tmp_path / "KID_00007_latent.json").read_text())
    assert content["KID_latent/a2b"] is None and content["std"]["KID_latent/mean"] is None
    assert json.loads((tmp_path / "scores.jsonl").read_text())["FID"] == 2.0


NEIGHBOURS = ("precision", "recall", "density", "coverage")


@pytest.mark.parametrize(
    ("training", "validation", "outputs", "words"),
    [
        ({"a": 9, "b": 9}, {"a": 3, "b": 3}, 2, {}),
        ({"a": 9, "b": 9}, {"a": 6, "b": 6}, 1, {"LPIPS": "--num_outs_per_domain"}),
        ({"a": 1, "b": 9}, {"a": 3, "b": 3}, 2, {
            "KID": "into a (fewer than 2 training images).", **dict.fromkeys(NEIGHBOURS, "a (fewer than 6 training")}),
        ({"a": 9, "b": 5}, {"a": 3, "b": 3}, 2, dict.fromkeys(NEIGHBOURS, "into b (fewer than 6 training images).")),
        ({"a": 9, "b": 9}, {"a": 1, "b": 3}, 2, dict.fromkeys(NEIGHBOURS, "from a (fewer than 6 outputs).")),
        (
            {"a": 9, "b": 1},
            {"a": 1, "b": 6},
            1,
            {"KID": "into b (fewer than 2 training images) and from a (fewer than 2 outputs)", "LPIPS": "",
             **dict.fromkeys(NEIGHBOURS, "")},
        ),
    ],
)  # fmt: skip
def test_missing_scores_say_what_they_need(training, validation, outputs, words):
    missing = missing_scores(training, validation, outputs)
    assert missing.keys() == words.keys() and all(words[metric] in missing[metric] for metric in words)


def test_means_are_over_the_scores_that_exist(tmp_path, capsys):
    why = {"KID": "No KID for translations into a (fewer than 2 training images)."}
    by_seed = {seed: {"a2b": scores(2.0, 0.5, 0.1), "b2a": scores(4.0, NAN, NAN)} for seed in (1, 2)}
    write_scores(tmp_path, 7, "latent", by_seed, {"missing_scores": why})
    means = add_to_history(tmp_path, 7, "latent", by_seed, {"missing_scores": why})
    assert (means["FID"], means["KID"], means["LPIPS"], means["KID_std"]) == (3.0, 0.5, 0.1, 0)
    content = json.loads((tmp_path / "KID_00007_latent.json").read_text())
    assert content["KID_latent/b2a"] is None and content["KID_latent/mean"] == 0.5 and content["missing"] == why["KID"]
    assert "missing" not in json.loads((tmp_path / "FID_00007_latent.json").read_text())
    assert "missing_scores" not in (tmp_path / "scores.jsonl").read_text()
    score_table(7, {"latent": by_seed}, why, 0.98)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  nan: No KID for translations into a (fewer than 2 training") for line in lines)
    assert any("right for 98.0 % of real validation images" in line for line in lines)
    heads, means = (
        [line.split() for line in lines if line.split()[:2] == start]
        for start in (["mode", "task"], ["latent", "mean"])
    )
    assert [name for head in heads for name in head[2:]] == list(METRICS)
    assert means[0][2:5] == ["3", "±", "0"] and means[1][2:5] == ["0.1", "±", "0"]
    assert max(map(len, lines)) < 140


def test_histories_of_earlier_versions_are_read(tmp_path, capsys):
    """They have fewer scores, and the flag --precision under the name of a score."""
    row = {"mode": "latent", "FID": 9.0, "KID": None, "LPIPS": 0.4, "step": 50, "precision": "bf16"}
    (tmp_path / "scores.jsonl").write_text(json.dumps(row) + "\n")
    found = history(tmp_path)[50]["latent"]
    assert (found["FID"], found["LPIPS"], found["precision"], found["accuracy"]) == (9.0, 0.4, None, None)
    assert capsys.readouterr().err == ""
    add_to_history(tmp_path, 60, "latent", {1: {"a2b": scores(2.0, 0.5, 0.1)}}, {"arithmetic": "fp32"})
    assert history(tmp_path)[60]["latent"]["precision"] == 0.5
