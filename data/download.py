"""Download the data sets and pretrained networks that the authors of StarGAN v2 publish.

python -m data.download afhq-dataset                     data/afhq
python -m data.download pretrained-network-celeba-hq wing
python -m data.download wing --url https://example.org/wing.ckpt
python -m data.download afhq-dataset --from_file afhq.zip

Names: celeba-hq-dataset, afhq-dataset, afhq-v2-dataset, pretrained-network-celeba-hq, pretrained-network-afhq, wing.
Run the same command again to resume an interrupted download. Existing files are not downloaded again.
"""

import http.client
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path, PurePosixPath

from core.cli.parser import Parser
from core.cli.values import PATH, SWITCH, TEXT, nearest
from core.system import console
from core.system.errors import UserError, reason
from core.system.files import atomic_write, make_folder, system_errors

DROPBOX = "https://www.dropbox.com/s/{}?dl=1"
FILES = {  # name -> {target: address}; a zip archive is unpacked into a folder
    "celeba-hq-dataset": {"data/celeba_hq": "f7pvjij2xlpff59/celeba_hq.zip"},
    "afhq-dataset": {"data/afhq": "t9l9o3vsx2jai3z/afhq.zip"},
    "afhq-v2-dataset": {"data/afhq_v2": "vkzjokiwof5h8w6/afhq_v2.zip"},
    "pretrained-network-celeba-hq": {
        "expr/checkpoints/celeba_hq/100000_nets_ema.ckpt": "96fmei6c93o8b8t/100000_nets_ema.ckpt"
    },
    "pretrained-network-afhq": {"expr/checkpoints/afhq/100000_nets_ema.ckpt": "etwm810v25h42sn/100000_nets_ema.ckpt"},
    "wing": {
        "expr/checkpoints/wing.ckpt": "tjxpypwpt38926e/wing.ckpt",
        "expr/checkpoints/celeba_lm_mean.npz": "91fth49gyb7xksk/celeba_lm_mean.npz",
    },
}
BROKEN_OFF = (OSError, http.client.HTTPException)  # urllib raises OSErrors
TRIES, PAUSE, PATIENCE = 5, 2.0, 30.0  # seconds
BLOCK = 2**20  # bytes


class Unusable(UserError):
    """A file has the wrong content, so another attempt would not help."""


def fetch(url, part):
    """Download a URL into the file `part`, or resume an interrupted download. Raises UserError."""
    idle = 0  # consecutive attempts without a new byte
    while idle < TRIES:
        size_before = _size(part)
        try:
            _transfer(url, part)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416 and _note_of(part).exists():  # no bytes are left: the part is complete
                return
            if error.code < 500:
                raise UserError(f"Cannot download {url} ({error.code} {error.reason}). {_elsewhere(url)}") from error
            problem = f"{error.code} {error.reason}"
        except (http.client.InvalidURL, ValueError) as error:  # ValueError: not ASCII, for example
            raise UserError(f"Cannot download {url} (invalid address: {error}). {_elsewhere(url)}") from error
        except BROKEN_OFF as error:
            if getattr(error, "filename", None):  # an error of this machine, not of the network
                problem = f"Cannot write {error.filename} ({reason(error)})"
                raise UserError(f"{problem}. Check the folder and free space.") from error
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        idle = 0 if _size(part) > size_before else idle + 1
        time.sleep(PAUSE)
    raise UserError(
        f"Cannot download {url} ({problem}; {_size(part):,} bytes received so far). Run the same command again to "
        f"resume. {_elsewhere(url)}"
    )


def _transfer(url, part):
    """Attempt a download once. It starts over if no note beside the part records the version of the file."""
    note = _note_of(part)
    start = _size(part) if note.exists() else 0
    headers = {"User-Agent": "python -m data.download"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": note.read_text(encoding="utf-8")}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (checked by `get`)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
        if answer.status != 206:  # the server sends the complete file
            start = 0
            # A strong ETag identifies the version of a file. Otherwise the time of the last change does.
            tag = answer.headers.get("ETag", "W/")
            version = answer.headers.get("Last-Modified") if tag.startswith("W/") else tag
            note.unlink(missing_ok=True)
            if version:
                note.write_text(version, encoding="utf-8")
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            note.unlink()
            raise http.client.HTTPException("the server sent a different byte range than requested")
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        bar = console.progress(desc=part.stem, total=total, initial=start, unit="B", unit_scale=True)
        with part.open("ab" if start else "wb") as file, bar:
            while block := answer.read(BLOCK):
                bar.update(file.write(block))
    if total is not None and _size(part) < total:
        raise http.client.HTTPException("the connection was closed too early")


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _note_of(part):
    return part.with_name(f"{part.name}.version")


def _name_of(url):
    """Return the file name in a URL or path."""
    return PurePosixPath(url.partition("?")[0].replace("\\", "/")).name


def _elsewhere(url):
    return f"Use another address with --url, or download {_name_of(url)} in a browser and use --from_file."


def kind_of(target):
    """Return the suffix of a target, or ".zip" for a folder."""
    return Path(target).suffix or ".zip"


def check(path, kind, origin):
    """Raise Unusable if a file is not of its kind: ".zip" (a data set), ".npz" or ".ckpt"."""
    with path.open("rb") as file:
        head = file.read(512).lstrip()
    names = []
    with suppress(zipfile.BadZipFile, OSError, ValueError), zipfile.ZipFile(path) as content:
        names = content.namelist()
    pickled = head.startswith(b"\x80")  # format of PyTorch before 1.6
    fits = {
        ".ckpt": pickled or any(name.endswith("data.pkl") for name in names),
        ".npz": any(name.endswith(".npy") for name in names),
        ".zip": any("train" in PurePosixPath(name).parts for name in names),
    }
    if not fits[kind]:
        content = "a web page" if head[:1] == b"<" else "a different or damaged file"
        wanted = "zip archive of a data set" if kind == ".zip" else f"{kind} file"
        raise Unusable(f"Cannot use {origin} (expected a {wanted}, got {content}). {_elsewhere(origin)}")


def unpack(archive, folder):
    """Unpack a zip archive into a new folder, completely or not at all. Raises UserError, also for unsafe archives."""
    unpacking = folder.with_name(f"{folder.name}.unpacking")
    shutil.rmtree(unpacking, ignore_errors=True)
    try:
        unpacking.mkdir(parents=True)
        with zipfile.ZipFile(archive) as content:
            entries = content.infolist()
            for entry in entries:
                if not _is_safe(entry):
                    raise Unusable(
                        f"Cannot unpack {archive} (its entry {entry.filename} could write outside the target). "
                        "Use an archive from a trusted source."
                    )
            size, free = sum(entry.file_size for entry in entries), shutil.disk_usage(unpacking).free
            if size > free:
                room = f"needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
                raise UserError(f"Cannot unpack {archive} ({room}). Free some space.")
            content.extractall(unpacking, console.progress(entries, desc=f"unpacking {archive.stem}"))
        inside = [path for path in unpacking.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        root = unpacking if (unpacking / "train").is_dir() or len(inside) != 1 else inside[0]
        if (root / "test").is_dir() and not (root / "val").exists():
            (root / "test").rename(root / "val")  # AFHQ v2 names it test
        root.rename(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise Unusable(f"Cannot unpack {archive} (it is damaged: {error}). Delete it and download it again.") from error
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)


def _is_safe(entry):
    path, is_link = PurePosixPath(entry.filename.replace("\\", "/")), stat.S_ISLNK(entry.external_attr >> 16)
    return not (path.is_absolute() or ".." in path.parts or ":" in entry.filename or is_link)


def get(target, url, from_file=None):
    """Create a target from a file or zip archive; return False if a usable one exists. Raises UserError."""
    target = Path(target)
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()
    if target.exists():
        with suppress(Unusable):
            if target.is_file():
                check(target, kind_of(target), str(target))
            return False
    if from_file is None and not url.startswith(("http://", "https://")):
        raise UserError(f"Cannot download {url} (not an http or https address). Use --from_file for a local file.")
    make_folder(target.parent)
    with system_errors(target, "write"):
        if from_file is not None:
            _install(Path(from_file), target, from_file, keep=True)
            return True
        part = target.with_name(f"{target.name}.part")
        fetch(url, part)
        try:
            _install(part, target, url, keep=False)
        except Unusable:
            _forget(part)
            raise
        _forget(part)
    return True


def _install(path, target, origin, keep):
    """Check a file and move or unpack it to its target. keep: keep the original file as well."""
    check(path, kind_of(target), origin)
    if kind_of(target) == ".zip":
        unpack(path, target)
    elif keep:
        with atomic_write(target) as temporary:
            shutil.copyfile(path, temporary)
    else:
        path.replace(target)


def _forget(part):
    for path in (part, _note_of(part)):
        path.unlink(missing_ok=True)


def plan(name, given):
    """Return [(target, default address, given source or None)]. given: addresses or files. Raises UserError."""
    files, sources = FILES[name], {}
    for source in given:
        suffix = PurePosixPath(_name_of(source)).suffix
        target = next((target for target in files if kind_of(target) == suffix or len(files) == 1), None)
        if target in (None, *sources):
            kinds = " and one ".join(map(kind_of, files))
            raise UserError(f"Cannot use {source} for {name} ({name} needs one {kinds} file). Give each file once.")
        sources[target] = source
    return [(target, DROPBOX.format(path), sources.get(target)) for target, path in files.items()]


def main(argv=None):
    """Run the command line. Exits with status 2 after printing an error, 130 on Ctrl-C."""
    parser = Parser(description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help="one or more names listed above")
    parser.add(
        "url", TEXT, [], "other http or https addresses to download from, for a single NAME", nargs="+", metavar="URL"
    )
    parser.add("from_file", PATH, [], "local files of one NAME, instead of a download", nargs="+")
    parser.add("dry_run", SWITCH, False, "print the files and their addresses, and download nothing")
    args = parser.parse_args(argv)
    for name in args.names:
        if name not in FILES:
            close = nearest(name, FILES)
            parser.error(f"Cannot download {name} (unknown name). Choose {close or 'one of ' + ', '.join(FILES)}.")
    several = len(args.names) > 1
    if (args.url or args.from_file) and (several or (args.url and args.from_file)):
        advice = "Run one command for each name" if several else "Remove one of them"
        parser.error(f"Cannot use --url or --from_file ({'several names' if several else 'both given'}). {advice}.")
    for path in args.from_file:
        if not Path(path).is_file():
            parser.error(f"No file at {path} (--from_file). Check the path.")
    try:
        planned = [row for name in args.names for row in plan(name, args.url or args.from_file)]
        for target, address, given in planned:
            if args.from_file and given is None:
                continue
            if args.dry_run:
                console.info(f"Would create {target} from {given or address}")
            elif get(target, given or address, given if args.from_file else None):
                console.info(f"Created {target}")
            else:
                console.info(f"{target} already exists." + (" Remove it to replace it." if given else ""))
    except UserError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(130, "error: Stopped by Ctrl-C. Run the same command again to resume.\n")


if __name__ == "__main__":
    main()
