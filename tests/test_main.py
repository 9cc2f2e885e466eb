"""The program from its command line, on real files, with networks that are only narrow."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

import main
from core import sampling, video
from core.data_loader import get_test_loader
from core.images import to_uint8
from core.solver import Solver
from tests import command
from tests.command import as_flags

ROOT = Path(main.__file__).parent
NARROW = f"{command.NARROW} --batch_size 2 --num_workers 0"


def picture(path):
    """An image file as a PIL image, the file closed."""
    with Image.open(path) as image:
        image.load()
        return image


def call(mode, flags="", **folders):
    """Run main in this process -> exit status."""
    paths = as_flags(folders)
    return main.main(["--mode", mode, *flags.split(), *paths])


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    """A run of two iterations by the program itself, and its folders."""
    folder = tmp_path_factory.mktemp("run")
    folders = {
        "train_img_dir": shapes / "train",
        "val_img_dir": shapes / "val",
        "checkpoint_dir": folder / "checkpoints",
        "sample_dir": folder / "samples",
    }
    flags = "--total_iters 2 --print_every 1 --sample_every 2 --val_batch_size 4 --num_outs_per_domain 2"
    paths = as_flags(folders)
    line = [sys.executable, "main.py", "--mode", "train", *NARROW.split(), *flags.split(), *paths]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done, folders


def test_console(run):
    lines = run[0].stdout.splitlines()
    assert lines[0].startswith("Device: c") and "precision: fp32" in lines[0]
    table = {line.split()[0]: int(line.split()[1].replace(",", "")) for line in lines[1:6]}
    assert list(table) == ["generator", "mapping_network", "style_encoder", "discriminator", "total"]
    assert table["total"] == sum(table.values()) - table["total"]
    assert lines[6] == "Domains: circle (12), square (12), triangle (12)"
    line = lines[7]
    assert line.startswith("Elapsed time [0:00:0") and "], Iteration [1/2], D/latent_real: [" in line
    names = [word.rstrip(":") for word in line.split() if "/" in word and not word.startswith("[")]
    parts = {"D": ("real", "fake", "reg"), "G": ("adv", "sty", "ds", "cyc")}
    updates = [f"{net}/{by}_{part}" for net in "DG" for by in ("latent", "ref") for part in parts[net]]
    assert names == [*updates, "G/lambda_ds"]
    assert run[0].stderr == ""  # no terminal: no bar; no warnings either


def test_files_of_a_run(run, shapes):
    folders = run[1]
    checkpoints = sorted(path.name for path in folders["checkpoint_dir"].iterdir())
    assert checkpoints == ["000002_nets.ckpt", "000002_nets_ema.ckpt", "000002_optims.ckpt"]
    nets = torch.load(folders["checkpoint_dir"] / "000002_nets.ckpt", weights_only=True)
    assert nets["config"] == {
        "img_size": 32, "num_domains": 3, "latent_dim": 16, "hidden_dim": 32, "style_dim": 64, "w_hpf": 0.0,
        "channel_base": 256, "max_conv_dim": 16, "domains": ["circle", "square", "triangle"], "step": 2,
    }  # fmt: skip
    assert set(nets) == {"generator", "mapping_network", "style_encoder", "discriminator", "config"}
    ema = torch.load(folders["checkpoint_dir"] / "000002_nets_ema.ckpt", weights_only=True)
    assert set(ema) == {"generator", "mapping_network", "style_encoder", "config"}

    sizes = {path.name: picture(path).size for path in folders["sample_dir"].iterdir()}
    rows_of_latent = 1 + 3 * 2
    assert sizes == {
        "000002_cycle_consistency.jpg": (4 * 32, 4 * 32),
        "000002_reference.jpg": (5 * 32, 5 * 32),
        **{f"000002_latent_psi_{psi}.jpg": (4 * 32, rows_of_latent * 32) for psi in (0.5, 0.7, 1.0)},
    }


def test_resume_continues(run, capsys):
    folders = run[1]
    # Nothing says what the networks are: the checkpoint does.
    flags = "--batch_size 2 --num_workers 0 --resume_iter 2 --total_iters 3 --print_every 1"
    assert call("train", flags, **folders) == 0
    said = capsys.readouterr().out
    assert "Loaded step 2" in said and "Iteration [3/3]" in said and "Iteration [2/3]" not in said
    assert (folders["checkpoint_dir"] / "000003_optims.ckpt").exists()
    assert (folders["checkpoint_dir"] / "000002_optims.ckpt").exists()


def test_snapshots_show_the_same_inputs(run, tmp_path):
    """The first row of a grid holds the sources: the same in every run and at every step."""
    folders = {**run[1], "sample_dir": tmp_path, "checkpoint_dir": tmp_path / "checkpoints"}
    flags = f"{NARROW} --total_iters 2 --sample_every 1 --val_batch_size 4 --num_outs_per_domain 1"
    assert call("train", flags, **folders) == 0
    steps = [picture(tmp_path / f"00000{step}_latent_psi_1.0.jpg") for step in (1, 2)]
    first_rows = [image.crop((0, 0, 128, 32)).tobytes() for image in steps]
    assert first_rows[0] == first_rows[1]
    assert steps[0].tobytes() != steps[1].tobytes()


def test_sample_writes_grid_and_video(run, shapes, tmp_path, capsys):
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "result_dir": tmp_path}
    folders |= {"src_dir": shapes / "val", "ref_dir": shapes / "val"}
    assert call("sample", "--num_workers 0 --batch_size 4", **folders) == 0
    assert picture(tmp_path / "reference.jpg").size == (10 * 32, 10 * 32)
    with av.open(tmp_path / "video_ref.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.width, stream.height) == (6 * 31 + 10, 32 + 32 + 9 * 32, 64)
        assert float(stream.duration * stream.time_base) == pytest.approx((6 * 31 + 10) / 12.5)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 6 * 31 + 10
    # The last step of the third pair, between the first two squares, is the second square's style.
    args = main.parse_args(["--mode", "sample", *NARROW.split(), *as_flags({"num_domains": 3, **folders})])
    solver = Solver(args)
    solver.load(solver.checkpoints[0].steps()[-1])
    x_src, _ = next(iter(get_test_loader(shapes / "val", 32, 9, shuffle=False, num_workers=0)))
    with torch.no_grad():
        s_trg = solver.nets_ema.style_encoder(x_src[4:5], torch.tensor([1]))
        x_fake = to_uint8(solver.nets_ema.generator(x_src, s_trg.expand(9, -1)))
    both = [frames[2 * 31 + 25][32:, 64:], np.concatenate(list(x_fake), axis=1)]
    blocks = [image.reshape(4, 8, 36, 8, 3).mean((1, 3)) for image in both]  # 4:2:0 halves the colour's resolution
    other = frames[2 * 31][32:, 64:].reshape(4, 8, 36, 8, 3).mean((1, 3))  # the first square's style
    assert np.abs(blocks[0] - blocks[1]).mean() < 5 < np.abs(other - blocks[1]).mean()
    said = capsys.readouterr().out
    assert "reference.jpg" in said and "video_ref.mp4" in said


def test_sample_takes_labels_from_the_checkpoint(run, shapes, tmp_path, capsys):
    """References of one domain only: a grid in that domain, and no video where there is one reference."""
    refs, full = tmp_path / "refs", tmp_path / "full"
    shutil.copytree(shapes / "val", full)
    (refs / "triangle").mkdir(parents=True)
    shutil.copy(shapes / "val" / "triangle" / "00000.png", refs / "triangle")
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": shapes / "val"}
    flags = "--num_workers 0 --batch_size 2 --resume_iter 2"
    assert call("sample", flags, **folders, ref_dir=refs, result_dir=tmp_path / "one") == 0
    assert "no video" in capsys.readouterr().err
    assert not (tmp_path / "one" / "video_ref.mp4").exists()
    assert call("sample", flags, **folders, ref_dir=full, result_dir=tmp_path / "all") == 0
    rows = [np.asarray(picture(tmp_path / name / "reference.jpg")).astype(int) for name in ("one", "all")]
    one, every = rows[0][32:64], rows[1].reshape(10, 32, 320, 3)
    distances = np.abs(one - every).mean((1, 2, 3))  # to each row of the whole grid
    assert distances.argmin() == 7 and distances[7] < 0.5 < np.delete(distances, 7).min()


def test_every_output(run, shapes, tmp_path, capsys):
    """Sources from a flat folder, styles of one reference in two domains and of three seeds."""
    reference = shapes / "val" / "square" / "00002.png"
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": shapes / "val" / "circle", "ref_dir": reference}
    flags = (
        "--outputs reference,latent,video_ref,video_latent,images --target_domains triangle,circle --seeds 4-5,9 "
        "--psi 0.7 --labels --resize crop --video_format webp --num_workers 0 --batch_size 2"
    )
    assert call("sample", flags, **folders, result_dir=tmp_path) == 0
    assert "no video_ref: a video needs two references" in capsys.readouterr().err
    files = {path.name for path in tmp_path.iterdir()}
    singles = {f"0000{s}__{d}__{style}.png" for s in range(3) for d in ("triangle", "circle") for style in (4, 5, 9)}
    singles |= {f"0000{s}__{d}__00002.png" for s in range(3) for d in ("triangle", "circle")}
    grids = {"reference.jpg", "latent_circle.jpg", "latent_triangle.jpg"}
    assert files == singles | grids | {"video_latent.webp", "manifest.jsonl"}
    with Image.open(tmp_path / "video_latent.webp") as movie:
        assert movie.size == (3 * 32, 2 * 32)
    manifest = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert {entry["file"] for entry in manifest} == singles and len(manifest) == len(singles)
    entry = next(entry for entry in manifest if entry["file"] == "00001__triangle__9.png")
    source = str(shapes / "val" / "circle" / "00001.png")
    assert entry == {**entry, "source": source, "domain": "triangle", "seed": 9, "psi": 0.7}
    entry = next(entry for entry in manifest if entry["file"] == "00001__circle__00002.png")
    assert entry == {**entry, "source": source, "domain": "circle", "reference": str(reference)}


def test_a_seed_is_the_same_picture_whatever_else_is_made(run, shapes, tmp_path):
    """Another batch, other seeds, other sources, no references at hand."""
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": shapes / "val", "result_dir": tmp_path / "many"}
    flags = "--outputs images --num_workers 0 --target_domains square"
    assert call("sample", f"{flags} --batch_size 5 --seeds 0-7", **folders) == 0
    folders |= {"src_dir": shapes / "val" / "circle" / "00001.png", "result_dir": tmp_path / "one"}
    assert call("sample", f"{flags} --batch_size 1 --seeds 6", **folders) == 0
    pictures = [tmp_path / "many" / "circle-00001__square__6.png", tmp_path / "one" / "00001__square__6.png"]
    many, one = (np.asarray(picture(path)).astype(int) for path in pictures)
    assert np.abs(many - one).max() <= 1
    other = np.asarray(picture(tmp_path / "many" / "circle-00001__square__5.png")).astype(int)
    assert np.abs(many - other).max() > 1


def test_names_of_seeds_and_references_do_not_collide(run, shapes, tmp_path):
    (tmp_path / "ref").mkdir()
    shutil.copy(shapes / "val" / "square" / "00000.png", tmp_path / "ref" / "3.png")
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": shapes / "val" / "circle" / "00001.png"}
    folders |= {"ref_dir": tmp_path / "ref", "result_dir": tmp_path / "out"}
    flags = "--outputs images --num_workers 0 --target_domains square --seeds 3"
    assert call("sample", flags, **folders) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"00001__square__3.png", "00001__square__3_2.png", "manifest.jsonl"}


def test_more_sources_than_fit_at_once(run, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "most_sources", lambda size: 4)
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": shapes / "val", "ref_dir": shapes / "val"}
    flags = "--num_workers 0 --batch_size 3 --target_domains circle --outputs reference,video_ref,images"
    assert call("sample", flags, **folders, result_dir=tmp_path) == 0
    sizes = [picture(tmp_path / f"reference{page}.jpg").size for page in ("", "_2", "_3")]
    assert sizes == [(5 * 32, 4 * 32), (5 * 32, 4 * 32), (2 * 32, 4 * 32)]
    assert {path.name for path in tmp_path.glob("*.mp4")} == {"video_ref.mp4", "video_ref_2.mp4", "video_ref_3.mp4"}
    assert len(list(tmp_path.glob("*.png"))) == 9 * 3
    last = np.asarray(picture(tmp_path / "reference_3.jpg")).astype(int)[:32, 32:]
    assert np.abs(last - np.asarray(picture(shapes / "val" / "triangle" / "00002.png").resize((32, 32)))).mean() < 10


def test_a_file_of_the_reference_needs_no_flags(run, shapes, tmp_path, capsys):
    content = torch.load(run[1]["checkpoint_dir"] / "000002_nets_ema.ckpt", weights_only=True)
    del content["config"]
    (tmp_path / "checkpoints").mkdir()
    torch.save(content, tmp_path / "checkpoints" / "000002_nets_ema.ckpt")
    folders = {"src_dir": shapes / "val", "ref_dir": shapes / "val"}
    for kind, where in (("own", run[1]["checkpoint_dir"]), ("old", tmp_path / "checkpoints")):
        flags = "--num_workers 0 --outputs reference --resume_iter 2"
        assert call("sample", flags, checkpoint_dir=where, result_dir=tmp_path / kind, **folders) == 0
    assert (tmp_path / "own" / "reference.jpg").read_bytes() == (tmp_path / "old" / "reference.jpg").read_bytes()
    folders |= {"checkpoint_dir": tmp_path / "checkpoints", "result_dir": tmp_path / "none"}
    shutil.copytree(shapes / "val" / "square", tmp_path / "refs" / "square")
    flags = "--num_workers 0 --outputs reference --resume_iter 2"
    assert call("sample", flags, **{**folders, "ref_dir": tmp_path / "refs"}) == 2
    assert "the sub-folder square, but the domains are 0, 1, 2" in capsys.readouterr().err
    named = f"{flags} --domain_names circle,square,triangle"
    assert call("sample", named, **{**folders, "ref_dir": tmp_path / "refs"}) == 0


@pytest.mark.parametrize(
    ("mode", "flags", "said"),
    [
        ("train", "--num_domains 2", "--num_domains is 2, but"),
        ("train", "--train_img_dir nowhere", "--train_img_dir nowhere does not exist"),
        ("train", "--val_img_dir nowhere", "--val_img_dir nowhere does not exist"),
        ("train", "--resume_iter 7 --total_iters 9", "does not exist"),
        ("train", "--resume_iter 7 --total_iters 7", "has reached --total_iters"),
        ("train", "--w_hpf 1", "needs the face network"),
        ("train", "--device mps", "no Apple GPU"),
        ("sample", "--checkpoint_dir nowhere", "holds no checkpoint"),
        ("sample", "--src_dir nowhere", "--src_dir nowhere does not exist"),
        ("sample", "--ref_dir nowhere", "--ref_dir nowhere does not exist"),
        ("sample", "--ref_dir tests", "--ref_dir tests has the sub-folder golden, but the domains are circle"),
        ("sample", "--ref_dir assets", "--ref_dir assets has no sub-folders, so what domain"),
        ("sample", "--src_dir core", "--src_dir core has no images"),
        ("sample", "--target_domains lion", "--target_domains lion: choose of the domains circle, square, triangle"),
        ("sample", "--domain_names a,b", "--domain_names has 2 names, but the checkpoint has 3"),
        ("sample", "--w_hpf 1", "--w_hpf is 1.0, but step"),
        ("sample", "--checkpoint_dir README.md", "is a file: give the folder"),
        ("sample", "--img_size 64", "--img_size is 64, but step"),
        ("train", "--val_batch_size 2100", "cannot be a JPEG"),
        ("train", "--checkpoint_dir LICENSE/inside", "cannot be made a folder"),
        ("sample", "--result_dir LICENSE/inside", "cannot be made a folder"),
        ("align", "", "not part of this version"),
    ],
)
def test_user_errors_are_one_sentence_and_status_2(mode, flags, said, run, shapes, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)  # on a Mac there may be one
    folders = {**run[1], "src_dir": shapes / "val", "ref_dir": shapes / "val", "result_dir": tmp_path / "results"}
    folders = {name: path for name, path in folders.items() if f"--{name}" not in flags}
    status = call(mode, ("" if mode == "sample" else NARROW) + " " + flags, **folders)
    message = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert status == 2 and len(message) == 1
    assert message[0].startswith("error: ") and said in message[0]
    assert not (tmp_path / "results").exists()


def test_results_do_not_become_sources(run, shapes, tmp_path, capsys):
    shutil.copytree(shapes / "val" / "circle", tmp_path / "album")
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": tmp_path / "album"}
    flags = "--num_workers 0 --outputs images --target_domains square --seeds"
    for seeds in ("1", "2-3"):
        assert call("sample", f"{flags} {seeds}", **folders, result_dir=tmp_path / "album" / "results") == 0
        assert "Images: 3 src" in capsys.readouterr().out
    files = {path.name for path in (tmp_path / "album" / "results").glob("*.png")}
    lines = (tmp_path / "album" / "results" / "manifest.jsonl").read_text().splitlines()
    assert len(files) == 9 and {json.loads(line)["file"] for line in lines} == files  # of both runs
    folders["src_dir"] = tmp_path / "album" / "results"
    assert call("sample", f"{flags} 1", **folders, result_dir=folders["src_dir"]) == 2
    assert "lie in --result_dir" in capsys.readouterr().err


def test_stopped_amid_single_images(run, shapes, tmp_path, capsys, monkeypatch):
    """Those that were written are listed."""
    rows = sampling.translate_rows

    def stopped(*args):
        yield next(iter(rows(*args)))
        raise KeyboardInterrupt

    monkeypatch.setattr(sampling, "translate_rows", stopped)
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": shapes / "val" / "circle"}
    assert call("sample", "--num_workers 0 --outputs images --seeds 0-9", **folders, result_dir=tmp_path) == 130
    assert len(list(tmp_path.glob("*.png"))) == len((tmp_path / "manifest.jsonl").read_text().splitlines()) == 3
    assert not list(tmp_path.glob(".writing*"))


def test_a_video_alone_that_cannot_be_made(run, shapes, tmp_path, capsys):
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": shapes / "val" / "circle"}
    assert call("sample", "--num_workers 0 --outputs video_latent --seeds 4", **folders, result_dir=tmp_path) == 2
    assert "no video_latent: a video needs two" in capsys.readouterr().err


def test_a_text_file_named_jpg_leaves_nothing_behind(run, shapes, tmp_path, capsys):
    shutil.copytree(shapes / "val", tmp_path / "src")
    (tmp_path / "src" / "square" / "00001.jpg").write_text("not an image")
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "ref_dir": shapes / "val", "result_dir": tmp_path / "out"}
    assert call("sample", "--num_workers 0", src_dir=tmp_path / "src", **folders) == 2
    assert "00001.jpg cannot be read as an image" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_a_new_run_beside_old_files_is_warned(run, tmp_path, capsys):
    shutil.copytree(run[1]["checkpoint_dir"], tmp_path / "checkpoints")
    folders = {**run[1], "checkpoint_dir": tmp_path / "checkpoints"}
    assert call("train", f"{NARROW} --total_iters 1", **folders) == 0
    assert "of an earlier run" in capsys.readouterr().err


def test_other_domains_for_validation(run, shapes, tmp_path, capsys):
    shutil.copytree(shapes / "val", tmp_path / "val")
    (tmp_path / "val" / "circle").rename(tmp_path / "val" / "zebra")
    assert call("train", NARROW, **{**run[1], "val_img_dir": tmp_path / "val"}) == 2
    assert "sub-folders square, triangle, zebra, but the domains are circle" in capsys.readouterr().err


def test_an_empty_domain(run, shapes, tmp_path, capsys):
    shutil.copytree(shapes / "train", tmp_path / "train")
    for path in (tmp_path / "train" / "square").iterdir():
        path.unlink()
    assert call("train", NARROW, **{**run[1], "train_img_dir": tmp_path / "train"}) == 2
    assert "square has no images" in capsys.readouterr().err
