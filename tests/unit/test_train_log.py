"""The log of a training: train.jsonl and its curves."""

import math

from core.report.train_log import TrainLog, cut_lines
from tests.runs import read_log


def test_curves_of_many_lines_are_means(tmp_path):
    log = TrainLog(tmp_path, 0, branches=True)
    for iteration in range(1, 1201):
        log.add({"iteration": iteration, "a": float(iteration), "b": math.nan if iteration % 2 else 1.0})
    points = log.curve("a")
    assert len(points) == 400 and points[0] == (3, 2.0) and points[-1] == (1200, 1199.0)
    assert log.curve("b")[-1] == (1200, 1.0) and log.last("b") == 1.0 and log.curve("c") == []
    assert read_log(tmp_path)[0]["b"] is None
    again = TrainLog(tmp_path, 900, branches=False)
    assert (
        len(again.points["iteration"][0]) == 900 and again.curve("a")[-1][0] == 900 and len(read_log(tmp_path)) == 900
    )


def test_invalid_and_later_lines_are_removed(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"iteration": 1}\nnot json\n[3]\n{"iteration": "x"}\n{"iteration": 2}\n{"iteration": 9}\n{"it')
    assert cut_lines(path, 5, branches=False) == [{"iteration": 1}, {"iteration": 2}]
    assert path.read_text() == '{"iteration": 1}\n{"iteration": 2}\n'


def test_an_unwritable_log_does_not_stop_the_run(tmp_path, capsys):
    log = TrainLog(tmp_path, 0, branches=True)
    (tmp_path / "train.jsonl").mkdir()
    for iteration in (1, 2):
        log.add({"iteration": iteration, "a": 1.0})
    assert capsys.readouterr().err.count("Cannot write") == 1 and len(log.curve("a")) == 2


def test_a_torn_line_damages_no_other_line(tmp_path):
    log = TrainLog(tmp_path, 0, True)
    log.add({"iteration": 1})
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"iterat')  # as on a full disk
    log.torn = True
    log.add({"iteration": 3})
    assert [row["iteration"] for row in cut_lines(tmp_path / "train.jsonl", 9, False)] == [1, 3]


def test_unwritable_tensorboard_events_do_not_stop_the_run(tmp_path, capsys):
    class Full:
        def add_scalar(self, *_):
            raise OSError(28, "No space left on device")

    log = TrainLog(tmp_path, 0, True)
    log.events = Full()
    log.add({"iteration": 1, "loss": 1.0})
    log.add({"iteration": 2, "loss": 1.0})
    log.close()
    assert capsys.readouterr().err.count("TensorBoard logging is disabled") == 1
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == 2
