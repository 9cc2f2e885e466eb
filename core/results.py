"""What sample mode writes: grids, videos and single images, for one group of sources after the other."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from core import log, sampling, video
from core.files import replacing, safe_name


class Results:
    """Writes into `folder`; a second page of anything gets the suffix _2, and so on.

    generator: G. fit: calls work(size) with the number of images that may go through G at once. domains:
    names in label order. titled: whether grids name their rows and columns. video_format: mp4, gif or webp.
    """

    def __init__(self, generator, folder, fit, domains, titled=False, video_format="mp4"):
        self.generator, self.folder, self.fit = generator, Path(folder), fit
        self.domains, self.titled, self.video_format = domains, titled, video_format
        self.pages, self.manifest = Counter(), []

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
                first, count = styles.labels.index(label), styles.labels.count(label)
                part = styles.part(slice(first, first + count))
                self.grid(f"{output}_{safe_name(self.domains[label])}", sources, part)

    def grid(self, name, sources, styles):
        """Sources by styles, in as many pictures as need be."""
        for page in sampling.grid_pages(len(sources.shown), len(styles.labels), sources.shown.shape[1]):
            path = self._next(name, ".jpg")
            self.fit(partial(self._grid, path, sources, styles.part(page)))
            log.say(f"Wrote {path}")

    def _grid(self, path, sources, styles, size):
        rows = self._rows(path.name, sources, styles, size)
        sampling.style_grid(sources, styles, rows, self.domains if self.titled else None).save(path)

    def video(self, name, sources, styles):
        """The sources in one style melting into the next, wherever two of a domain follow one another."""
        pairs = video.style_pairs(styles.labels)
        path = self._next(name, f".{self.video_format}")
        if not pairs:
            if self.pages[name] == 1:
                log.warn(f"no {path.name}: a video needs two references, or two seeds, of one domain")
            return
        self.fit(partial(self._video, path, sources, styles, pairs))
        log.say(f"Wrote {path}")

    def _video(self, path, sources, styles, pairs, size):
        frames = video.video_frames(self.generator, sources, styles, pairs, size)
        total = video.frame_count(pairs)
        video.write_video(path, log.progress(frames, total=total, desc=path.name, unit="frame"))

    def images(self, sources, styles):
        """A PNG for each source and style."""
        names = self._image_names(sources, styles)
        written = {entry["file"] for entry in self.manifest}
        if any(name in written for row in names for name in row):  # seed 3, and a reference named 3
            names = self._image_names(sources, styles, "seed")
        self.fit(partial(self._images, names, sources, styles))
        for label, origin, row in zip(styles.labels, styles.origins, names, strict=True):
            of_row = {"domain": self.domains[label], **origin}
            self.manifest += [
                {"file": file, "source": str(path), **of_row} for file, path in zip(row, sources.paths, strict=True)
            ]

    def _image_names(self, sources, styles, prefix=""):
        """For each style, a file name for each source."""
        return [
            [f"{source}__{safe_name(self.domains[label])}__{prefix}{style}.png" for source in sources.names]
            for label, style in zip(styles.labels, styles.names, strict=True)
        ]

    def _images(self, names, sources, styles, size):
        for files, row in zip(names, self._rows("images", sources, styles, size), strict=True):
            for file, image in zip(files, row, strict=True):
                with replacing(self.folder / file) as temporary:
                    Image.fromarray(np.ascontiguousarray(image)).save(temporary)

    def finish(self):
        """Write manifest.jsonl, which says what the single images are."""
        if self.manifest:
            lines = [json.dumps(entry, ensure_ascii=False) for entry in self.manifest]
            with replacing(self.folder / "manifest.jsonl") as temporary:
                temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
            log.say(f"Wrote {len(lines)} images and {self.folder / 'manifest.jsonl'}")

    def _rows(self, title, sources, styles, size):
        rows = sampling.translate_rows(self.generator, sources, styles.codes, size)
        return log.progress(rows, total=len(styles.labels), desc=title, unit="style")

    def _next(self, name, suffix):
        self.pages[name] += 1
        number = self.pages[name]
        return self.folder / f"{name}{f'_{number}' if number > 1 else ''}{suffix}"
