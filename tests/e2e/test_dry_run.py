"""--dry_run writes nothing, and its estimates match what a run does."""

import re
import subprocess
import sys

import pytest

import main
from benchmarks.train_step import make_inputs
from core.cli.config import RunConfig
from core.dry_run import cost
from core.solver import Solver
from tests.command import NARROW, ROOT, RUN, as_flags, call

WITHIN = 0.25  # the measured peak of memory
SOME = "--device cpu --w_hpf 0 --img_size 128 --channel_base 4096 --max_conv_dim 128 --num_workers 0 --val_batch_size 4"
MEASURED = """
import sys, torch, main
from core.system.memory import peak_memory
status = main.main(sys.argv[1:])
print("peak", peak_memory(torch.device("cpu")))
sys.exit(status)
"""


def tree(*folders):
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}


def promised(said):
    """The largest estimated peak of memory, in bytes."""
    return max(float(text) * 1e9 for text in re.findall(r"Peak memory, .*: about ([\d.]+) GB", said))


def measured(mode, flags, folders):
    line = [sys.executable, "-c", MEASURED, "--mode", mode, *flags.split(), *as_flags(folders)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1].split()[1])


def told(mode, flags, folders):
    line = [sys.executable, "main.py", "--dry_run", "--mode", mode, *flags.split(), *as_flags(folders)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system's figures are read")


@linux
def test_estimates_of_training_match_a_run(data, tmp_path):
    folders = {**data, "checkpoint_dir": tmp_path / "checkpoints", "sample_dir": tmp_path / "samples"}
    flags = f"{SOME} --batch_size 4 --total_iters 2 --sample_every 2 --num_outs_per_domain 1"
    said = told("train", flags, folders)
    assert not list(tmp_path.iterdir())
    assert promised(said) == pytest.approx(measured("train", flags, folders), rel=WITHIN)
    unit = {"": 1, "k": 1e3, "M": 1e6}
    size, prefix = re.search(r"checkpoints: 1 checkpoint \(.*about ([\d.]+) (\w?)B", said).groups()
    saved = sum(path.stat().st_size for path in (tmp_path / "checkpoints").glob("*.ckpt"))
    assert float(size) * unit[prefix] == pytest.approx(saved, rel=0.05)
    assert "bear       12 images, 0 skipped, shorter sides 64 to 64 px (median 64), 12 below --img_size 128" in said
    assert "  * batch_size           4\n" in said and "    beta1                0.0\n" in said


@linux
def test_estimates_of_sampling_and_evaluation_match_a_run(run, faces, data, tmp_path, torch_cache):
    """Grids and images that matter beside the memory of the program itself."""
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "ref_dir": faces / "val", "src_dir": faces / "train"}
    folders["result_dir"] = tmp_path / "results"
    flags = "--device cpu --outputs reference,latent --num_workers 0"
    said = told("sample", flags, folders)
    assert promised(said) == pytest.approx(measured("sample", flags, folders), rel=WITHIN)
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "eval_dir": tmp_path / "eval", **data}
    flags = "--device cpu --num_workers 0 --num_outs_per_domain 2"
    said = told("eval", flags, folders)
    assert not (tmp_path / "eval").exists() and "scores and 36 images of 6 tasks" in said
    assert promised(said) == pytest.approx(measured("eval", flags, folders), rel=WITHIN)
    assert len(list((tmp_path / "eval").rglob("*.png"))) == 36


@pytest.mark.slow
@linux
@pytest.mark.parametrize("more", ["", "--precision bf16", "--micro_batch 1"])
def test_memory_estimates_match_at_full_width(more, data, tmp_path):
    folders = {**data, "checkpoint_dir": tmp_path / "checkpoints", "sample_dir": tmp_path / "samples"}
    flags = "--device cpu --w_hpf 0 --batch_size 2 --total_iters 2 --sample_every 0 --num_workers 0 --val_batch_size 2"
    flags = f"{flags} {more}"
    said = told("train", flags, folders)
    assert promised(said) == pytest.approx(measured("train", flags, folders), rel=WITHIN)


@pytest.mark.parametrize("mode", ["train", "sample", "eval"])
def test_nothing_is_written(mode, run, faces, data, tmp_path, monkeypatch, capsys):
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": faces / "val", "ref_dir": faces / "val"}
    folders |= {**data, "sample_dir": tmp_path / "s", "result_dir": tmp_path / "r", "eval_dir": tmp_path / "e"}
    flags = {
        "train": f"{RUN} --resume_iter latest --total_iters 9 --override",
        "sample": "--outputs reference,latent,video_ref,images",
        "eval": "",
    }
    monkeypatch.chdir(tmp_path)
    (folders["checkpoint_dir"] / "000002_manifest.json").unlink(missing_ok=True)  # a run would write it again
    before = tree(faces, run[1]["checkpoint_dir"], tmp_path)
    assert call(mode, f"{flags[mode]} --device cpu --dry_run", **folders) == 0
    assert tree(faces, run[1]["checkpoint_dir"], tmp_path) == before
    said = capsys.readouterr().out
    assert re.search(
        r"^  bear +\d+ images|(References|--val_img_dir): bear \(\d+\), cat \(\d+\), dog \(\d+\)", said, re.M
    )
    assert "Would write (dry run, nothing is written):" in said
    assert "Peak memory" in said and "parameters" in said and "FLOP" in said


def test_user_errors_are_reported(data, tmp_path, capsys):
    assert call("train", f"{NARROW} --dry_run --num_domains 2", **data) == 2
    assert "but --num_domains is 2" in capsys.readouterr().err
    assert call("sample", "--dry_run", checkpoint_dir=tmp_path) == 2
    assert "No checkpoint named like" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--val_batch_size 3000", "a JPEG holds at most 2045 of 32 px"),
        ("--precision tf32", "tf32 needs CUDA"),
        ("--img_size 16 --eval_every 1", "evaluation needs at least 2 domains and 32 px"),
    ],
)
def test_dry_run_refuses_what_the_run_refuses(flags, said, data, tmp_path, capsys):
    where = {**data, "checkpoint_dir": tmp_path / "c", "sample_dir": tmp_path / "s", "eval_dir": tmp_path / "e"}
    for dry in ("--dry_run", ""):
        assert call("train", f"{RUN} --total_iters 1 {flags} {dry}", **where) == 2
        assert said in capsys.readouterr().err


def test_missing_metric_weights_are_warned_about(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert call("train", f"{RUN} --total_iters 1 --eval_every 1 --dry_run", **data) == 0
    said = capsys.readouterr().err
    assert said.count("Evaluation needs") == 2 and "Pass --eval_every 0 to train without" in said


def test_too_little_memory_and_disk_are_warned_about(data, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("core.dry_run.report.memory_of", lambda device: 10**8)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    monkeypatch.chdir(tmp_path)
    assert call("train", f"{RUN} --dry_run", **data) == 0
    said = capsys.readouterr().err
    assert "exceeds the available memory" in said and ", but only 1 kB are free." in said


@pytest.mark.parametrize("flags", ["", "--precision bf16", "--micro_batch 1", "--channels_last"])
def test_counted_flops_equal_those_of_an_iteration(flags):
    """An iteration that is really computed has the same count."""
    args = main.parse_args(["--mode", "train", *RUN.split(), "--num_domains", "3", *flags.split()])
    solver = Solver(args)
    with cost.Counter() as counter:
        solver.train_step(make_inputs(args, solver.device), 0)
    assert cost.training(RunConfig.from_args(args), args.batch_size).flops == counter.flops > 1e8


def test_masks_cost_more_flops_and_memory(data, tmp_path, capsys):
    """An iteration with the face network costs more."""
    plain = main.parse_args(["--mode", "train", *RUN.split()])
    masked = main.parse_args(["--mode", "train", *RUN.split(), "--w_hpf", "1"])
    costs = [cost.training(RunConfig.from_args(args), 2) for args in (plain, masked)]
    assert costs[1].flops > costs[0].flops and costs[1].held > costs[0].held + 6_333_603 * 4
