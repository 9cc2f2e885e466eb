"""Sets made of one's own pictures: what goes where, what is left out, and what is there after whatever happened."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from data import faces, prepare, report
from data.alike import CELLS, detail, originals
from tests.command import picture

SIZE = 32


def face(number, domain="cat"):
    return faces.random_face(domain, np.random.default_rng(number))


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def fill(folder, count=6, domains=("cat", "dog"), start=0):
    """Different pictures of 64 px, {folder}/{domain}/{number}.jpg."""
    for domain in domains:
        for number in range(start, start + count):
            save(folder / domain / f"{number}.jpg", faces.draw(face(number, domain), 64), quality=95)
    return folder


def lines_of(out):
    lines = map(json.loads, (out / "prepared.jsonl").read_text(encoding="utf-8").splitlines())
    return {line["file"]: line for line in lines}


def parts_of(out):
    """{input file: its part}, of what is there."""
    assert all((out / line["output"]).is_file() for line in lines_of(out).values() if "output" in line)
    return {file: line["output"].split("/")[0] for file, line in lines_of(out).items() if "output" in line}


def dropped_of(out):
    return {file: (line["dropped"], line["why"]) for file, line in lines_of(out).items() if "dropped" in line}


def content(folder):
    """{name: bytes} of what was made, but for the page, which tells the time."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: path.read_bytes() for name, path in names.items() if name not in (".lock", "index.html")}


def run(*words):
    """The program -> exit status."""
    try:
        prepare.main([str(word) for word in words])
    except SystemExit as ended:
        return ended.code
    return 0


def test_a_set(tmp_path, capsys):
    photos = fill(tmp_path / "photos")
    save(photos / "cat" / "more" / "A b.png", faces.draw(face(9), 100))
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
    assert command.startswith(f"python main.py --mode train --preset demo --img_size {SIZE} ")
    assert f"--train_img_dir {tmp_path / 'set'}/train --val_img_dir {tmp_path / 'set'}/val " in command
    assert "fewer than 100 training pictures (cat " in warned and "--init_from" in warned


def test_the_part_follows_from_the_bytes(tmp_path):
    """Below the share it is validation; others that come, other names and folders change nothing."""
    photos = fill(tmp_path / "photos", 12)
    prepare.prepare(photos, tmp_path / "set", SIZE, share=0.3)
    parts = parts_of(tmp_path / "set")
    for file, part in parts.items():
        number = int(hashlib.sha256((photos / file).read_bytes()).hexdigest(), 16) / 2**256
        assert part == ("val" if number < 0.3 else "train")
    assert set(parts.values()) == {"train", "val"}
    fill(photos, 12, start=12)
    (photos / "cat" / "3.jpg").rename(photos / "cat" / "renamed.jpg")
    (photos / "dog" / "deep").mkdir()
    (photos / "dog" / "3.jpg").rename(photos / "dog" / "deep" / "5.jpg")
    prepare.prepare(photos, tmp_path / "set", SIZE, share=0.3)
    found = parts_of(tmp_path / "set")
    assert len(found) == 48
    found |= {"cat/3.jpg": found["cat/renamed.jpg"], "dog/3.jpg": found["dog/deep/5.jpg"]}
    assert {file: found[file] for file in parts} == parts


@pytest.mark.parametrize(("share", "few", "place"), [(1e-9, "val", min), (1 - 1e-9, "train", max)])
def test_each_part_has_one_of_each_domain(share, few, place, tmp_path):
    photos = fill(tmp_path / "photos", 4)
    prepare.prepare(photos, tmp_path / "set", SIZE, share=share)
    parts = parts_of(tmp_path / "set")
    for domain in ("cat", "dog"):
        own = [file for file in parts if file.startswith(domain)]
        alone = place(own, key=lambda file: hashlib.sha256((photos / file).read_bytes()).hexdigest())
        assert [file for file in own if parts[file] == few] == [alone]


def cells(image):
    return np.asarray(image.resize((CELLS, CELLS), Image.Resampling.BILINEAR))


def looked_at(path):
    one = prepare.Picture(path, path.name, "cat", path.stem)
    prepare.look(one)
    return one.cells


def test_copies_are_told_from_pictures_of_a_series(tmp_path):
    """Of ten faces each: at any size and quality it is the same; moved, turned or looking elsewhere it is not."""
    for number in range(10):
        one = replace(face(number, faces.DOMAINS[number % 3]), gaze=(-0.5, 0.2))
        image = faces.draw(one, 256)
        save(tmp_path / "0.jpg", image, quality=95, subsampling=0)
        save(tmp_path / "1.jpg", image, quality=50)
        save(tmp_path / "2.webp", image.resize((170, 170), Image.Resampling.LANCZOS), quality=80)
        save(tmp_path / "3.jpg", image.resize((128, 128), Image.Resampling.BICUBIC), quality=80)
        save(tmp_path / "4.png", image.resize((600, 600), Image.Resampling.BICUBIC))
        save(tmp_path / "5.jpg", image.resize((700, 700), Image.Resampling.BICUBIC), quality=80)
        copies = [looked_at(path) for path in sorted(tmp_path.glob("*.*"))]
        assert originals(copies).tolist() == [0] * 6, number
        changes = [{}, {"x": one.x + 0.01}, {"tilt": one.tilt + 0.04}, {"gaze": (0.5, 0.2)}, {"size": one.size + 0.01}]
        series = [cells(faces.draw(replace(one, **change), 256)) for change in changes]
        assert originals(series).tolist() == [0, 1, 2, 3, 4], number


def test_all_are_compared_with_all():
    """More pictures than fit into a block; a copy of a copy is one of the original; faint ones that differ stay."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 250, (600, 8, 8, 3), dtype=np.uint8)
    coarse[300:303] = generator.integers(9, 15, (3, 8, 8, 3))  # dark, and not alike
    coarse[599] = coarse[0]
    coarse[598] = coarse[300]
    coarse[597] = coarse[599] + 1
    pictures = list(coarse.repeat(4, 1).repeat(4, 2))
    assert originals(pictures).tolist() == [*range(597), 0, 300, 0]
    assert originals([]).tolist() == []


def test_where_copies_end():
    """At 0.13 of the step from a cell to the next, all in all, and at 20 in a single cell; what is like a copy, but not
    like its original, is none."""
    board = np.indices((CELLS, CELLS)).sum(0)[..., None] % 2 * 100 + np.full(3, 50)
    assert np.allclose(detail(board[None].astype(np.uint8)), 100)
    dots = [board.copy() for _ in range(2)]
    dots[0][7, 7, 1] += 20
    dots[1][7, 7, 1] += 21
    chain = [board, board + 10, board + 20]
    cases = [
        ([board, board + 12], [0, 0]),
        ([board, board + 14], [0, 1]),
        ([board, *dots], [0, 0, 2]),
        (chain, [0, 0, 2]),
    ]
    for pictures, expected in cases:
        assert originals([one.astype(np.uint8) for one in pictures]).tolist() == expected


def test_which_of_the_copies_stays(tmp_path):
    """The first domain comes first, then the largest, then the one with most bytes, then the first name."""
    photos = fill(tmp_path / "photos", 2)
    one, two, three = (faces.draw(face(number), 256) for number in (20, 21, 22))
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
        "cat/a.jpg": ("duplicate", "the same picture as cat/c.jpg (256 x 256)"),
        "cat/b.jpg": ("duplicate", "the same picture as cat/c.jpg (256 x 256)"),
        "dog/d.png": (
            "duplicate",
            "the same picture as cat/c.jpg (256 x 256): it is kept in cat, so it cannot be in dog",
        ),
        "cat/f.jpg": ("duplicate", "the same file as cat/e.jpg (256 x 256)"),
        "dog/h.png": ("duplicate", "the same picture as dog/g.jpg (256 x 256)"),
    }
    assert {"cat/c.jpg", "cat/e.jpg", "dog/g.jpg"} < set(parts_of(tmp_path / "set"))


def test_what_is_left_out(tmp_path):
    photos = fill(tmp_path / "photos", 3)
    save(photos / "cat" / "small.png", faces.draw(face(7), 64).resize((90, 15)))
    save(photos / "cat" / "just.png", faces.draw(face(8), 64).resize((16, 90)))
    (photos / "dog" / "cut.jpg").write_bytes((photos / "dog" / "1.jpg").read_bytes()[:-500])
    (photos / "dog" / "empty.jpg").write_bytes(b"")
    prepare.prepare(photos, tmp_path / "set", SIZE)
    dropped = dropped_of(tmp_path / "set")
    assert dropped.keys() == {"cat/small.png", "dog/cut.jpg", "dog/empty.jpg"}
    assert dropped["cat/small.png"] == ("too small", "its smaller side has 15 pixels, less than 16")
    assert {dropped[file][0] for file in ("dog/cut.jpg", "dog/empty.jpg")} == {"unreadable"}
    assert str(tmp_path) not in dropped["dog/empty.jpg"][1] and "empty.jpg" in dropped["dog/empty.jpg"][1]
    prepare.prepare(photos, tmp_path / "set", SIZE, min_side=15)
    assert dropped_of(tmp_path / "set").keys() == {"dog/cut.jpg", "dog/empty.jpg"}


def test_what_pillow_warns_of(tmp_path, monkeypatch, capsys):
    """Large pictures are no reason to speak, in whatever thread (warnings are errors here)."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    prepare.prepare(fill(tmp_path / "photos", 8), tmp_path / "set", SIZE)
    assert len(parts_of(tmp_path / "set")) == 16
    assert "Warning" not in capsys.readouterr().err


def test_pictures_are_upright(tmp_path):
    """A file that says how it is to be turned gives the picture, and a copy of the one that needs no turning."""
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


def test_resizing(tmp_path):
    """By Lanczos; the middle of the picture, or all of it on white."""
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


def test_a_large_jpeg_loses_nothing(tmp_path, monkeypatch):
    """It is decoded at twice the side of the result or more; photographs then differ by 0.5 of 255 at most."""
    photos = fill(tmp_path / "photos", 2)
    sharp = faces.draw(face(30), 512).resize((1100, 800))
    save(photos / "cat" / "large.jpg", sharp, quality=95)
    decoded, squared = [], prepare.squared
    monkeypatch.setattr(prepare, "squared", lambda image, *how: decoded.append(image.size) or squared(image, *how))
    prepare.prepare(photos, tmp_path / "set", SIZE)
    assert sorted(decoded) == [(64, 64)] * 4 + [(138, 100)]
    made = picture(tmp_path / "set" / lines_of(tmp_path / "set")["cat/large.jpg"]["output"])
    save(tmp_path / "expected.jpg", squared(sharp, SIZE, "crop", Image.Resampling.LANCZOS), quality=95, subsampling=0)
    assert apart(made, picture(tmp_path / "expected.jpg")) < 3


def test_again(tmp_path):
    """What is right is left alone; what is no longer wanted goes, its folders too; new settings make all anew."""
    photos, out = fill(tmp_path / "photos", 4, ("cat", "dog", "bear")), tmp_path / "set"
    shutil.copy(photos / "cat" / "0.jpg", photos / "dog" / "copy.jpg")
    prepare.prepare(photos, out, SIZE)
    assert (out / "small" / "copy.jpg").is_file()
    made = content(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    prepare.prepare(photos, out, SIZE)
    assert content(out) == made
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    shutil.rmtree(photos / "bear")
    (photos / "cat" / "2.jpg").unlink()
    (photos / "dog" / "copy.jpg").unlink()
    prepare.prepare(photos, out, SIZE)
    gone = made.keys() - content(out).keys()
    assert {name.partition("/")[2] for name in gone} == {*(f"bear/{n}.jpg" for n in range(4)), "cat/2.jpg", "copy.jpg"}
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["train", "val"]
    assert {path.name for path in (out / "train").iterdir()} == {"cat", "dog"}
    prepare.prepare(photos, out, SIZE, resize="pad")
    assert not [path for path in out.glob("*/*/*.jpg") if path.stat().st_mtime_ns == times[path]]
    assert len(list(out.glob("*/*/*.jpg"))) == 7
    prepare.prepare(photos, out, 2 * SIZE)
    assert {picture(path).size for path in out.glob("*/*/*.jpg")} == {(2 * SIZE, 2 * SIZE)}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("writes", [0, 1, 5])
def test_killed_half_way(writes, tmp_path, monkeypatch):
    """At the first run, and at one with other settings and pictures: the next makes what an undisturbed one does."""
    photos, out = fill(tmp_path / "photos", 4, ("cat", "dog", "bear")), tmp_path / "set"

    def killed(*settings):
        left, write = [writes], prepare.write_image

        def some(path, image):
            if not left[0]:
                (path.parent / f".writing-1-{path.name}").parent.mkdir(parents=True, exist_ok=True)
                (path.parent / f".writing-1-{path.name}").write_bytes(b"half")
                raise Killed
            left[0] -= 1
            write(path, image)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(prepare, "usable_cores", lambda: 1)
            patch.setattr(prepare, "write_image", some)
            prepare.prepare(photos, out, *settings)
        return len(list(out.glob("*/*/[0-9]*.jpg")))

    assert killed(SIZE) == writes
    prepare.prepare(photos, out, SIZE)
    prepare.prepare(photos, tmp_path / "undisturbed", SIZE)
    assert content(out) == content(tmp_path / "undisturbed")
    shutil.rmtree(photos / "bear")
    fill(photos, 2, start=10)
    (out / "train" / "bear" / ".writing-1-x.jpg").write_bytes(b"half")
    killed(2 * SIZE, 0.5)
    assert not list(out.glob("*/bear"))
    prepare.prepare(photos, out, 2 * SIZE, 0.5)
    shutil.rmtree(tmp_path / "undisturbed")
    prepare.prepare(photos, tmp_path / "undisturbed", 2 * SIZE, 0.5)
    assert content(out) == content(tmp_path / "undisturbed")


def test_killed_between_removing_and_listing(tmp_path, monkeypatch):
    photos, out = fill(tmp_path / "photos", 4), tmp_path / "set"
    prepare.prepare(photos, out, SIZE)

    def kill(path):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(prepare, "replacing", kill)
        prepare.prepare(photos, out, 2 * SIZE)
    prepare.prepare(photos, out, 2 * SIZE)
    assert {picture(path).size for path in out.glob("*/*/*.jpg")} == {(2 * SIZE, 2 * SIZE)}
    assert len(list(out.glob("*/*/*.jpg"))) == 8


def test_ctrl_c(tmp_path, monkeypatch, capsys):
    def stop(path, image):
        raise KeyboardInterrupt

    photos = fill(tmp_path / "photos", 2)
    monkeypatch.setattr(prepare, "write_image", stop)
    assert run("--in", photos, "--out", tmp_path / "set", "--size", SIZE) == 130
    assert capsys.readouterr().err == "error: stopped; the same command goes on\n"
    assert not list((tmp_path / "set").rglob("*.jpg"))


def test_files_of_the_user(tmp_path, capsys):
    """They stay, and what would be in their place is an error; no list makes the program delete elsewhere."""
    photos, out = fill(tmp_path / "photos", 4), tmp_path / "set"
    save(out / "index.html.jpg", faces.draw(face(0), 16))
    prepare.prepare(photos, out, SIZE)
    own = [out / name for name in ("train/cat/mine.jpg", "val/bear/mine.png", "small/mine.jpg", "mine.txt")]
    for path in own:
        save(path, faces.draw(face(0), 16), format="PNG")
    capsys.readouterr()
    prepare.prepare(photos, out, 2 * SIZE)
    assert "has 2 images that this program did not make, " in capsys.readouterr().err
    shutil.rmtree(photos / "cat")
    prepare.prepare(fill(photos, 4, ("bear",)), out, SIZE)
    assert all(path.is_file() for path in own)
    assert not [path for path in out.glob("*/cat/*") if path not in own]
    save(photos / "bear" / "mine.png", faces.draw(face(99), 64))
    before = content(out)
    for part in ("train", "val"):
        save(out / part / "bear" / "mine.jpg", faces.draw(face(0), 16))
        before[f"{part}/bear/mine.jpg"] = (out / part / "bear" / "mine.jpg").read_bytes()
    with pytest.raises(UserError, match=r"mine\.jpg was not made by this program"):
        prepare.prepare(photos, out, SIZE)
    assert content(out) == before


@pytest.mark.parametrize("name", ["../mine.jpg", "train/../../mine.jpg", "/mine.jpg", "mine.jpg", "train/\\mine", 7])
def test_a_list_that_is_not_ours(name, tmp_path):
    photos, out = fill(tmp_path / "photos", 2), tmp_path / "set"
    out.mkdir()
    (tmp_path / "mine.jpg").write_bytes(b"")
    (out / "prepared.jsonl").write_text(json.dumps({"file": "x", "output": name}))
    with pytest.raises(UserError, match=r"prepared\.jsonl is damaged"):
        prepare.prepare(photos, out, SIZE)
    (out / "prepared.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"prepared\.jsonl is damaged"):
        prepare.prepare(photos, out, SIZE)
    assert (tmp_path / "mine.jpg").is_file()


def test_names_that_meet(tmp_path):
    """Each picture has a file of its own, also where names differ by capitals, suffixes or folders only."""
    photos = fill(tmp_path / "photos", 2)
    names = ("a/x.jpg", "b/x.jpg", "b/X.png", "c/a-x.jpg", "c/x.jpg", "c/x.png", "d/ü.jpg")
    for number, name in enumerate(names):
        save(photos / "cat" / name, faces.draw(face(50 + number), 64))
    prepare.prepare(photos, tmp_path / "set", SIZE)
    outputs = [line["output"] for line in lines_of(tmp_path / "set").values() if "output" in line]
    assert len(outputs) == 4 + len(names) == len({output.casefold() for output in outputs})
    for number, name in enumerate(names):
        made = picture(tmp_path / "set" / lines_of(tmp_path / "set")[f"cat/{name}"]["output"])
        assert apart(made, faces.draw(face(50 + number), 64).resize((SIZE, SIZE), Image.Resampling.LANCZOS)) < 5


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
    "there is none": (None, "--in photos --out set --size 32", "--in photos does not exist"),
    "no domains": (flat, "--in photos --out set --size 32", "has no sub-folders"),
    "empty domain": (empty_domain, "--in photos --out set --size 32", r"photos/bear has no images"),
    "too few": (one_of_a_domain, "--in photos --out set --size 32", r"cat has too few .*2 found, 1 unreadable"),
    "others": (images_of_others, "--in photos --out set --size 32", "val has images that this program did not make"),
    "a page": (page_of_others, "--in photos --out set --size 32", r"index\.html was not made by this program"),
    "a file": (file_in_the_way, "--in photos --out set --size 32", "--out set is a file"),
    "inside": (fill, "--in . --out cat/set", "lie in one another"),
    "around": (fill, "--in cat --out .", "lie in one another"),
    "itself": (fill, "--in cat --out dog/../cat", "lie in one another"),
    "size": (fill, "--in . --out ../set --size 100", "--size is 100, but must be a power of two"),
    "tiny": (fill, "--in . --out ../set --size 8", "--size is 8"),
    "share": (fill, "--in . --out ../set --val 1", r"--val is 1\.0"),
    "side": (fill, "--in . --out ../set --min_side 0", "--min_side is 0"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case, tmp_path, monkeypatch, capsys):
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


def data_of(page):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    return json.loads(text[1])


def test_the_page(tmp_path):
    """Numbers are those of the folders, and each file that it names is there."""
    photos, out = fill(tmp_path / "photos", 7), tmp_path / "a set"
    shutil.copy(photos / "cat" / "0.jpg", photos / "dog" / "a copy & <b>.jpg")
    save(photos / "dog" / "tiny.png", faces.draw(face(40), 64).resize((9, 9)))
    (photos / "cat" / "broken.jpg").write_bytes(b"")
    prepare.prepare(photos, out, SIZE, share=0.3)
    data = data_of(out / "index.html")
    sections = {section["title"]: section for section in data["sections"]}
    count = {
        (part, domain): len(list((out / part / domain).iterdir()))
        for part in ("train", "val")
        for domain in ("cat", "dog")
    }
    both = [count[part, "cat"] + count[part, "dog"] for part in ("train", "val")]
    assert sections["Domains"]["rows"] == [
        ["cat", 8, count["train", "cat"], count["val", "cat"], 0, 0, 1],
        ["dog", 9, count["train", "dog"], count["val", "dog"], 1, 1, 0],
        ["all", 17, *both, 1, 1, 1],
    ]
    assert data["status"].startswith(f"17 pictures: {both[0]} for training, {both[1]} for validation, 3 left out")
    rows = {row[0]: row[1:] for row in sections["Left out: 3 files"]["rows"]}
    assert {file: tuple(row[1:]) for file, row in rows.items()} == dropped_of(out)
    assert rows["dog/a copy & <b>.jpg"][0] == "dog"
    items = [item for section in data["sections"] for item in section.get("items", [])]
    assert len(items) == 14 + 2 and len({item["file"] for item in items}) == 16
    assert all((out / unquote(item[key])).is_file() for item in items for key in ("file", "shown"))
    assert sum("validation" in item["caption"] for item in items) == both[1]
    settings = dict(sections["Settings"]["rows"])
    assert (settings["size"], settings["val"], settings["min_side"]) == ("32", "0.3", "16")


def test_a_page_of_many(tmp_path, monkeypatch):
    """It shows some of each and says of how many."""
    monkeypatch.setattr(report, "SHOWN", 2)
    monkeypatch.setattr(report, "ROWS", 1)
    monkeypatch.setattr(prepare, "SMALL_MOST", 1)
    photos = fill(tmp_path / "photos", 3)
    for number in range(3):
        shutil.copy(photos / "cat" / f"{number}.jpg", photos / "dog" / f"copy {number}.jpg")
    prepare.prepare(photos, tmp_path / "set", SIZE)
    sections = {section["title"]: section for section in data_of(tmp_path / "set" / "index.html")["sections"]}
    shown = {title: len(section.get("items", section.get("rows"))) for title, section in sections.items()}
    assert shown["cat: 3 pictures"] == 2 and "first 2" in sections["cat: 3 pictures"]["note"]
    assert shown["Left out: 3 files"] == 1 and "first 1" in sections["Left out: 3 files"]["note"]
    assert shown["What was left out"] == 1 and "first 1 of 3" in sections["What was left out"]["note"]


def test_advice(tmp_path, capsys):
    def line(domain, part, side=64):
        return {"file": "x", "domain": domain, "output": f"{part}/{domain}/x.jpg", "width": side, "height": 64}

    report.advise([line("cat", "train", 20)] * 100 + [line("cat", "val")] * 5, Path("my set"), 32)
    said, warned = capsys.readouterr()
    assert "one domain" in warned and "fewer" not in warned
    assert '--train_img_dir "my set/train"' in said and "100 pictures have a side below 32 pixels" in said
    report.advise([line("cat", "train")] * 1200 + [line("dog", "train")] * 99, Path("set"), 32)
    said, warned = capsys.readouterr()
    assert "(dog 99)" in warned and "one domain" not in warned
    assert "Domains differ much in size" in said and "below" not in said
