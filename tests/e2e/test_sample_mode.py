"""--mode sample with narrow networks."""

import json
import os
import shutil

import av
import numpy as np
import pytest
import torch
from PIL import Image

import main
from core.data_loader import get_test_loader
from core.images.io import to_uint8
from core.sampling import single, video
from core.solver import Solver
from tests.command import RUN, as_flags, call, picture


def test_sample_writes_grid_and_video_of_references(run, faces, tmp_path, capsys):
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "result_dir": tmp_path}
    folders |= {"src_dir": faces / "val", "ref_dir": faces / "val"}
    assert call("sample", "--num_workers 0 --batch_size 4", **folders) == 0
    assert picture(tmp_path / "reference.jpg").size == (10 * 32, 10 * 32)
    with av.open(tmp_path / "video_ref.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.width, stream.height) == (6 * 31 + 10, 32 + 32 + 9 * 32, 64)
        assert float(stream.duration * stream.time_base) == pytest.approx((6 * 31 + 10) / 12.5)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 6 * 31 + 10
    # The last step of the third pair, between the first two cats, is the second cat's style.
    args = main.parse_args(["--mode", "sample", *RUN.split(), *as_flags({"num_domains": 3, **folders})])
    solver = Solver(args)
    solver.load(solver.files.steps()[-1])
    x_src, _ = next(iter(get_test_loader(faces / "val", 32, 9, shuffle=False, num_workers=0)))
    with torch.no_grad():
        s_trg = solver.nets_ema.style_encoder(x_src[4:5], torch.tensor([1]))
        x_fake = to_uint8(solver.nets_ema.generator(x_src, s_trg.expand(9, -1)))
    both = [frames[2 * 31 + 25][32:, 64:], np.concatenate(list(x_fake), axis=1)]
    blocks = [image.reshape(4, 8, 36, 8, 3).mean((1, 3)) for image in both]  # 4:2:0 halves the colour's resolution
    other = frames[2 * 31][32:, 64:].reshape(4, 8, 36, 8, 3).mean((1, 3))  # the first cat's style
    assert np.abs(blocks[0] - blocks[1]).mean() < 5 < np.abs(other - blocks[1]).mean()
    said = capsys.readouterr().out
    assert "reference.jpg" in said and "video_ref.mp4" in said


def test_labels_follow_the_domain_names_of_the_checkpoint(run, faces, tmp_path, capsys):
    """With one reference of one domain there is a grid in that domain and no video."""
    refs, full = tmp_path / "refs", tmp_path / "full"
    shutil.copytree(faces / "val", full)
    (refs / "dog").mkdir(parents=True)
    shutil.copy(faces / "val" / "dog" / "00000.png", refs / "dog")
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": faces / "val"}
    flags = "--num_workers 0 --batch_size 2 --resume_iter 2"
    assert call("sample", flags, **folders, ref_dir=refs, result_dir=tmp_path / "one") == 0
    assert "Skipping video_ref: a video needs two references" in capsys.readouterr().err
    assert not (tmp_path / "one" / "video_ref.mp4").exists()
    assert call("sample", flags, **folders, ref_dir=full, result_dir=tmp_path / "all") == 0
    rows = [np.asarray(picture(tmp_path / name / "reference.jpg")).astype(int) for name in ("one", "all")]
    one, every = rows[0][32:64], rows[1].reshape(10, 32, 320, 3)
    distances = np.abs(one - every).mean((1, 2, 3))  # to each row of the whole grid
    assert distances.argmin() == 7 and distances[7] < 0.5 < np.delete(distances, 7).min()


def test_every_output_is_written_and_listed(run, faces, tmp_path, capsys):
    """Sources from a flat folder, styles of one reference in two domains and of three seeds."""
    reference = faces / "val" / "cat" / "00002.png"
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": faces / "val" / "bear", "ref_dir": reference}
    flags = (
        "--outputs reference,latent,video_ref,video_latent,images --target_domains dog,bear --seeds 4-5,9 "
        "--psi 0.7 --labels --resize crop --video_format webp --num_workers 0 --batch_size 2"
    )
    assert call("sample", flags, **folders, result_dir=tmp_path) == 0
    assert "Skipping video_ref: a video needs two references" in capsys.readouterr().err
    files = {path.name for path in tmp_path.iterdir()}
    singles = {f"0000{s}__{d}__{style}.png" for s in range(3) for d in ("dog", "bear") for style in (4, 5, 9)}
    singles |= {f"0000{s}__{d}__00002.png" for s in range(3) for d in ("dog", "bear")}
    grids = {"reference.jpg", "latent_bear.jpg", "latent_dog.jpg"}
    assert files == singles | grids | {"video_latent.webp", "manifest.jsonl", "index.html"}
    with Image.open(tmp_path / "video_latent.webp") as movie:
        assert movie.size == (3 * 32, 2 * 32)
    manifest = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert {entry["file"] for entry in manifest} == singles and len(manifest) == len(singles)
    entry = next(entry for entry in manifest if entry["file"] == "00001__dog__9.png")
    source = str(faces / "val" / "bear" / "00001.png")
    assert entry == {**entry, "source": source, "domain": "dog", "seed": 9, "psi": 0.7}
    entry = next(entry for entry in manifest if entry["file"] == "00001__bear__00002.png")
    assert entry == {**entry, "source": source, "domain": "bear", "reference": str(reference)}


def test_an_image_depends_only_on_source_domain_and_seed(run, faces, tmp_path):
    """Batch size, other seeds and other sources change no byte."""
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": faces / "val", "result_dir": tmp_path / "many"}
    flags = "--outputs images --num_workers 0 --target_domains cat"
    assert call("sample", f"{flags} --batch_size 5 --seeds 0-7", **folders) == 0
    folders |= {"src_dir": faces / "val" / "bear" / "00001.png", "result_dir": tmp_path / "one"}
    assert call("sample", f"{flags} --batch_size 1 --seeds 6", **folders) == 0
    pictures = [tmp_path / "many" / "bear-00001__cat__6.png", tmp_path / "one" / "00001__cat__6.png"]
    many, one = (path.read_bytes() for path in pictures)
    assert many == one != (tmp_path / "many" / "bear-00001__cat__5.png").read_bytes()


def test_names_of_seeds_and_references_do_not_collide(run, faces, tmp_path):
    (tmp_path / "ref").mkdir()
    shutil.copy(faces / "val" / "cat" / "00000.png", tmp_path / "ref" / "3.png")
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": faces / "val" / "bear" / "00001.png"}
    folders |= {"ref_dir": tmp_path / "ref", "result_dir": tmp_path / "out"}
    flags = "--outputs images --num_workers 0 --target_domains cat --seeds 3"
    assert call("sample", flags, **folders) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"00001__cat__3.png", "00001__cat__3_2.png", "manifest.jsonl", "index.html"}


def test_many_sources_are_split_into_several_grids_and_videos(run, faces, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "most_sources", lambda size: 4)
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": faces / "val", "ref_dir": faces / "val"}
    flags = "--num_workers 0 --batch_size 3 --target_domains bear --outputs reference,video_ref,images"
    assert call("sample", flags, **folders, result_dir=tmp_path) == 0
    sizes = [picture(tmp_path / f"reference{page}.jpg").size for page in ("", "_2", "_3")]
    assert sizes == [(5 * 32, 4 * 32), (5 * 32, 4 * 32), (2 * 32, 4 * 32)]
    assert {path.name for path in tmp_path.glob("*.mp4")} == {"video_ref.mp4", "video_ref_2.mp4", "video_ref_3.mp4"}
    assert len(list(tmp_path.glob("*.png"))) == 9 * 3
    last = np.asarray(picture(tmp_path / "reference_3.jpg")).astype(int)[:32, 32:]
    assert np.abs(last - np.asarray(picture(faces / "val" / "dog" / "00002.png").resize((32, 32)))).mean() < 10


def test_reference_files_need_no_flags(run, faces, tmp_path, capsys):
    content = torch.load(run[1]["checkpoint_dir"] / "000002_nets_ema.ckpt", weights_only=True)
    del content["config"]
    (tmp_path / "checkpoints").mkdir()
    torch.save(content, tmp_path / "checkpoints" / "000002_nets_ema.ckpt")
    folders = {"src_dir": faces / "val", "ref_dir": faces / "val"}
    for kind, where in (("own", run[1]["checkpoint_dir"]), ("old", tmp_path / "checkpoints")):
        flags = "--num_workers 0 --outputs reference --resume_iter 2"
        assert call("sample", flags, checkpoint_dir=where, result_dir=tmp_path / kind, **folders) == 0
    assert (tmp_path / "own" / "reference.jpg").read_bytes() == (tmp_path / "old" / "reference.jpg").read_bytes()
    folders |= {"checkpoint_dir": tmp_path / "checkpoints", "result_dir": tmp_path / "none"}
    shutil.copytree(faces / "val" / "cat", tmp_path / "refs" / "cat")
    flags = "--num_workers 0 --outputs reference --resume_iter 2"
    assert call("sample", flags, **{**folders, "ref_dir": tmp_path / "refs"}) == 2
    assert "named after the domains 0, 1, 2, got cat" in capsys.readouterr().err
    named = f"{flags} --domain_names bear,cat,dog"
    assert call("sample", named, **{**folders, "ref_dir": tmp_path / "refs"}) == 0


def test_results_are_never_used_as_sources(run, faces, tmp_path, capsys):
    shutil.copytree(faces / "val" / "bear", tmp_path / "album")
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": tmp_path / "album"}
    flags = "--num_workers 0 --outputs images --target_domains cat --seeds"
    for seeds in ("1", "2-3"):
        assert call("sample", f"{flags} {seeds}", **folders, result_dir=tmp_path / "album" / "results") == 0
        assert "Images: 3 src" in capsys.readouterr().out
    files = {path.name for path in (tmp_path / "album" / "results").glob("*.png")}
    lines = (tmp_path / "album" / "results" / "manifest.jsonl").read_text().splitlines()
    assert len(files) == 9 and {json.loads(line)["file"] for line in lines} == files  # of both runs
    folders["src_dir"] = tmp_path / "album" / "results"
    assert call("sample", f"{flags} 1", **folders, result_dir=folders["src_dir"]) == 2
    assert "all its images are in --result_dir" in capsys.readouterr().err


def test_interrupted_sampling_lists_the_written_images(run, faces, tmp_path, capsys, monkeypatch):
    rows = single.translate_rows

    def stopped(*args):
        yield next(iter(rows(*args)))
        raise KeyboardInterrupt

    monkeypatch.setattr(single, "translate_rows", stopped)
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": faces / "val" / "bear"}
    assert call("sample", "--num_workers 0 --outputs images --seeds 0-9", **folders, result_dir=tmp_path) == 130
    assert len(list(tmp_path.glob("*.png"))) == len((tmp_path / "manifest.jsonl").read_text().splitlines()) == 1
    assert not list(tmp_path.glob(".writing*"))


def test_a_video_of_one_style_is_an_error(run, faces, tmp_path, capsys):
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": faces / "val" / "bear"}
    folders |= {"ref_dir": faces / "val" / "cat" / "00002.png", "result_dir": tmp_path}
    assert call("sample", "--num_workers 0 --outputs video_ref --target_domains cat", **folders) == 2
    assert "Cannot write video_ref (a video needs two references" in capsys.readouterr().err


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def test_unreadable_sources_and_references_are_skipped_named_and_counted(run, faces, tmp_path, capsys):
    for folder in ("src", "ref"):
        shutil.copytree(faces / "val", tmp_path / folder)
    cut(tmp_path / "src" / "cat" / "00001.png")
    cut(tmp_path / "ref" / "dog" / "00000.png")
    for number in range(3):  # no reference of this domain is left
        (tmp_path / "ref" / "bear" / f"0000{number}.png").write_text("not an image")
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "result_dir": tmp_path / "out"}
    flags = "--num_workers 0 --outputs reference,video_ref,images"
    assert call("sample", flags, **folders, src_dir=tmp_path / "src", ref_dir=tmp_path / "ref") == 0
    said = capsys.readouterr()
    assert "Skipping 1 unreadable image of 9 in --src_dir" in said.err and "00001.png" in said.err
    assert "Skipping 4 unreadable images of 9 in --ref_dir" in said.err
    assert "Images: 8 src, 5 ref" in said.out and said.out.rstrip().endswith("Skipped 5 unreadable images")
    assert picture(tmp_path / "out" / "reference.jpg").size == (9 * 32, 6 * 32)
    assert len(list((tmp_path / "out").glob("*.png"))) == 8 * 5
    entries = map(json.loads, (tmp_path / "out" / "manifest.jsonl").read_text().splitlines())
    assert {entry["domain"] for entry in entries} == {"cat", "dog"}


@pytest.mark.parametrize("which", ["src", "ref"])
def test_sampling_ends_where_no_image_is_left(which, run, faces, tmp_path, capsys):
    (tmp_path / "bad").mkdir()
    for name in ("a.png", "b.jpg"):
        (tmp_path / "bad" / name).write_text("not an image")
    folders = {"src_dir": faces / "val", "ref_dir": faces / "val" / "cat", f"{which}_dir": tmp_path / "bad"}
    folders |= {"checkpoint_dir": run[1]["checkpoint_dir"], "result_dir": tmp_path / "out"}
    assert call("sample", "--num_workers 0 --target_domains cat", **folders) == 2
    assert f"Cannot read any of 2 images in --{which}_dir" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_that_are_not_text_or_very_long_are_sampled(run, faces, tmp_path):
    content = (faces / "val" / "cat" / "00000.png").read_bytes()
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / ("L" * 251 + ".png")).write_bytes(content)
    try:
        with open(os.path.join(os.fsencode(tmp_path), b"src", b"\xff\xe9.png"), "wb") as file:  # noqa: PTH118, PTH123
            file.write(content)
    except (OSError, UnicodeDecodeError):
        pytest.skip("this system only takes names that are text")
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "result_dir": tmp_path / "out", "src_dir": tmp_path / "src"}
    assert call("sample", "--num_workers 0 --outputs images,latent --seeds 0 --target_domains cat", **folders) == 0
    assert len(list((tmp_path / "out").glob("*__cat__0.png"))) == 2 and (tmp_path / "out" / "index.html").is_file()


def test_flags_of_training_change_nothing(run, faces, tmp_path, capsys):
    folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": faces / "val" / "bear", "result_dir": tmp_path}
    assert call("sample", "--num_workers 0 --outputs images --seeds 1 --augment ada --freeze_d 1", **folders) == 0
    assert "Ignoring --augment, --freeze_d (no effect in sample mode)." in capsys.readouterr().err
