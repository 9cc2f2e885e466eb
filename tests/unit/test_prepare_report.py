"""The page of a prepared data set, and the advice."""

import json
import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

from data import demo_faces, prepare, prepare_report
from tests.photos import SIZE, dropped_of, face, fill, save


def data_of(page):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    return json.loads(text[1])


def test_page_numbers_and_files_match_the_folders(tmp_path):
    photos, out = fill(tmp_path / "photos", 7), tmp_path / "a set"
    shutil.copy(photos / "cat" / "0.jpg", photos / "dog" / "a copy & <b>.jpg")
    save(photos / "dog" / "tiny.png", demo_faces.draw(face(40), 64).resize((9, 9)))
    (photos / "cat" / "broken.jpg").write_bytes(b"")
    prepare.prepare(photos, out, SIZE, val=0.3)
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
    assert data["status"].startswith(f"17 images: {both[0]} for training, {both[1]} for validation, 3 skipped")
    rows = {row[0]: row[1:] for row in sections["Skipped: 3 files"]["rows"]}
    assert {file: tuple(row[1:]) for file, row in rows.items()} == dropped_of(out)
    assert rows["dog/a copy & <b>.jpg"][0] == "dog"
    items = [item for section in data["sections"] for item in section.get("items", [])]
    assert len(items) == 14 + 2 and len({item["file"] for item in items}) == 16
    assert all((out / unquote(item[key])).is_file() for item in items for key in ("file", "shown"))
    assert sum("validation" in item["caption"] for item in items) == both[1]
    settings = dict(sections["Settings"]["rows"])
    assert (settings["size"], settings["val"], settings["min_side"]) == ("32", "0.3", "16")


def test_long_pages_show_the_first_images_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_report, "SHOWN", 2)
    monkeypatch.setattr(prepare_report, "ROWS", 1)
    monkeypatch.setattr(prepare, "SMALL_MOST", 1)
    photos = fill(tmp_path / "photos", 3)
    for number in range(3):
        shutil.copy(photos / "cat" / f"{number}.jpg", photos / "dog" / f"copy {number}.jpg")
    prepare.prepare(photos, tmp_path / "set", SIZE)
    sections = {section["title"]: section for section in data_of(tmp_path / "set" / "index.html")["sections"]}
    shown = {title: len(section.get("items", section.get("rows"))) for title, section in sections.items()}
    assert shown["cat: 3 images"] == 2 and "first 2" in sections["cat: 3 images"]["note"]
    assert shown["Skipped: 3 files"] == 1 and "first 1" in sections["Skipped: 3 files"]["note"]
    assert shown["Skipped images"] == 1 and "first 1 of 3" in sections["Skipped images"]["note"]


def test_advice_matches_the_data_set(tmp_path, capsys):
    def line(domain, part, side=64):
        return {"file": "x", "domain": domain, "output": f"{part}/{domain}/x.jpg", "width": side, "height": 64}

    prepare_report.advise([line("cat", "train", 20)] * 100 + [line("cat", "val")] * 5, Path("my set"), 32)
    said, warned = capsys.readouterr()
    assert "only one domain" in warned and "fewer" not in warned
    quote = '"' if os.name == "nt" else "'"
    assert f"--train_img_dir {quote}my set/train{quote}" in said and "Enlarged 100 images with a side below 32" in said
    prepare_report.advise([line("cat", "train")] * 1200 + [line("dog", "train")] * 99, Path("set"), 32)
    said, warned = capsys.readouterr()
    assert "(dog 99)" in warned and "only one domain" not in warned
    assert "Domains differ much in size" in said and "below" not in said
