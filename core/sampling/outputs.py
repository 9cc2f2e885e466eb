"""What sample mode writes: grids, videos and single images, for one group of sources after the other."""

import json
from functools import partial
from itertools import chain, count
from pathlib import Path

from core.images.io import write_image
from core.report import page
from core.sampling import translate, video
from core.sampling.video import FORMATS
from core.system import console
from core.system.errors import UserError
from core.system.files import atomic_write, safe_name

SMALL, SMALL_WIDTH = "small", 1600  # folder for smaller versions of large grids, for the page; pixels
MOST_SHOWN = 600  # single images on the page
WHAT = {  # how names begin -> what the page says
    "reference": "Sources (top) in the style, and domain, of each reference (left)",
    "latent": "Sources (top) in random styles, a row for each seed",
    "video_ref": "From reference to reference",
    "video_latent": "From seed to seed",
}


class OutputWriter:
    """Writes into `folder`. Names that are taken get the suffix _2, and so on: pages of one grid, and files of
    different origin whose names would be the same.

    generator: G. fit: calls work(size) with the number of images that may go through G at once. domains:
    names in label order. titled: whether grids name their rows and columns. video_format: mp4, gif or webp.
    """

    def __init__(self, generator, folder, fit, domains, titled=False, video_format="mp4"):
        self.generator, self.folder, self.fit = generator, Path(folder), fit
        self.domains, self.titled, self.video_format = domains, titled, video_format
        self.taken, self.manifest = set(), {}  # names; name of a single image -> what it is

    def write(self, output, sources, styles):
        """Write one of --outputs: the sources in the styles."""
        if output == "images":
            self.images(sources, styles)
        elif output.startswith("video"):
            self.video(output, sources, styles)
        elif output == "reference":
            self.grid(output, sources, styles)
        else:  # latent: a picture for each domain
            for label in dict.fromkeys(styles.labels):
                first = styles.labels.index(label)
                part = styles.part(slice(first, first + styles.labels.count(label)))
                self.grid(f"{output}_{safe_name(self.domains[label])}", sources, part)

    def grid(self, name, sources, styles):
        """Sources by styles, in as many pictures as need be."""
        for rows in translate.grid_pages(len(sources.shown), len(styles.labels), sources.shown.shape[1]):
            path = self._free(name, ".jpg")
            self.fit(partial(self._grid, path, sources, styles.part(rows)))
            console.info(f"Wrote {path}")

    def _grid(self, path, sources, styles, size):
        rows = self._rows(path.name, sources, styles, size)
        grid = translate.style_grid(sources, styles, rows, self.domains if self.titled else None)
        grid.save(path)
        columns = 1 + len(sources.shown)
        grid.save_small(self.folder / SMALL / path.name, columns, max(16, SMALL_WIDTH // columns))

    def video(self, name, sources, styles):
        """The sources in one style melting into the next, wherever two of a domain follow one another."""
        path = self._free(name, f".{self.video_format}")
        self.fit(partial(self._video, path, sources, styles, video.style_pairs(styles.labels)))
        console.info(f"Wrote {path}")

    def _video(self, path, sources, styles, pairs, size):
        frames = video.video_frames(self.generator, sources, styles, pairs, size)
        total = video.frame_count(pairs)
        video.write_video(path, console.progress(frames, total=total, desc=path.name, unit="frame"))

    def images(self, sources, styles):
        """A PNG for each source and style."""
        paths = [
            [self._free(f"{source}__{safe_name(self.domains[label])}__{style}", ".png") for source in sources.names]
            for label, style in zip(styles.labels, styles.names, strict=True)
        ]
        self.fit(partial(self._images, paths, sources, styles))

    def _images(self, paths, sources, styles, size):
        rows = self._rows("images", sources, styles, size)
        for row, files, label, origin in zip(rows, paths, styles.labels, styles.origins, strict=True):
            for path, image, source in zip(files, row, sources.paths, strict=True):
                write_image(path, image)
                entry = {"file": path.name, "source": str(source), "domain": self.domains[label], **origin}
                self.manifest[path.name] = json.dumps(entry)

    def finish(self, settings=()):
        """Write manifest.jsonl, which says what the single images are, and the page index.html of all there is.

        Both tell of earlier runs, too, as far as their files still stand. settings: (flag, value) rows for the page.
        """
        if self.manifest:
            self._write_manifest()
        if self.manifest or self.taken:
            try:
                write_page(self.folder, settings)
            except UserError as error:  # what it would show is there
                console.warn(str(error))
                return
            console.info(f"Wrote {self.folder / 'index.html'}, a page that shows them")

    def _write_manifest(self):
        path, number = self.folder / "manifest.jsonl", len(self.manifest)
        lines = {**_standing(path), **self.manifest}
        with atomic_write(path) as temporary:
            temporary.write_text("\n".join(lines.values()) + "\n", encoding="utf-8")
        console.info(f"Wrote {number} images and {path}")

    def _rows(self, title, sources, styles, size):
        rows = translate.translate_rows(self.generator, sources, styles.codes, size)
        return console.progress(rows, total=len(styles.labels), desc=title, unit="style")

    def _free(self, name, suffix):
        """A path that nothing of this run has; capitals do not tell files apart on every system."""
        names = chain([f"{name}{suffix}"], (f"{name}_{number}{suffix}" for number in count(2)))
        free = next(text for text in names if text.casefold() not in self.taken)
        self.taken.add(free.casefold())
        return self.folder / free


def write_page(folder, settings):
    """Write {folder}/index.html: grids and videos, the newest first, then single images by domain."""
    singles = [json.loads(line) for line in _standing(folder / "manifest.jsonl").values()]
    known = {entry["file"] for entry in singles}
    found = [path for path in folder.iterdir() if path.name not in known and _what(path)]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    sections = []
    for title, kinds in (("Videos", FORMATS), ("Grids", (".jpg",))):
        items = [_shown(path) for path in found if path.suffix in kinds]
        if items:
            sections.append(page.gallery(title, items, cell=480))
    for domain in sorted({entry["domain"] for entry in singles}):
        of_it = [entry for entry in singles if entry["domain"] == domain]
        note = f"The first {MOST_SHOWN} of {len(of_it)}; the others lie beside this page." * (len(of_it) > MOST_SHOWN)
        items = [page.picture(entry["file"], _caption(entry)) for entry in of_it[:MOST_SHOWN]]
        sections.append(page.gallery(f"Into {domain}", items, note, cell=150))
    page.write_page(folder / "index.html", "StarGAN v2: results", [*sections, *page.about(settings)])


def _what(path):
    """What a file shows, by how its name begins; an empty text for what is not ours."""
    stem = max((stem for stem in WHAT if path.stem.startswith(stem)), key=len, default="")
    return WHAT.get(stem, "") if path.suffix in (".jpg", *FORMATS) else ""


def _shown(path):
    small = Path(SMALL, path.name)
    small = small if (path.parent / small).exists() else None
    return page.picture(path.name, f"{path.name}: {_what(path)}", small)


def _caption(entry):
    style = f"seed {entry['seed']}" if "seed" in entry else f"as {Path(entry['reference']).name}"
    return f"{Path(entry['source']).name}, {style}"


def _standing(manifest):
    """The lines of an earlier manifest whose files are still there: {name: line}."""
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
        rows = [(json.loads(line), line) for line in lines]
        entries = {row["file"]: line for row, line in rows if {"source", "domain"} <= set(row)}
        return {name: line for name, line in entries.items() if (manifest.parent / name).exists()}
    except (OSError, ValueError, LookupError, TypeError):
        return {}  # there is none, or it is not ours
