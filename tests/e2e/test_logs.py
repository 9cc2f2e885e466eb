"""train.jsonl, options.json and TensorBoard's events of whole runs."""

import json

import pytest

from tests.command import call
from tests.runs import FLAGS, folders, read_log


def test_train_log_has_a_line_per_printed_line(run):
    printed = [line for line in run[0].stdout.splitlines() if line.startswith("Elapsed")]
    rows = read_log(run[1]["sample_dir"])
    assert [row["iteration"] for row in rows] == [1, 2] and len(printed) == 2
    for row, line in zip(rows, printed, strict=True):
        losses = {name: value for name, value in row.items() if "/" in name}
        assert all(f"{name}: [{value:.4f}]" in line for name, value in losses.items()) and len(losses) == 19
        assert row["it_per_s"] > 0 and 0 <= row["data_s"] < 1 / row["it_per_s"] and 0.1 < row["memory_gb"] < 20
        assert row["skipped_updates"] == 0 and row["time"].startswith("20") and row["elapsed_s"] >= 0


def test_options_json_holds_settings_and_counts(run):
    folders = run[1]
    options = json.loads((folders["sample_dir"] / "options.json").read_text())
    assert options["settings"]["batch_size"] == 2 and options["settings"]["mode"] == "train"
    assert options["settings"]["train_img_dir"] == str(folders["train_img_dir"])
    assert options["training_images"] == {"bear": 12, "cat": 12, "dog": 12} and "torch" in options["versions"]
    assert options["validation_images"] == {"bear": 3, "cat": 3, "dog": 3} and options["resumed_from"] == 0
    assert options["parameters"].keys() == {"generator", "mapping_network", "style_encoder", "discriminator"}


def test_a_resumed_run_continues_its_log(data, tmp_path):
    """Lines after the resumed step are written again; a new or a branching run keeps the old file."""
    where = folders(tmp_path, data) | {"log_dir": tmp_path / "logs"}
    assert call("train", f"{FLAGS} --total_iters 3 --save_every 2", **where) == 0
    first = read_log(where["log_dir"])
    assert [row["iteration"] for row in first] == [1, 2, 3]
    (tmp_path / "checkpoints" / "000003_optims.ckpt").unlink()  # as if killed while saving
    (tmp_path / "checkpoints" / "000003_manifest.json").unlink()
    with (where["log_dir"] / "train.jsonl").open("a") as file:
        file.write('{"iteration": 4, "D/la')
    assert call("train", "--resume_iter latest --device cpu --total_iters 4", **where) == 0
    second = read_log(where["log_dir"])
    assert [row["iteration"] for row in second] == [1, 2, 3, 4] and second[:2] == first[:2]
    assert second[2]["D/latent_real"] == first[2]["D/latent_real"] and not list(tmp_path.rglob("*earlier*.jsonl"))
    assert call("train", "--resume_iter 2 --device cpu --total_iters 3 --override --lr 0.1", **where) == 0
    assert [row["iteration"] for row in read_log(where["log_dir"])] == [1, 2, 3]
    assert len((where["log_dir"] / "train_earlier_1.jsonl").read_text().splitlines()) == 4
    assert not (tmp_path / "samples" / "train.jsonl").exists() and (tmp_path / "samples" / "index.html").exists()


def test_tensorboard_events_equal_the_log(data, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    where = folders(tmp_path, data)
    assert call("train", f"{FLAGS} --total_iters 2 --tensorboard", **where) == 0
    events = accumulator.EventAccumulator(str(where["sample_dir"])).Reload()
    for row in read_log(where["sample_dir"]):
        for name in ("D/latent_real", "G/ref_cyc", "it_per_s", "memory_gb"):
            found = {event.step: event.value for event in events.Scalars(name)}
            assert found[row["iteration"]] == pytest.approx(row[name], rel=1e-6)


def test_missing_tensorboard_is_an_error(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    assert call("train", f"{FLAGS} --total_iters 2 --tensorboard", **folders(tmp_path, data)) == 2
    assert "pip install tensorboard" in capsys.readouterr().err
