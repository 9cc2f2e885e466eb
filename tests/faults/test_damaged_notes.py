"""Damaged side files are skipped with a warning or made again; they never end a run or change a score in silence."""

import json
import os

import pytest

from core.checkpoint.resume import newest_whole_step
from core.checkpoint.steps import FILES, manifest_path
from core.evaluation import features, scores
from core.images.check import check_images
from core.report.page import write_page
from core.report.train_log import TrainLog
from core.sampling.align import read_mean_face
from core.sampling.outputs import write_page as write_results
from core.sampling.snapshots import SMALL
from core.solver import Solver
from core.system.errors import UserError
from core.system.files import clear_away, locked
from core.system.notes import parse_json, read_json_lines
from data.prepare import prepare
from tests.command import NARROW, call, config_of
from tests.runs import FLAGS, read_log

DAMAGED = {
    "infinite": '{"step": 1e999, "mode": "latent", "FID": 1, "iteration": 1e999}',
    "constant": '{"step": 1, "mode": "latent", "FID": NaN, "iteration": 1, "a": Infinity}',
    "huge": '{"step": 1, "mode": "latent", "FID": 1' + "0" * 400 + ', "iteration": 1, "a": 1' + "0" * 400 + "}",
    "many digits": '{"step": 1' + "0" * 5000 + "}",
    "over 64 bits": '{"step": 9223372036854775808, "mode": "latent", "iteration": 9223372036854775808}',
    "deep": "[" * 200_000,
    "deep object": '{"a":' * 200_000,
    "text": "not json",
    "list": "[1]",
    "types": '{"step": "1", "mode": 3, "FID": "low", "iteration": "1"}',
    "truth": '{"step": true, "mode": "latent", "iteration": true}',
    "negative": '{"step": -1, "mode": "latent", "iteration": -1}',
    "null": "\0\0\0\0",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_lines_of_scores_and_logs_are_skipped(kind, tmp_path, capsys):
    good = '{"step": 2, "mode": "latent", "FID": 3.5, "iteration": 2, "a": 1.5}'
    for name in (scores.HISTORY, "train.jsonl"):
        (tmp_path / name).write_text(f"{good}\n{DAMAGED[kind]}\n\n{good[:20]}")
    for _ in range(2):
        assert scores.history(tmp_path)[2]["latent"]["FID"] == 3.5 and scores.best_step(tmp_path, [1, 2]) == 2
    log = TrainLog(tmp_path, 5, branches=False)
    assert log.curve("a") == [(2, 1.5)]
    assert (tmp_path / "train.jsonl").read_text() == f"{good}\n"
    said = capsys.readouterr().err
    for name in (scores.HISTORY, "train.jsonl"):
        assert said.count(f"warning: Skipping 1 damaged line of {tmp_path / name}. ") == 1


def test_bytes_that_are_not_utf_8_and_other_line_ends_are_read(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_bytes(b'{"name": "caf\xe9"}\r\n{"name": "a\xe2\x80\xa8b"}\r\n\xff\xfe\r\n')
    assert [row["name"] for row in read_json_lines(tmp_path / "a.jsonl")] == ["caf\ufffd", "a\u2028b"]
    assert "1 damaged line" in capsys.readouterr().err
    assert read_json_lines(tmp_path / "missing.jsonl") == []


def test_json_numbers_keep_their_values():
    numbers = [-(2**63), 2**63 - 1, 1e38, -0.5, 7]
    assert parse_json(json.dumps(numbers)) == numbers


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_in_the_place_of_notes_do_not_block(tmp_path, capsys):
    for name in (scores.HISTORY, "train.jsonl", "index.html", "real.npz", "mean.npz", ".running.json"):
        os.mkfifo(tmp_path / name)
    assert scores.history(tmp_path) == {} and features.read_features(tmp_path / "real.npz", 3) is None
    said = capsys.readouterr().err
    assert said.count("not a regular file") == 2 and "continues without it" in said
    for work in (lambda: TrainLog(tmp_path, 1, False), lambda: write_page(tmp_path / "index.html", "", [])):
        with pytest.raises(UserError, match="not a regular file"):
            work()
    with pytest.raises(UserError, match="No|Cannot find the mean face"):
        read_mean_face(tmp_path / "mean.npz")


def entry(**changes):
    return json.dumps({"file": "a.png", "source": "s.png", "domain": "cat", "seed": 1} | changes)


def test_damaged_entries_of_results_are_not_shown(tmp_path, capsys):
    (tmp_path / "a.png").touch()
    bad = [{"file": 3}, {"source": None}, {"domain": ["cat"]}, {"seed": "x"}, {"seed": {}}, {"file": "../a.png"}]
    lines = [entry(), *(entry(**change) for change in bad), '{"file": "a.png", "source": "s", "domain": "dog"}']
    lines += [entry(file="a" * 5000), entry(file="\0"), entry(source=f"{'/' * 9}\ud800.png")]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    write_results(tmp_path, [])
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "To cat" in html and "To dog" not in html and "../a.png" not in html and "aaa" not in html
    assert "Skipping 6 damaged lines" in capsys.readouterr().err


@pytest.mark.parametrize("change", [
    "", "[1]", "[" * 200_000, '{"PATH": 1}', '{"PATH": [STAMP]}', '{"PATH": [STAMP, {"width": 1e999}]}',
    '{"PATH": [STAMP, {"broken": 3}]}', '{"PATH": [STAMP, {"width": "64", "height": 64, "grey": false}]}',
    '{"PATH": [STAMP, {"width": 0, "height": 64, "grey": false}]}', '{"PATH": [STAMP, []]}', "\xff",
])  # fmt: skip
def test_damaged_caches_of_checked_images_are_made_again(change, two_domains, tmp_path, capsys):
    cache, root = tmp_path / ".train_img_dir.json", two_domains / "train"
    assert check_images(root, "train_img_dir", 64, cache) == set()
    whole = json.loads(cache.read_text())
    path, (stamp, _) = next(iter(whole.items()))
    cache.write_text(change.replace("PATH", path).replace("STAMP", json.dumps(stamp)), encoding="latin-1")
    assert check_images(root, "train_img_dir", 64, cache) == set()
    assert json.loads(cache.read_text()) == whole and "warning" not in capsys.readouterr().err


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    """A folder with a saved step."""
    folder = tmp_path_factory.mktemp("step")
    Solver(config_of("train", *NARROW.split(), "--checkpoint_dir", folder, domains=("a", "b"))).save(1)
    return folder


MANIFESTS = [
    "",
    "[" * 200_000,
    "[]",
    '{"step": 1}',
    '{"step": 1, "files": 3}',
    "\xff",
    '{"step": 1, "files": {"FILE": 1}}',
]


@pytest.mark.parametrize("content", MANIFESTS)
def test_damaged_manifests_are_made_again(content, step, capsys):
    path = manifest_path(step, 1)
    whole = path.read_bytes()
    path.write_text(content, encoding="latin-1")
    assert newest_whole_step(step) == 1
    assert capsys.readouterr().err.count("warning: Ignoring the damaged file") == 1
    assert path.read_bytes() == whole


def test_manifests_of_another_step_or_kind_are_made_again(step, capsys):
    path = manifest_path(step, 1)
    whole = json.loads(path.read_text())
    name = FILES[0].format(1)
    for change in ({"step": 2}, {"files": whole["files"] | {name: {"sha256": 3}}}, {"files": {}}):
        path.write_text(json.dumps(whole | change))
        assert newest_whole_step(step) == 1 and json.loads(path.read_text()) == whole
    assert capsys.readouterr().err.count("warning: Ignoring the damaged file") == 3


def test_damaged_weights_beside_a_damaged_manifest_are_noticed(step, capsys):
    """The file's own checksums replace those of the manifest."""
    path, manifest = step / FILES[0].format(1), manifest_path(step, 1)
    whole, list_of_files = path.read_bytes(), manifest.read_bytes()
    manifest.write_text("")
    path.write_bytes(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :])
    with pytest.raises(UserError, match="^No complete step"):
        newest_whole_step(step)
    assert f"wrong checksum of {path.name}" in capsys.readouterr().err
    path.write_bytes(whole)
    manifest.write_bytes(list_of_files)


@pytest.mark.parametrize(
    "line", ["[" * 200_000, '{"output": 3}', '{"output": ["a"]}', "\xff", '{"output": "../x.jpg"}']
)
def test_data_prepare_does_not_use_damaged_lists(line, photographs, tmp_path):
    """It removes files that the list names, so it does not guess."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "prepared.jsonl").write_text(line, encoding="latin-1")
    with pytest.raises(UserError, match=r"^Cannot update --out .*prepared.jsonl is damaged"):
        prepare(photographs, out)


def test_leftovers_are_removed_whatever_their_time(tmp_path):
    def leave(folder):
        folder.mkdir(exist_ok=True)
        for number, moment in enumerate((0, 1e9, 4e9)):
            (folder / f".writing-{number}-a.ckpt").write_text("half")
            os.utime(folder / f".writing-{number}-a.ckpt", (moment, moment))
        (folder / ".writing-3-a.ckpt").write_text("half")

    leave(tmp_path)
    clear_away(tmp_path, older_than=3600)
    assert [path.name for path in tmp_path.iterdir()] == [".writing-3-a.ckpt"], "another program may be writing it"
    leave(tmp_path)
    (tmp_path / ".running.json").write_text("[" * 200_000)
    with locked(tmp_path):
        assert not list(tmp_path.glob(".writing*"))
        with pytest.raises(UserError, match="another run uses it"), locked(tmp_path):
            pass


def test_a_training_ends_well_beside_damaged_notes(two_domains, tmp_path, capsys):
    """Scores, log, cache, page and leftovers at once; then the training resumes although its manifest is damaged."""
    folders = {name: tmp_path / name for name in ("checkpoint_dir", "sample_dir", "eval_dir")}
    (folders["sample_dir"] / SMALL).mkdir(parents=True)
    for folder in (folders["sample_dir"], folders["sample_dir"] / SMALL, folders["eval_dir"]):
        folder.mkdir(exist_ok=True)
        (folder / ".writing-1-x.jpg").write_bytes(b"half")
        os.utime(folder / ".writing-1-x.jpg", (4e9, 4e9))
    folders["checkpoint_dir"].mkdir()
    (folders["checkpoint_dir"] / ".train_img_dir.json").write_text("[" * 200_000)
    for path in (folders["eval_dir"] / scores.HISTORY, folders["sample_dir"] / "train.jsonl"):
        path.write_text("\n".join(DAMAGED.values()) + "\n")
    (folders["sample_dir"] / "options.json").write_text("{")
    images = {"train_img_dir": two_domains / "train", "val_img_dir": two_domains / "val"}
    flags = f"{FLAGS} --save_every 1 --keep_checkpoints 1"
    assert call("train", f"{flags} --total_iters 2", **images, **folders) == 0
    manifest = manifest_path(folders["checkpoint_dir"], 2)
    assert manifest.is_file() and not list(tmp_path.rglob(".writing*"))
    assert len(read_log(folders["sample_dir"])) == 2
    manifest.write_text("[" * 200_000)
    capsys.readouterr()
    assert call("train", f"{flags} --total_iters 3 --resume_iter latest", **images, **folders) == 0
    said = capsys.readouterr()
    assert said.err.count("Ignoring the damaged file") == 1 and "Loaded step 2" in said.out, said.err
