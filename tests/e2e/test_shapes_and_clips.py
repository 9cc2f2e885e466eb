"""--mode sample with sources of any shape, mirrored folders, and clips."""

import json
import os
import re
import shutil

import av
import numpy as np
import pytest
from PIL import Image

from core.api import StarGAN
from core.solver import Solver
from tests.clips import make_clip, sound_of
from tests.command import NARROW, call, config_of, picture

TREES = ("cat__3", "cat__4", "dog__3", "dog__4")
SAMPLE = "--num_workers 0 --target_domains cat --seeds 3"


@pytest.fixture
def sample(run, tmp_path):
    """sample(flags, src_dir, result_dir) -> exit status, with the networks of a short training."""

    def sample(flags, source, results="out"):
        folders = {"checkpoint_dir": run[1]["checkpoint_dir"], "src_dir": source, "result_dir": tmp_path / results}
        return call("sample", f"{SAMPLE} {flags}", **folders)

    return sample


def noise(path, width, height, channels=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(width).integers(0, 256, (height, width, channels), np.uint8)
    Image.fromarray(array).save(path)
    return array


def test_keep_keeps_shape_and_transparency(sample, tmp_path, capsys):
    source = noise(tmp_path / "src" / "a.png", 35, 65, channels=4)
    noise(tmp_path / "src" / "b.png", 32, 32)
    noise(tmp_path / "src" / "far.png", 130, 100)
    for resize in ("keep", "stretch"):
        for form in ("png", "webp", "jpg"):
            flags = f"--outputs images --resize {resize} --format {form}"
            assert sample(flags, tmp_path / "src", f"{resize}_{form}") == 0
    warning = r"Keeping the size of 1 file in --src_dir \S+, although it is far from the trained size 32 x 32: far"
    assert re.search(warning, capsys.readouterr().err)
    for form, mode in (("png", "RGBA"), ("webp", "RGBA"), ("jpg", "RGB")):
        found = picture(tmp_path / f"keep_{form}" / f"a__cat__3.{form}")
        assert (found.size, found.mode) == ((35, 65), mode)
        assert mode == "RGB" or np.array_equal(np.asarray(found)[..., 3], source[..., 3])
    squares = [tmp_path / f"{resize}_png" / "b__cat__3.png" for resize in ("keep", "stretch")]
    assert squares[0].read_bytes() == squares[1].read_bytes()
    stretched = picture(tmp_path / "stretch_png" / "a__cat__3.png")
    assert (stretched.size, stretched.mode) == ((32, 32), "RGB")


def test_strength_0_works_for_any_shape(sample, tmp_path):
    """The own style comes from a square, the image stays as it is."""
    noise(tmp_path / "src" / "a.png", 35, 65)
    assert sample("--outputs images --resize keep --strength 0.5", tmp_path / "src") == 0
    assert picture(tmp_path / "out" / "a__cat__3.png").size == (35, 65)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_restored_results_have_the_shape_of_the_source(resize, sample, tmp_path):
    source = noise(tmp_path / "src" / "a.png", 50, 80)
    assert sample(f"--outputs images --resize {resize} --restore_shape", tmp_path / "src") == 0
    found = np.asarray(picture(tmp_path / "out" / "a__cat__3.png"))
    assert found.shape == (80, 50, 3)
    assert np.array_equal(found[:15], source[:15]) == (resize == "crop")


def test_mirrored_trees_depend_on_no_other_source(sample, tmp_path):
    """Names and folders of the sources, a tree for each style, and the same bytes for any subset."""
    for number, name in enumerate(["a.png", "sub/a.png", "sub/deep/b c.jpg", "x.y.png"]):
        noise(tmp_path / "src" / name, 32 + number, 40)
    flags = "--outputs images --resize keep --mirror"
    assert sample(f"{flags} --seeds 3,4 --target_domains cat,dog", tmp_path / "src") == 0
    names = {"a.png", "sub/a.png", "sub/deep/b c.png", "x.y.png"}
    for tree in TREES:
        root = tmp_path / "out" / tree
        assert {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} == names
    rows = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert {row["file"] for row in rows} == {f"{tree}/{name}" for tree in TREES for name in names}
    assert sample(flags, tmp_path / "src" / "sub", "subset") == 0
    assert sample(flags, tmp_path / "src" / "sub" / "deep" / "b c.jpg", "single") == 0
    whole = tmp_path / "out" / "cat__3" / "sub" / "deep" / "b c.png"
    assert whole.read_bytes() == (tmp_path / "subset" / "cat__3" / "deep" / "b c.png").read_bytes()
    assert whole.read_bytes() == (tmp_path / "single" / "cat__3" / "b c.png").read_bytes()
    assert whole.read_bytes() != (tmp_path / "out" / "cat__4" / "sub" / "deep" / "b c.png").read_bytes()


def test_names_that_would_be_the_same_are_refused(sample, tmp_path, capsys):
    for name in ("a.png", "A.jpg"):
        noise(tmp_path / "src" / name, 32, 32)
    assert sample("--outputs images --mirror", tmp_path / "src") == 2
    assert "(their names only differ in the suffix or in capitals). Rename one of them." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_images_and_clips_of_a_mirror_need_different_formats(capsys):
    with pytest.raises(SystemExit):
        call("sample", "--outputs images,video --mirror --format webp --video_format webp")
    assert "--format must differ from --video_format with --mirror, got webp." in capsys.readouterr().err


def test_names_that_are_not_text_can_be_mirrored(sample, tmp_path):
    noise(tmp_path / "a.png", 32, 32)
    (tmp_path / "src").mkdir()
    try:
        os.rename(tmp_path / "a.png", os.path.join(os.fsencode(tmp_path), b"src", b"\xff\xe9.png"))  # noqa: PTH104, PTH118
    except (OSError, UnicodeDecodeError):
        pytest.skip("this system only takes names that are text")
    assert sample("--outputs images --mirror", tmp_path / "src") == 0
    assert "%FF%E9.png" in (tmp_path / "out" / "index.html").read_text()


def test_webp_has_a_longest_side(sample, tmp_path, capsys):
    noise(tmp_path / "src" / "a.png", 17_000, 2)
    assert sample("--outputs images --resize stretch --restore_shape --format webp", tmp_path / "src") == 2
    assert "(in this format, sides have at most 16,383 pixels). Use PNG." in capsys.readouterr().err


def test_flags_without_effect_are_named(sample, faces, capsys):
    flags = "--outputs latent --mirror --format jpg --restore_shape --resize keep"
    assert sample(flags, faces / "val" / "bear") == 0
    said = capsys.readouterr().err
    for flag in ("mirror", "format", "restore_shape"):
        assert f"Ignoring --{flag}: --outputs latent does not use it." in said
    assert "Cropping images to squares for --outputs latent, in spite of --resize keep." in said


def test_clips_keep_frames_times_and_sound(sample, tmp_path, capsys):
    """300 frames of varying duration."""
    make_clip(tmp_path / "clip.mp4", count=300, steps=(20, 35, 20, 61), size=(48, 32))
    assert sample("--outputs video --resize keep", tmp_path / "clip.mp4") == 0
    result, found = tmp_path / "out" / "clip__cat__3.mp4", []
    for path in (tmp_path / "clip.mp4", result):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height) == (48, 32)
            times = [frame.pts * stream.time_base for frame in container.decode(stream)]
            found.append((times, stream.duration * stream.time_base, stream.average_rate))
    assert found[0] == found[1] and len(times) == 300
    assert np.array_equal(sound_of(result), sound_of(tmp_path / "clip.mp4"))
    (row,) = map(json.loads, (tmp_path / "out" / "manifest.jsonl").read_text().splitlines())
    assert row["file"] == "clip__cat__3.mp4" and row["source"] == str(tmp_path / "clip.mp4")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "clip__cat__3.mp4" in page and "Clips: 1" in capsys.readouterr().out


def test_more_styles_than_encoders_run_at_once(sample, tmp_path, capsys):
    make_clip(tmp_path / "clip.mp4", count=2, sound=None)
    assert sample("--outputs video --seeds 0-8", tmp_path / "clip.mp4") == 0
    videos = [(tmp_path / "out" / f"clip__cat__{seed}.mp4").read_bytes() for seed in range(9)]
    assert len(set(videos)) == 9
    assert re.search(r"Stretching 1 file in --src_dir \S+ to squares", capsys.readouterr().err)


def test_one_broken_clip_does_not_end_a_folder(sample, tmp_path, capsys):
    (tmp_path / "src" / "sub").mkdir(parents=True)
    make_clip(tmp_path / "src" / "good.mp4", count=5, sound=None)
    make_clip(tmp_path / "src" / "sub" / "short.mkv", count=90, sound=None)
    short = tmp_path / "src" / "sub" / "short.mkv"
    short.write_bytes(short.read_bytes()[: short.stat().st_size // 2])
    (tmp_path / "src" / "text.mov").write_text("no clip")
    images = [Image.new("RGBA", (20, 20), (60 * number, 0, 0, 255 if number else 0)) for number in range(3)]
    images[0].save(tmp_path / "src" / "moving.gif", save_all=True, append_images=images[1:])
    images[0].save(tmp_path / "src" / "still.webp")
    assert sample("--outputs video --mirror --resize keep", tmp_path / "src") == 0
    said = capsys.readouterr()
    assert said.err.count("warning: Skipping a clip. Cannot read ") == 2 and "Clips: 3" in said.out
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert files == {"cat__3/good.mp4", "cat__3/moving.mp4", "manifest.jsonl", "index.html"}


def test_a_broken_clip_is_one_sentence_and_leaves_no_file(sample, tmp_path, capsys):
    make_clip(tmp_path / "clip.mkv", count=90, size=(64, 64))
    whole = (tmp_path / "clip.mkv").read_bytes()
    for part in (whole[: len(whole) // 2], b"no clip", b""):
        (tmp_path / "clip.mkv").write_bytes(part)
        assert sample("--outputs video", tmp_path / "clip.mkv") == 2
        said = capsys.readouterr().err
        assert said.startswith("error: Cannot read ") and said.count("\n") == 1
        assert not list((tmp_path / "out").glob("*"))


def test_clips_need_the_output_video_and_the_reverse(sample, faces, tmp_path, capsys):
    make_clip(tmp_path / "clip.mp4", count=2, sound=None)
    assert sample("--outputs images", tmp_path / "clip.mp4") == 2
    assert "as an image (it is a clip). Use --outputs video." in capsys.readouterr().err
    assert sample("--outputs video", faces / "val") == 2
    assert "No clips found in --src_dir" in capsys.readouterr().err
    shutil.copytree(faces / "val" / "bear", tmp_path / "both")
    shutil.copy(tmp_path / "clip.mp4", tmp_path / "both")
    assert sample("--outputs images,video", tmp_path / "both") == 0
    said = capsys.readouterr().err
    assert "Ignoring 1 file without any image suffix" in said and "--outputs video translates clips." in said
    assert sample("--outputs video --dry_run", tmp_path / "both", "none") == 0
    assert "Compute, about 2 frames at 32 px in one style" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_faces_and_alignment_refuse_keep(tmp_path, capsys):
    line = (*NARROW.replace("--w_hpf 0", "--w_hpf 1").split(), "--num_domains", "2")
    Solver(config_of("train", *line, "--checkpoint_dir", tmp_path / "faces", domains=("female", "male"))).save(1)
    folders = {"checkpoint_dir": tmp_path / "faces", "src_dir": tmp_path, "result_dir": tmp_path / "out"}
    assert call("sample", "--outputs images --resize keep --seeds 1", **folders) == 2
    assert "--resize must be stretch, crop or pad for models of faces (w_hpf > 0), got keep." in capsys.readouterr().err
    with pytest.raises(ValueError, match="--resize must be stretch, crop or pad for models of faces"):
        StarGAN.load(tmp_path / "faces", device="cpu", resize="keep")
    with pytest.raises(SystemExit):
        call("align", "--resize keep")
    assert "--resize must be stretch, crop or pad in align mode, got keep." in capsys.readouterr().err
