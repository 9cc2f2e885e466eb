"""The outputs of sample mode: grids, videos and single images, written group by group of sources."""

import json
from contextlib import ExitStack
from functools import cache
from itertools import chain, count
from pathlib import Path

from core.images.clips import BadClip
from core.images.folders import mirrored_names
from core.images.fonts import code_of
from core.images.io import write_image
from core.report import page
from core.sampling import translate, video
from core.sampling.snapshots import SMALL
from core.system import console
from core.system.errors import UserError
from core.system.files import clear_away, file_names, safe_name, write_text
from core.system.memory import chunks
from core.system.notes import read_json_lines

SMALL_WIDTH = 1600  # pixels, of the small version of a large grid
MOST_VIDEOS = 8  # encoders that run at once
MOST_SHOWN = 600  # single images on the page
CAPTIONS = {  # prefix of a file name -> caption on the page
    "reference": "Sources (top) in the style and domain of each reference (left)",
    "latent": "Sources (top) in random styles, one row per seed",
    "video_ref": "Interpolation between the styles of references",
    "video_latent": "Interpolation between random styles",
}


class OutputWriter:
    """Writer of files in `folder`; a name that is in use gets the suffix _2, _3, ...

    domains: names in label order. mirrored: the folder of the sources, if a tree of folders for each style mirrors it.
    """

    def __init__(self, generator, folder, inference_batch, domains, titled=False, video_format="mp4",
                 image_format="png", mirrored=None):  # fmt: skip
        self.generator, self.folder, self.inference_batch = generator, Path(folder), inference_batch
        self.domains, self.titled, self.mirrored = domains, titled, mirrored
        self.video_format, self.image_format = video_format, image_format
        for incomplete in (self.folder, self.folder / SMALL):
            clear_away(incomplete, older_than=3600)  # Other running programs may also write there.
        self.taken, self.manifest = set(), {}  # file names used; {name of a single image: manifest entry}
        self.tree = cache(lambda name, origin: self._free_path(name).name)  # folder of a style
        self.has_written = False
        self.has_warned = False  # of characters that no font has

    def write(self, output, sources, styles):
        """Translate the sources into the styles and write them as one of --outputs: a grid or an interpolation."""
        if output.startswith("video"):
            self.video(output, sources, styles)
        elif output == "reference":
            self.grid(output, sources, styles)
        else:  # latent: a grid for each domain
            for label in dict.fromkeys(styles.labels):
                first = styles.labels.index(label)
                of_domain = styles[first : first + styles.labels.count(label)]
                self.grid(f"{output}_{safe_name(self.domains[label])}", sources, of_domain)

    def grid(self, name, sources, styles):
        """Write a grid of sources and styles, on several pages if it is large."""
        columns = 1 + len(sources)
        for page_rows in translate.grid_pages(len(sources), len(styles), sources.shown.shape[1]):
            path = self._free_path(name, ".jpg")
            rows = self._rows(path.name, sources, styles[page_rows])
            grid = translate.style_grid(sources, styles[page_rows], rows, self.domains if self.titled else None)
            self._warn_about_font(grid.missing)
            grid.save(path)
            grid.save_small(self.folder / SMALL / path.name, columns, max(16, SMALL_WIDTH // columns))
            del grid  # frees up to a quarter of a gigabyte before the next page is created
            self._report(path)

    def _warn_about_font(self, missing):
        if missing and not self.has_warned:
            self.has_warned = True
            number, example = console.counted(len(missing), "character"), code_of(min(missing))
            console.warn(
                f"No installed font has {number} of the labels. Grids show codes such as {example} or similar "
                "characters instead. To see the names, install a font with these characters, such as Noto Sans CJK."
            )

    def video(self, name, sources, styles):
        """Write a video that interpolates the sources between consecutive styles of the same domain."""
        path, pairs = self._free_path(name, f".{self.video_format}"), video.style_pairs(styles.labels)
        frames = video.video_frames(self.generator, sources, styles, pairs, self.inference_batch)
        frames = console.progress(frames, total=video.frame_count(pairs), desc=path.name, unit="frame")
        video.write_video(path, frames)
        self._report(path)

    def images(self, paths, loader, styles, translator):
        """Write an image for each source and style. loader: of their (Fitted image, label)."""
        target_of = self._targets(styles)
        sources = zip(paths, self._names(paths), loader, strict=True)
        for path, name, (image, _) in console.progress(sources, total=len(paths), desc="images", unit="image"):
            (label,) = translate.folder_labels([path], self.domains)
            source = translator.encode(image, label)
            for row, output in enumerate(translator.render(source, image, styles.codes)):
                file = self._single(name, target_of[row], self.image_format)
                write_image(file, output)
                self._list(file, path, styles, row, translator.strength)

    def clips(self, clips, styles, translator):
        """Write a video for each clip and style. Raises UserError if no clip can be read to its end."""
        bad = []
        for clip, name in zip(clips, self._names([clip.path for clip in clips]), strict=True):
            try:
                for rows in chunks(len(styles), MOST_VIDEOS):
                    self._clip(clip, name, styles[rows], translator)
            except BadClip as error:
                bad.append(error)
                if len(clips) > 1:
                    console.warn(f"Skipping a clip. {error}")
        if len(bad) == len(clips):
            raise bad[0] if len(bad) == 1 else UserError(f"Cannot translate any of {len(bad)} clips. Replace them.")

    def _clip(self, clip, name, styles, translator):
        """Write a video of one clip for each style. All are written while the clip is read once."""
        sound = clip if clip.has_sound and self.video_format == "mp4" else None
        (label,) = translate.folder_labels([clip.path], self.domains)
        files = [self._single(name, target, self.video_format) for target in self._targets(styles)]
        frames = console.progress(clip.frames(), total=clip.count, desc=clip.path.name, unit="frame")
        with ExitStack() as stack:
            writers = [stack.enter_context(video.video_file(path, clip.rate, clip.time_base, sound)) for path in files]
            for frame, arrays in translator.frames(frames, styles.codes, label):
                for write, array in zip(writers, arrays, strict=True):
                    write(array, frame.time, frame.duration)
        for row, path in enumerate(files):
            self._list(path, clip.path, styles, row, translator.strength)
            self._report(path)

    def _names(self, paths):
        """Return a name for each source, which may contain folders."""
        return file_names(paths) if self.mirrored is None else mirrored_names(paths, self.mirrored)

    def _targets(self, styles):
        """Return a name for each style, that of its folder if outputs mirror the sources."""
        labels = [safe_name(self.domains[label]) for label in styles.labels]
        names = [f"{label}__{style}" for label, style in zip(labels, styles.names, strict=True)]
        return names if self.mirrored is None else list(map(self.tree, names, map(repr, styles.origins)))

    def _single(self, name, target, suffix):
        """Return the path of the file for one source and one style."""
        if self.mirrored is None:
            return self._free_path(f"{name}__{target}", f".{suffix}")
        return self.folder / target / f"{name}.{suffix}"

    def _list(self, file, source, styles, row, strength):
        """Add a file for one source and one style to the manifest."""
        name = file.relative_to(self.folder).as_posix()
        used = {} if strength == 1 else {"strength": strength}
        domain = self.domains[styles.labels[row]]
        self.manifest[name] = {"file": name, "source": str(source), "domain": domain, **styles.origins[row], **used}

    def finish(self, settings=()):
        """Write manifest.jsonl (the single images) and index.html; both include the outputs of earlier runs."""
        if self.manifest:
            path = self.folder / "manifest.jsonl"
            entries = (_existing_images(path) | self.manifest).values()
            write_text(path, "".join(f"{json.dumps(entry)}\n" for entry in entries))
            console.info(f"Wrote {console.counted(len(self.manifest), 'file')} and {path}")
        if self.has_written or self.manifest:
            try:
                write_page(self.folder, settings)
                console.info(f"Wrote {self.folder / 'index.html'} (open it in a browser to see all results)")
            except UserError as error:  # not fatal: the outputs themselves exist
                console.warn(str(error))

    def _report(self, path):
        self.has_written = True
        console.info(f"Wrote {path}")

    def _rows(self, title, sources, styles):
        rows = translate.translate_rows(self.generator, sources, styles.codes, self.inference_batch)
        return console.progress(rows, total=len(styles), desc=title, unit="style")

    def _free_path(self, name, suffix=""):
        """Return a path that this run has not used. Case is ignored, as some file systems do."""
        names = chain([f"{name}{suffix}"], (f"{name}_{number}{suffix}" for number in count(2)))
        free = next(text for text in names if text.casefold() not in self.taken)
        self.taken.add(free.casefold())
        return self.folder / free


def write_page(folder, settings):
    """Write {folder}/index.html: videos and grids, newest first, then single images by domain."""
    sections, singles = [], _existing_images(folder / "manifest.jsonl").values()
    for title, suffixes in (("Videos", video.FORMATS), ("Grids", [".jpg"])):
        paths = [path for path in folder.iterdir() if path.suffix in suffixes and _caption(path)]
        paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        if paths:
            sections.append(page.gallery(title, [_output_item(path) for path in paths], cell=480))
    for domain in sorted({entry["domain"] for entry in singles}):
        images = [entry for entry in singles if entry["domain"] == domain]
        note = f"The first {MOST_SHOWN} of {len(images):,} images. The others are in the same folder as this page."
        items = [_image_item(entry) for entry in images[:MOST_SHOWN]]
        # Browsers hide small videos behind their controls.
        cell = 300 if any(entry["file"].endswith(".mp4") for entry in images) else 150
        sections.append(page.gallery(f"To {domain}", items, note if len(images) > MOST_SHOWN else "", cell))
    page.write_page(folder / "index.html", "StarGAN v2: results", [*sections, *page.about(settings)])


def _caption(path):
    """Return the caption of a grid or video by the prefix of its name; an empty string for other files."""
    return next((caption for beginning, caption in CAPTIONS.items() if path.stem.startswith(beginning)), "")


def _output_item(path):
    small = Path(SMALL, path.name) if (path.parent / SMALL / path.name).exists() else None
    return page.picture(path.name, f"{path.name}: {_caption(path)}", small)


def _image_item(entry):
    style = f"seed {entry['seed']}" if "seed" in entry else f"style of {Path(entry.get('reference', '')).name}"
    style = f"style {entry['style']}" if "style" in entry else style
    _, is_mirrored, name = entry["file"].partition("/")
    return page.picture(entry["file"], f"{name if is_mirrored else Path(entry['source']).name}, {style}")


def _existing_images(manifest):
    """Read the manifest entries whose files still exist: {name: entry}."""
    existing = {path.relative_to(manifest.parent).as_posix() for path in manifest.parent.rglob("*")}
    return {row["file"]: row for row in read_json_lines(manifest, _is_entry) if row["file"] in existing}


def _is_entry(row):
    """Whether a line of the manifest names an image, its source, its domain and its style."""
    texts = all(isinstance(row.get(name), str) for name in ("file", "source", "domain"))
    is_named = any(isinstance(row.get(name), str) for name in ("reference", "style"))
    return texts and (type(row.get("seed")) is int or ("seed" not in row and is_named))


def possible_outputs(wanted, styles):
    """Return the (output, kind of styles) pairs that are possible with {kind: Styles}. Raises UserError if none is."""
    possible = [(output, kind) for output, kind in wanted
                if not output.startswith("video_") or video.style_pairs(styles[kind].labels)]  # fmt: skip
    impossible = [output for output, kind in wanted if (output, kind) not in possible]
    names, need = ", ".join(impossible), "a video needs two references or two seeds of one domain"
    if not possible:
        raise UserError(f"Cannot write {names} ({need}). Give more references or seeds.")
    if impossible:
        console.warn(f"Skipping {names}: {need}. The other outputs are written.")
    return possible
