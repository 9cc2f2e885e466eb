"""Data sets made of the user's images: parts, copies, skipped files, sizes and errors."""

import hashlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from data import demo_faces, prepare
from tests.command import picture
from tests.photos import SIZE, content, dropped_of, face, fill, lines_of, parts_of, run, save


def test_prepare_makes_a_data_set_and_prints_the_training_command(tmp_path, capsys):
    photos = fill(tmp_path / "photos")
    save(photos / "cat" / "more" / "A b.png", demo_faces.draw(face(9), 100))
    assert run("--in", photos, "--out", tmp_path / "set", "--size", SIZE) == 0
    made = {name for name in content(tmp_path / "set") if name != "prepared.jsonl"}
    names = {f"{domain}/{number}.jpg" for domain in ("cat", "dog") for number in range(6)} | {"cat/A b.jpg"}
    assert {name.partition("/")[2] for name in made} == names and len(made) == len(names)
    for name in made:
        image = picture(tmp_path / "set" / name)
        assert (image.size, image.mode, image.format) == ((SIZE, SIZE), "RGB", "JPEG")
    line = lines_of(tmp_path / "set")["cat/more/A b.png"]
    assert (line["domain"], line["width"], line["height"]) == ("cat", 100, 100)
    said, warned = capsys.readouterr()
    command = said.splitlines()[-1].strip()
    assert re.search(r"^all +13 ", said, re.M) and f"{command} --dry_run" in said
    assert command.startswith(f"python main.py train --preset demo --img_size {SIZE} ")
    assert f"--train_img_dir {tmp_path / 'set'}/train --val_img_dir {tmp_path / 'set'}/val " in command
    assert "fewer than 100 training images (cat " in warned and "--init_from" in warned


def test_train_or_val_depends_only_on_the_bytes_of_a_file(tmp_path):
    """A hash below the fraction means validation; further images, other names and folders change nothing."""
    photos = fill(tmp_path / "photos", 12)
    prepare.prepare(photos, tmp_path / "set", SIZE, val=0.3)
    parts = parts_of(tmp_path / "set")
    for file, part in parts.items():
        number = int(hashlib.sha256((photos / file).read_bytes()).hexdigest(), 16) / 2**256
        assert part == ("val" if number < 0.3 else "train")
    assert set(parts.values()) == {"train", "val"}
    fill(photos, 12, start=12)
    (photos / "cat" / "3.jpg").rename(photos / "cat" / "renamed.jpg")
    (photos / "dog" / "deep").mkdir()
    (photos / "dog" / "3.jpg").rename(photos / "dog" / "deep" / "5.jpg")
    prepare.prepare(photos, tmp_path / "set", SIZE, val=0.3)
    found = parts_of(tmp_path / "set")
    assert len(found) == 48
    found |= {"cat/3.jpg": found["cat/renamed.jpg"], "dog/3.jpg": found["dog/deep/5.jpg"]}
    assert {file: found[file] for file in parts} == parts


def test_val_can_be_a_number_of_images_per_domain(tmp_path):
    """The same images as the first ones of a larger validation set."""
    photos = fill(tmp_path / "photos", 12)
    parts = {}
    for val in (3, 5):
        prepare.prepare(photos, tmp_path / "set", SIZE, val=val)
        parts[val] = {file for file, part in parts_of(tmp_path / "set").items() if part == "val"}
        assert sum(file.startswith("cat/") for file in parts[val]) == len(parts[val]) / 2 == val
    assert parts[3] < parts[5]


@pytest.mark.parametrize(("val", "few", "place"), [(1e-9, "val", min), (1 - 1e-9, "train", max)])
def test_train_and_val_have_at_least_one_image_per_domain(val, few, place, tmp_path):
    photos = fill(tmp_path / "photos", 4)
    prepare.prepare(photos, tmp_path / "set", SIZE, val=val)
    parts = parts_of(tmp_path / "set")
    for domain in ("cat", "dog"):
        own = [file for file in parts if file.startswith(domain)]
        alone = place(own, key=lambda file: hashlib.sha256((photos / file).read_bytes()).hexdigest())
        assert [file for file in own if parts[file] == few] == [alone]


def test_the_best_of_several_copies_is_kept(tmp_path):
    """The first domain comes first, then the largest, then the one with most bytes, then the first name."""
    photos = fill(tmp_path / "photos", 2)
    one, two, three = (demo_faces.draw(face(number), 256) for number in (20, 21, 22))
    save(photos / "cat" / "a.jpg", one.resize((128, 128)), quality=90)
    save(photos / "cat" / "b.jpg", one, quality=50)
    save(photos / "cat" / "c.jpg", one, quality=95)
    save(photos / "dog" / "d.png", one.resize((400, 400)))
    save(photos / "cat" / "e.jpg", two)
    shutil.copy(photos / "cat" / "e.jpg", photos / "cat" / "f.jpg")
    save(photos / "dog" / "g.jpg", three, quality=60)
    save(photos / "dog" / "h.png", three.resize((200, 200)))
    assert (photos / "dog" / "g.jpg").stat().st_size < (photos / "dog" / "h.png").stat().st_size
    prepare.prepare(photos, tmp_path / "set", SIZE)
    assert dropped_of(tmp_path / "set") == {
        "cat/a.jpg": ("duplicate", "same image as cat/c.jpg (256 x 256)"),
        "cat/b.jpg": ("duplicate", "same image as cat/c.jpg (256 x 256)"),
        "dog/d.png": ("duplicate", "same image as cat/c.jpg (256 x 256), which belongs to the domain cat"),
        "cat/f.jpg": ("duplicate", "same file as cat/e.jpg (256 x 256)"),
        "dog/h.png": ("duplicate", "same image as dog/g.jpg (256 x 256)"),
    }
    assert {"cat/c.jpg", "cat/e.jpg", "dog/g.jpg"} < set(parts_of(tmp_path / "set"))


def test_small_and_unreadable_images_are_dropped(tmp_path):
    photos = fill(tmp_path / "photos", 3)
    save(photos / "cat" / "small.png", demo_faces.draw(face(7), 64).resize((90, 15)))
    save(photos / "cat" / "just.png", demo_faces.draw(face(8), 64).resize((16, 90)))
    (photos / "dog" / "cut.jpg").write_bytes((photos / "dog" / "1.jpg").read_bytes()[:-500])
    (photos / "dog" / "empty.jpg").write_bytes(b"")
    prepare.prepare(photos, tmp_path / "set", SIZE)
    dropped = dropped_of(tmp_path / "set")
    assert dropped.keys() == {"cat/small.png", "dog/cut.jpg", "dog/empty.jpg"}
    assert dropped["cat/small.png"] == ("too small", "shorter side of 15 pixels, minimum 16")
    assert {dropped[file][0] for file in ("dog/cut.jpg", "dog/empty.jpg")} == {"unreadable"}
    assert str(tmp_path) not in dropped["dog/empty.jpg"][1] and "empty.jpg" in dropped["dog/empty.jpg"][1]
    prepare.prepare(photos, tmp_path / "set", SIZE, min_side=15)
    assert dropped_of(tmp_path / "set").keys() == {"dog/cut.jpg", "dog/empty.jpg"}


def test_large_images_give_no_warnings(tmp_path, monkeypatch, capsys):
    """Pillow does not warn about large images in any thread (warnings are errors here)."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    prepare.prepare(fill(tmp_path / "photos", 8), tmp_path / "set", SIZE)
    assert len(parts_of(tmp_path / "set")) == 16
    assert "Warning" not in capsys.readouterr().err


def test_exif_orientation_is_applied(tmp_path):
    """A rotated file with EXIF orientation is a copy of the upright one."""
    photos = fill(tmp_path / "photos", 2)
    upright = Image.new("RGB", (1000, 600), "red")
    upright.paste("blue", (0, 0, 1000, 300))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(photos / "cat" / "turned.jpg", upright.transpose(Image.Transpose.ROTATE_90), exif=exif, quality=95)
    save(photos / "cat" / "turned too.png", upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    save(photos / "cat" / "upright.jpg", upright.resize((500, 300)))
    prepare.prepare(photos, tmp_path / "set", SIZE)
    lines = [line for file, line in lines_of(tmp_path / "set").items() if "right" in file or "turned" in file]
    assert {(line["width"], line["height"]) for line in lines} == {(1000, 600), (500, 300)}
    assert sorted(line.get("dropped", "") for line in lines) == ["", "duplicate", "duplicate"]
    kept = np.asarray(picture(tmp_path / "set" / next(line["output"] for line in lines if "output" in line)))
    assert np.abs(kept[2, 16] - np.array((0, 0, 255.0))).max() < 8
    assert np.abs(kept[-3, 16] - np.array((255.0, 0, 0))).max() < 8


def apart(image, other):
    return np.abs(np.asarray(image, float) - np.asarray(other, float)).mean()


def test_resize_crops_or_pads_with_lanczos(tmp_path):
    """Crop takes the middle of the image, pad the whole image on white."""
    photos = fill(tmp_path / "photos", 2)
    noise = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    noise[:, :32] = noise[:, 96:] = 0  # is cut off
    wide = Image.fromarray(noise)
    save(photos / "cat" / "wide.png", wide)
    found = {}
    for way in ("crop", "pad"):
        assert run("--in", photos, "--out", tmp_path / way, "--size", SIZE, "--resize", way) == 0
        found[way] = picture(tmp_path / way / lines_of(tmp_path / way)["cat/wide.png"]["output"])
    middle, white = (32, 0, 96, 64), Image.new("RGB", (32, 32), "white")
    white.paste(wide.resize((32, 16), Image.Resampling.LANCZOS), (0, 8))
    expected = {"crop": wide.resize((32, 32), Image.Resampling.LANCZOS, middle), "pad": white}
    for way, image in expected.items():
        save(tmp_path / "expected.jpg", image, quality=95, subsampling=0)
        assert np.array_equal(found[way], picture(tmp_path / "expected.jpg")), way


def test_large_jpegs_are_decoded_at_twice_the_size_or_more(tmp_path, monkeypatch):
    """Photographs then differ by at most 0.5 of 255 from full decoding."""
    photos = fill(tmp_path / "photos", 2)
    sharp = demo_faces.draw(face(30), 512).resize((1100, 800))
    save(photos / "cat" / "large.jpg", sharp, quality=95)
    decoded, squared = [], prepare.squared
    monkeypatch.setattr(prepare, "squared", lambda image, *how: decoded.append(image.size) or squared(image, *how))
    prepare.prepare(photos, tmp_path / "set", SIZE)
    assert sorted(decoded) == [(64, 64)] * 4 + [(138, 100)]
    made = picture(tmp_path / "set" / lines_of(tmp_path / "set")["cat/large.jpg"]["output"])
    save(tmp_path / "expected.jpg", squared(sharp, SIZE, "crop", Image.Resampling.LANCZOS), quality=95, subsampling=0)
    assert apart(made, picture(tmp_path / "expected.jpg")) < 3


def test_similar_names_give_separate_files(tmp_path):
    """Names that differ only by capitals, suffix or folder give different files."""
    photos = fill(tmp_path / "photos", 2)
    names = ("a/x.jpg", "b/x.jpg", "b/X.png", "c/a-x.jpg", "c/x.jpg", "c/x.png", "d/ü.jpg")
    for number, name in enumerate(names):
        save(photos / "cat" / name, demo_faces.draw(face(50 + number), 64))
    prepare.prepare(photos, tmp_path / "set", SIZE)
    outputs = [line["output"] for line in lines_of(tmp_path / "set").values() if "output" in line]
    assert len(outputs) == 4 + len(names) == len({output.casefold() for output in outputs})
    for number, name in enumerate(names):
        made = picture(tmp_path / "set" / lines_of(tmp_path / "set")[f"cat/{name}"]["output"])
        assert apart(made, demo_faces.draw(face(50 + number), 64).resize((SIZE, SIZE), Image.Resampling.LANCZOS)) < 5


def one_of_a_domain(folder):
    fill(folder / "photos", 1)
    (folder / "photos" / "cat" / "broken.jpg").write_bytes(b"")


def images_of_others(folder):
    fill(folder / "photos", 2)
    save(folder / "set" / "val" / "cat" / "x.png", Image.new("RGB", (8, 8)))


def page_of_others(folder):
    fill(folder / "photos", 2)
    (folder / "set").mkdir()
    (folder / "set" / "index.html").write_text("mine")


def empty_domain(folder):
    fill(folder / "photos", 2)
    (folder / "photos" / "bear").mkdir()


def flat(folder):
    save(folder / "photos" / "x.png", Image.new("RGB", (8, 8)))


def file_in_the_way(folder):
    fill(folder / "photos", 2)
    (folder / "set").write_text("x")


ERRORS = {
    "there is none": (None, "--in photos --out set --size 32", r"Cannot read --in photos \(it does not exist\)"),
    "no domains": (flat, "--in photos --out set --size 32", "No sub-folders found in --in photos"),
    "empty domain": (empty_domain, "--in photos --out set --size 32", r"No images found in .*photos/bear\."),
    "too few": (one_of_a_domain, "--in photos --out set --size 32", r"Cannot split .* cat .*2 found, 1 unreadable"),
    "others": (images_of_others, "--in photos --out set --size 32", "val contains images that .* did not create"),
    "a page": (page_of_others, "--in photos --out set --size 32", r"Cannot overwrite \S*index\.html \("),
    "a file": (file_in_the_way, "--in photos --out set --size 32", "--out must be a folder, got the file set"),
    "inside": (fill, "--in . --out cat/set", "overlaps with --in"),
    "around": (fill, "--in cat --out .", "overlaps with --in"),
    "itself": (fill, "--in cat --out dog/../cat", "overlaps with --in"),
    "size": (
        fill,
        "--in . --out ../set --size 100",
        "--size must be a power of two from 16 to 16384, such as 256, got 100",
    ),
    "tiny": (fill, "--in . --out ../set --size 8", "--size must be .*, got 8"),
    "val": (
        fill,
        "--in . --out ../set --val 1.5",
        "--val must be a fraction below 1, or a number of images",
    ),
    "side": (fill, "--in . --out ../set --min_side 0", "--min_side must be an integer >= 1, got 0"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_user_errors_exit_2_and_write_nothing(case, tmp_path, monkeypatch, capsys):
    """One sentence, status 2, and nothing is written."""
    begin, line, expected = ERRORS[case]
    monkeypatch.chdir(tmp_path)
    if begin:
        begin(tmp_path)
    before = sorted(path for path in tmp_path.rglob("*") if path.name not in (".lock", ".running.json"))
    assert run(*line.split()) == 2
    said = capsys.readouterr().err.splitlines()
    assert re.search(expected, said[-1].replace("\\", "/")) and "error: " in said[-1]
    assert "Traceback" not in "".join(said)
    assert sorted(path for path in tmp_path.rglob("*") if path.name not in (".lock", ".running.json")) == before
