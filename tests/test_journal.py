"""train.jsonl, options.json and TensorBoard's events."""

import json
import math

import pytest

from core.report.train_log import TrainLog, take_up
from tests.command import call
from tests.runs import FLAGS, folders


def lines(folder):
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_a_line_for_each_printed_one(run):
    printed = [line for line in run[0].stdout.splitlines() if line.startswith("Elapsed")]
    rows = lines(run[1]["sample_dir"])
    assert [row["iteration"] for row in rows] == [1, 2] and len(printed) == 2
    for row, line in zip(rows, printed, strict=True):
        losses = {name: value for name, value in row.items() if "/" in name}
        assert all(f"{name}: [{value:.4f}]" in line for name, value in losses.items()) and len(losses) == 17
        assert row["it_per_s"] > 0 and 0 <= row["data_s"] < 1 / row["it_per_s"] and 0.1 < row["memory_gb"] < 20
        assert row["skipped_updates"] == 0 and row["time"].startswith("20") and row["elapsed_s"] >= 0


def test_settings(run):
    folders = run[1]
    options = json.loads((folders["sample_dir"] / "options.json").read_text())
    assert options["settings"]["batch_size"] == 2 and options["settings"]["mode"] == "train"
    assert options["settings"]["train_img_dir"] == str(folders["train_img_dir"])
    assert options["training_images"] == {"bear": 12, "cat": 12, "dog": 12} and "torch" in options["versions"]
    assert options["validation_images"] == {"bear": 3, "cat": 3, "dog": 3} and options["resumed_from"] == 0
    assert options["parameters"].keys() == {"generator", "mapping_network", "style_encoder", "discriminator"}


def test_a_resumed_run_goes_on_with_its_lines(data, tmp_path):
    """Lines after the step it goes on from are written anew; a new or a branching run keeps the old file."""
    where = folders(tmp_path, data) | {"log_dir": tmp_path / "logs"}
    assert call("train", f"{FLAGS} --total_iters 3 --save_every 2", **where) == 0
    first = lines(where["log_dir"])
    assert [row["iteration"] for row in first] == [1, 2, 3]
    (tmp_path / "checkpoints" / "000003_optims.ckpt").unlink()  # as if killed while saving
    (tmp_path / "checkpoints" / "000003_manifest.json").unlink()
    with (where["log_dir"] / "train.jsonl").open("a") as file:
        file.write('{"iteration": 4, "D/la')
    assert call("train", "--resume_iter latest --device cpu --total_iters 4", **where) == 0
    second = lines(where["log_dir"])
    assert [row["iteration"] for row in second] == [1, 2, 3, 4] and second[:2] == first[:2]
    assert second[2]["D/latent_real"] == first[2]["D/latent_real"] and not list(tmp_path.rglob("*earlier*.jsonl"))
    assert call("train", "--resume_iter 2 --device cpu --total_iters 3 --override --lr 0.1", **where) == 0
    assert [row["iteration"] for row in lines(where["log_dir"])] == [1, 2, 3]
    assert len((where["log_dir"] / "train_earlier_1.jsonl").read_text().splitlines()) == 4
    assert not (tmp_path / "samples" / "train.jsonl").exists() and (tmp_path / "samples" / "index.html").exists()


def test_curves_of_many_lines_are_means(tmp_path):
    journal = TrainLog(tmp_path, 0, branches=True)
    for iteration in range(1, 1201):
        journal.add({"iteration": iteration, "a": float(iteration), "b": math.nan if iteration % 2 else 1.0})
    points = journal.curve("a")
    assert len(points) == 400 and points[0] == (3, 2.0) and points[-1] == (1200, 1199.0)
    assert journal.curve("b")[-1] == (1200, 1.0) and journal.last("b") == 1.0 and journal.curve("c") == []
    assert lines(tmp_path)[0]["b"] is None
    again = TrainLog(tmp_path, 900, branches=False)
    assert again.length == 900 and again.curve("a")[-1][0] == 900 and len(lines(tmp_path)) == 900


def test_lines_of_others_leave(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"iteration": 1}\nnot json\n[3]\n{"iteration": "x"}\n{"iteration": 2}\n{"iteration": 9}\n{"it')
    assert take_up(path, 5, branches=False) == [{"iteration": 1}, {"iteration": 2}]
    assert path.read_text() == '{"iteration": 1}\n{"iteration": 2}\n'


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path, capsys):
    journal = TrainLog(tmp_path, 0, branches=True)
    (tmp_path / "train.jsonl").mkdir()
    for iteration in (1, 2):
        journal.add({"iteration": iteration, "a": 1.0})
    assert capsys.readouterr().err.count("cannot be written") == 1 and len(journal.curve("a")) == 2


def test_a_torn_line_costs_no_other(tmp_path):
    journal = TrainLog(tmp_path, 0, True)
    journal.add({"iteration": 1})
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"iterat')  # as on a full disk
    journal.torn = True
    journal.add({"iteration": 3})
    assert [row["iteration"] for row in take_up(tmp_path / "train.jsonl", 9, False)] == [1, 3]


def test_events_that_cannot_be_written_end_nothing(tmp_path, capsys):
    class Full:
        def add_scalar(self, *_):
            raise OSError(28, "No space left on device")

    journal = TrainLog(tmp_path, 0, True)
    journal.events = Full()
    journal.add({"iteration": 1, "loss": 1.0})
    journal.add({"iteration": 2, "loss": 1.0})
    journal.close()
    assert capsys.readouterr().err.count("events for TensorBoard") == 1
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == 2


def test_tensorboard(data, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    where = folders(tmp_path, data)
    assert call("train", f"{FLAGS} --total_iters 2 --tensorboard", **where) == 0
    events = accumulator.EventAccumulator(str(where["sample_dir"])).Reload()
    for row in lines(where["sample_dir"]):
        for name in ("D/latent_real", "G/ref_cyc", "it_per_s", "memory_gb"):
            found = {event.step: event.value for event in events.Scalars(name)}
            assert found[row["iteration"]] == pytest.approx(row[name], rel=1e-6)


def test_tensorboard_that_is_missing(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    assert call("train", f"{FLAGS} --total_iters 2 --tensorboard", **folders(tmp_path, data)) == 2
    assert "pip install tensorboard" in capsys.readouterr().err
