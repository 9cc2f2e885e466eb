"""Runs of several processes give the results of one."""

import contextlib
import io
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from munch import Munch

import main
from benchmarks.distributed import update_by_ddp
from benchmarks.train_step import make_inputs
from core.data_loader import InputFetcher, get_train_loader
from core.evaluation.per_image import NUMBERS
from core.evaluation.scores import METRICS
from core.images.folders import check_same_on_all_ranks
from core.solver import Solver
from core.system import console, distributed
from core.system.errors import PeerError, UserError
from tests import processes
from tests.command import NARROW, line_of
from tests.processes import FLAGS, SHORT, ended, in_ranks, start_ranks
from tests.runs import folders, losses, state, steps


def train_in_double(data, folder, flags):
    """Train five iterations in float64; rank 0 saves the losses and the state of all modules."""
    torch.set_num_threads(1)
    line = ["--mode", "train", "--num_domains", "3", *FLAGS.split(), *flags.split(), "--checkpoint_dir", str(folder)]
    with distributed.process_group():
        args = main.parse_args(line)
        solver = Solver(args)
        if not distributed.is_main_process():  # so that equal weights must come from rank 0
            for network in solver.nets.values():
                torch.nn.init.zeros_(next(network.parameters()))
        for network in [*solver.nets.values(), *solver.nets_ema.values()]:
            network.double()
        if args.augment == "ada" and distributed.is_main_process():
            solver.augmentation.p.fill_(0.5)  # which the other ranks must get
        solver.broadcast()
        loaders = [get_train_loader(data, which, 32, 8, num_workers=0) for which in ("source", "reference")]
        fetcher, found = InputFetcher(*loaders), []
        for iteration in range(5):
            inputs = {n: x.double() if x.is_floating_point() else x for n, x in next(fetcher).items()}
            found.append(solver.train_step(Munch(inputs), iteration))
        if distributed.is_main_process():
            solver.save(5)
            learned = [module.state_dict() for module in solver.files.modules()]
            torch.save({"losses": found, "learned": learned}, folder / "found.pt")


@pytest.fixture(scope="module")
def alone(request, data, tmp_path_factory):
    """A training in one process -> (--augment, folder, content of found.pt)."""
    folder, augment = tmp_path_factory.mktemp("alone"), f"--augment {request.param}"
    assert in_ranks(1, train_in_double, data["train_img_dir"], folder, augment) == [0]
    return augment, folder, torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.parametrize(
    ("alone", "world", "flags"),
    [("none", 2, ""), ("none", 4, ""), ("none", 2, "--micro_batch 3"), ("ada", 2, "--micro_batch 3")],
    indirect=["alone"],
)
def test_losses_and_weights_do_not_depend_on_world_size(world, flags, alone, data, tmp_path):
    augment, folder, expected = alone
    flags = f"{augment} {flags}"
    assert in_ranks(world, train_in_double, data["train_img_dir"], tmp_path, flags) == [0] * world
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    torch.testing.assert_close(found["losses"], expected["losses"], rtol=0, atol=1e-8)
    torch.testing.assert_close(found["learned"], expected["learned"], rtol=0, atol=1e-8)
    line = ["--mode", "train", "--num_domains", "3", *FLAGS.split(), *augment.split(), "--checkpoint_dir"]
    for where in (tmp_path, folder):  # files of either load in one process
        Solver(main.parse_args([*line, str(where)])).load(5)


def train_by_ddp():
    """In each of two ranks: an iteration with the benchmark's DistributedDataParallel gives the program's weights."""
    torch.set_num_threads(1)
    with distributed.process_group():
        weights, wrapped = [], {}
        for by_ddp in (False, True):
            solver = Solver(main.parse_args(["--mode", "train", "--num_domains", "3", *FLAGS.split()]))
            whole = make_inputs(solver.config, solver.device)
            inputs = Munch({key: tensor[distributed.shard(8)] for key, tensor in whole.items()})
            if by_ddp:
                solver.iteration.update = partial(update_by_ddp, solver, wrapped)
            solver.train_step(inputs, 0)
            weights.append(torch.cat([p.detach().flatten() for net in solver.nets.values() for p in net.parameters()]))
        assert len(wrapped) == 3, "the updates did not use DistributedDataParallel"
        torch.testing.assert_close(*weights, rtol=0, atol=1e-5)


def test_the_benchmark_of_ddp_computes_the_same():
    assert in_ranks(2, train_by_ddp) == [0, 0]


def close(found, expected):
    """Within rounding: Adam moves a bias by the learning rate even where its gradient is only rounding."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def single(data, tmp_path_factory):
    """A run in a single process, from its command line -> (folder, what it printed)."""
    folder = tmp_path_factory.mktemp("single")
    assert ended([processes.start(line_of("train", SHORT, folders(folder, data)), folder / "console")]) == [0]
    return folder, (folder / "console").read_text()


@pytest.fixture(scope="module")
def double(data, tmp_path_factory):
    """The same run by two processes -> (folder, what each printed)."""
    folder = tmp_path_factory.mktemp("double")
    started = start_ranks(line_of("train", SHORT, folders(folder, data)), folder / "consoles", 2)
    assert ended(started) == [0, 0]
    return folder, [(folder / "consoles" / str(rank)).read_text() for rank in range(2)]


def test_only_rank_0_writes_and_prints(single, double):
    (folder, said), (other, (first, second)) = single, double
    assert second == ""
    assert "Device: 2 processes, each on cpu" in first
    assert list(losses(first)) == list(losses(said)) == [1, 2, 3, 4]
    names = [sorted(p.relative_to(f).as_posix() for p in f.rglob("*.*") if p.is_file()) for f in (folder, other)]
    assert names[0] == names[1] and "checkpoints/000004_nets.ckpt" in names[0]
    assert "samples/000004_reference.jpg" in names[0]
    close(state(folder, 4)[0]["generator"], state(other, 4)[0]["generator"])


def test_a_run_can_resume_with_another_world_size(single, double, data, tmp_path):
    """From two processes to one, and from one to two."""
    flags = "--device cpu --resume_iter 4 --total_iters 5 --sample_every 0"
    for (folder, _), world in ((single, 2), (double, 1)):
        where = {"checkpoint_dir": folder / "checkpoints", "sample_dir": tmp_path}
        started = start_ranks(line_of("train", flags, where), tmp_path / str(world), world)
        assert ended(started) == [0] * world
        assert steps(folder)[-1] == 5
    close(state(single[0], 5)[1]["generator"], state(double[0], 5)[1]["generator"])


def test_user_errors_are_printed_once_and_end_all_ranks(data, tmp_path):
    for flags, sentence in {
        "--batch_size 5": "error: --batch_size must be a multiple of 2, the number of processes (4 or 6), got 5.\n",
        "--batch_size 1": "error: --batch_size must be a multiple of 2, the number of processes (2), got 1.\n",
        "--batch_size x": "error: --batch_size must be an integer >= 1, got x.",
        "--precision tf32": "error: --precision must be fp32 or bf16 on cpu (tf32 needs CUDA)",
        "--resume_iter 7": "error: ",
    }.items():
        started = start_ranks(line_of("train", f"{SHORT} {flags}", folders(tmp_path, data)), tmp_path, 2)
        assert ended(started) == [2, 2]
        said = [(tmp_path / str(rank)).read_text() for rank in range(2)]
        assert said[0].splitlines()[-1].startswith(sentence.strip()) and said[1] == ""


def test_scores_do_not_depend_on_world_size(faces, torch_cache, tmp_path, parse):
    """Three processes are more than there are tasks."""
    shutil.copytree(faces, tmp_path / "faces", ignore=shutil.ignore_patterns("dog", "0000[5-9]*", "0001*"))
    Solver(parse("train", "--num_domains 2", checkpoint_dir=tmp_path)).save(4)
    flags = f"{NARROW} --num_workers 0 --val_batch_size 2 --num_outs_per_domain 2 --resume_iter 4"
    scores, rows, shown = {}, {}, {}
    for world in (1, 3):
        folder = tmp_path / str(world)
        parts = {f"{part}_img_dir": tmp_path / "faces" / part for part in ("train", "val")}
        where = {**parts, "checkpoint_dir": tmp_path, "eval_dir": folder}
        started = start_ranks(line_of("eval", flags, where), folder, world, TORCH_HOME=str(torch_cache.parents[1]))
        assert ended(started, 300) == [0] * world
        assert all((folder / str(rank)).read_text() == "" for rank in range(1, world))
        found = {path.name: json.loads(path.read_text()) for path in folder.glob("[!.]*.json")}
        entries = [entry for file in found.values() for entry in file.items() if "/" in entry[0]]
        scores[world] = {name: np.nan if score is None else score for name, score in entries}
        pictures = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
        assert len(pictures) == 2 * 3 * 2 and "bear2cat/0003_02.png" in pictures
        rows[world] = [json.loads(line) for line in (folder / "per_image.jsonl").read_text().splitlines()]
        shown[world] = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.jpg")}
    assert len(scores[1]) == 2 * len(METRICS) * 3 and len(rows[1]) == 2 * 2 * 3 * 2
    assert len(shown[1]) == 2 * 12  # modes, outputs: all are among the best 24
    assert scores[3] == pytest.approx(scores[1], rel=1e-6, abs=1e-6, nan_ok=True)
    for row, expected in zip(rows[3], rows[1], strict=True):
        numbers, others = ([part[name] or 0 for name in NUMBERS] for part in (row, expected))
        assert numbers == pytest.approx(others, rel=1e-5)
        assert row.keys() == expected.keys() and row["style"] == expected["style"]
    assert shown[3] == shown[1]


def test_only_rank_0_samples(double, tmp_path):
    flags = "--device cpu --num_workers 0 --outputs reference"
    where = {"checkpoint_dir": double[0] / "checkpoints", "result_dir": tmp_path}
    line = [*line_of("sample", flags, where), "--src_dir", "assets/representative/demo/src"]
    started = start_ranks([*line, "--ref_dir", "assets/representative/demo/src"], tmp_path, 2)
    assert ended(started) == [0, 0]
    assert (tmp_path / "reference.jpg").is_file() and (tmp_path / "1").read_text() == ""


def test_different_images_on_ranks_are_refused(data):
    assert in_ranks(2, compare_images, data["train_img_dir"]) == [0, 0]


def compare_images(root):

    with distributed.process_group():
        paths = [path for path, _ in get_train_loader(root, num_workers=0).dataset.dataset.samples]
        check_same_on_all_ranks(paths, root)  # nothing is raised
        if not distributed.is_main_process():
            paths = paths[1:]
        with pytest.raises(
            PeerError if distributed.is_main_process() else UserError,
            match="" if distributed.is_main_process() else "differ from those on rank 0",
        ):
            check_same_on_all_ranks(paths, root)


@pytest.mark.parametrize(
    ("mode", "flags", "difference"),
    [
        ("train", "--lr 0.5", "--lr is 0.5, but 0.0001 on rank 0"),
        (
            "train",
            "--seed 5 --max_conv_dim 8",
            "--max_conv_dim is 8, but 16 on rank 0 and --seed is 5, but 777 on rank 0",
        ),
        ("train", "--dry_run", "--dry_run is True, but False on rank 0"),
        ("train", "--total_iters 5", "--total_iters is 5, but 4 on rank 0"),
        ("eval", "--eval_seeds 3", "--eval_seeds is 3, but not set on rank 0"),
    ],
)
def test_different_flags_on_ranks_are_refused(mode, flags, difference, data, tmp_path):
    line = line_of(mode, SHORT, folders(tmp_path, data))
    lines = [line, [*line, *flags.split()]]
    places = zip(lines, processes.environments(2), (tmp_path / "0", tmp_path / "1"), strict=True)
    started = [processes.start(line, console, environment) for line, environment, console in places]
    assert ended(started) == [2, 2]
    printed = [(tmp_path / str(rank)).read_text() for rank in range(2)]
    errors = [text for text in "".join(printed).splitlines() if "error: " in text]
    problem = f"Cannot start (on rank 1, {difference}). Start all processes with the same flags."
    assert errors == [f"[rank 1] error: {problem}"] and not any(map(Path.is_dir, tmp_path.iterdir()))


def test_a_mistake_of_one_rank_is_printed_once_and_ends_all(data, tmp_path):
    line = line_of("train", SHORT, folders(tmp_path, data))
    places = zip(([], ["--lr", "x"], ["--lr", "y"]), processes.environments(3), "012", strict=True)
    started = [processes.start(line + more, tmp_path / rank, environment) for more, environment, rank in places]
    assert ended(started) == [2, 2, 2]
    printed = [(tmp_path / rank).read_text() for rank in "012"]
    assert printed == ["", "[rank 1] error: --lr must be a number >= 0, got x.\n", ""]


def test_flags_that_only_concern_a_machine_may_differ(data, tmp_path):
    line = line_of("train", SHORT.replace("--total_iters 4", "--total_iters 1"), folders(tmp_path, data))
    lines = [line, [*line, "--num_workers", "1", "--max_hours", "9"]]
    started = [processes.start(*each) for each in zip(lines, ["/dev/null"] * 2, processes.environments(2), strict=True)]
    assert ended(started) == [0, 0] and steps(tmp_path) == [1]


def test_errors_and_reductions_reach_all_ranks(tmp_path):
    assert in_ranks(3, fail_here_and_there) == [0, 0, 0]


def fail_here_and_there():
    with distributed.process_group():
        rank = torch.distributed.get_rank()
        with (
            pytest.raises(UserError, match="mine" if rank == 1 else "another process") as caught,
            distributed.sync_errors(),
        ):
            if rank > 0:
                raise UserError("mine" if rank == 1 else "yours")
        assert isinstance(caught.value, PeerError) == (rank != 1)
        with pytest.raises(OSError if rank == 0 else PeerError), distributed.sync_errors():
            if rank == 0:
                raise OSError
        assert distributed.on_main_process(lambda: {"a": [rank, None], "b": torch.ones(2)})["a"] == [0, None]
        assert distributed.all_reduce_max(rank) == 2
        assert distributed.all_reduce_sum(torch.tensor(float(rank))) == 3
        parts = [slice(0, 3), slice(3, 6), slice(6, 10)]
        assert distributed.shard(10) == parts[rank]
        with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
            console.warn("odd")
            console.info("plain")
        assert said.getvalue() == (f"[rank {rank}] warning: odd\n" if rank else "warning: odd\nplain\n")
        tensors = [torch.full((2, 3), float(rank)), torch.tensor(3.0 * rank)]
        distributed.all_reduce_mean(tensors)
        assert torch.equal(tensors[0], torch.ones(2, 3)) and tensors[1] == 3
