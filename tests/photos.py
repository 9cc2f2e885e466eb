"""Folders of images to prepare, and readers of the prepared data set."""

import json

import numpy as np

from data import demo_faces, prepare

SIZE = 32


def face(number, domain="cat"):
    return demo_faces.random_face(domain, np.random.default_rng(number))


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def fill(folder, count=6, domains=("cat", "dog"), start=0):
    """Different images of 64 px, {folder}/{domain}/{number}.jpg."""
    for domain in domains:
        for number in range(start, start + count):
            save(folder / domain / f"{number}.jpg", demo_faces.draw(face(number, domain), 64), quality=95)
    return folder


def lines_of(out):
    lines = map(json.loads, (out / "prepared.jsonl").read_text(encoding="utf-8").splitlines())
    return {line["file"]: line for line in lines}


def parts_of(out):
    """{input file: its part} of the images in the data set."""
    assert all((out / line["output"]).is_file() for line in lines_of(out).values() if "output" in line)
    return {file: line["output"].split("/")[0] for file, line in lines_of(out).items() if "output" in line}


def dropped_of(out):
    return {file: (line["dropped"], line["why"]) for file, line in lines_of(out).items() if "dropped" in line}


def content(folder):
    """{name: bytes} of all files except the lock and the page, which shows the time."""
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
