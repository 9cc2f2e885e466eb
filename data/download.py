"""The data sets and pretrained networks that the authors of StarGAN v2 publish.

python -m data.download afhq-dataset                     data/afhq
python -m data.download pretrained-network-celeba-hq wing
python -m data.download wing --url https://example.org/wing.ckpt
python -m data.download afhq-dataset --from-file afhq.zip

A transfer that breaks off goes on where it was when the command is given again. What is there already is not fetched.
"""

import argparse
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

from core.system import console
from core.system.errors import UserError
from core.system.files import atomic_write, make_folder, system_errors

DROPBOX = "https://www.dropbox.com/s/{}?dl=1"
FILES = {  # name -> {target: address}; a zip becomes a folder
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
BROKEN_OFF = (OSError, http.client.HTTPException)  # errors of urllib are OSErrors
TRIES, PAUSE, PATIENCE = 5, 2.0, 30.0  # seconds
BLOCK = 2**20  # bytes


class Unusable(UserError):
    """A file has the wrong content, so that another attempt is of no use."""


def fetch(url, part):
    """Download a URL into the file `part`, from where an earlier transfer broke off. Raises UserError."""
    idle = 0  # attempts in a row without a new byte
    while idle < TRIES:
        size_before = _size(part)
        try:
            _transfer(url, part)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416 and _note_of(part).exists():  # no bytes are left: the part is whole
                return
            if error.code < 500:
                raise UserError(f"{url} answers {error.code} {error.reason}: {_elsewhere(url)}") from error
            reason = f"{error.code} {error.reason}"
        except (http.client.InvalidURL, ValueError) as error:  # ValueError: not ASCII, for example
            raise UserError(f"{url} is no address that can be asked ({error}): {_elsewhere(url)}") from error
        except BROKEN_OFF as error:
            if getattr(error, "filename", None):  # an error of this machine, not of the network
                raise UserError(f"{error.filename} cannot be written ({error.strerror}): free the way") from error
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        idle = 0 if _size(part) > size_before else idle + 1
        time.sleep(PAUSE)
    raise UserError(
        f"{url} cannot be fetched ({reason}), {_size(part):,} bytes are here: give the command again to go on, or "
        f"{_elsewhere(url)}"
    )


def _transfer(url, part):
    """Attempt a download once, from the start if no note beside the part says of which version of the file it is."""
    note = _note_of(part)
    start = _size(part) if note.exists() else 0
    headers = {"User-Agent": "python -m data.download"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": note.read_text(encoding="utf-8")}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (checked by `get`)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
        if answer.status != 206:  # the server sends the whole file
            start = 0
            # A strong ETag, else the time of the last change, tells a file from its other versions.
            tag = answer.headers.get("ETag", "W/")
            version = answer.headers.get("Last-Modified") if tag.startswith("W/") else tag
            note.unlink(missing_ok=True)
            if version:
                note.write_text(version, encoding="utf-8")
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            note.unlink()
            raise http.client.HTTPException("it sent another part than was asked for")
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        bar = console.progress(desc=part.stem, total=total, initial=start, unit="B", unit_scale=True)
        with part.open("ab" if start else "wb") as file, bar:
            while block := answer.read(BLOCK):
                bar.update(file.write(block))
    if total is not None and _size(part) < total:
        raise http.client.IncompleteRead(b"", total - _size(part))


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _note_of(part):
    return part.with_name(f"{part.name}.version")


def _name_of(url):
    """The name of a file, by its URL or its path."""
    return PurePosixPath(url.partition("?")[0].replace("\\", "/")).name


def _elsewhere(url):
    return f"fetch {_name_of(url)} from another place, by --url, or by a browser and --from-file"


def kind_of(target):
    """The suffix of a target; ".zip" for a folder."""
    return Path(target).suffix or ".zip"


def check(path, kind, origin):
    """Raise Unusable if a file is not of its kind: ".zip" of a data set, ".npz", ".ckpt"."""
    with path.open("rb") as file:
        head = file.read(512).lstrip()
    names = []
    with suppress(zipfile.BadZipFile, OSError, ValueError), zipfile.ZipFile(path) as content:
        names = content.namelist()
    pickled = head.startswith(b"\x80")  # as PyTorch wrote checkpoints before 1.6
    fits = {
        ".ckpt": pickled or any(name.endswith("data.pkl") for name in names),
        ".npz": any(name.endswith(".npy") for name in names),
        ".zip": any("train" in PurePosixPath(name).parts for name in names),
    }
    if not fits[kind]:
        content = "a web page" if head[:1] == b"<" else "another or a damaged file"
        wanted = "zip of a data set" if kind == ".zip" else f"{kind} file"
        raise Unusable(f"{origin} gave {content} in place of a {wanted}: {_elsewhere(origin)}")


def unpack(archive, folder):
    """Unpack a zip into a new folder, all of it or nothing. Raises UserError, also if it would write elsewhere."""
    unpacking = folder.with_name(f"{folder.name}.unpacking")
    shutil.rmtree(unpacking, ignore_errors=True)
    try:
        unpacking.mkdir(parents=True)
        with zipfile.ZipFile(archive) as content:
            entries = content.infolist()
            for entry in entries:
                if not _is_safe(entry):
                    raise Unusable(
                        f"{archive} wants to write {entry.filename}, outside of its folder: it is not to be trusted"
                    )
            size, free = sum(entry.file_size for entry in entries), shutil.disk_usage(unpacking).free
            if size > free:
                raise UserError(f"{archive} needs {size / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free: make room")
            content.extractall(unpacking, console.progress(entries, desc=f"unpacking {archive.stem}"))
        inside = [path for path in unpacking.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        root = unpacking if (unpacking / "train").is_dir() or len(inside) != 1 else inside[0]
        if (root / "test").is_dir() and not (root / "val").exists():
            (root / "test").rename(root / "val")  # AFHQ v2 calls it test
        root.rename(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise Unusable(f"{archive} is damaged ({error}): remove it and fetch it again") from error
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)


def _is_safe(entry):
    path, is_link = PurePosixPath(entry.filename.replace("\\", "/")), stat.S_ISLNK(entry.external_attr >> 16)
    return not (path.is_absolute() or ".." in path.parts or ":" in entry.filename or is_link)


def get(target, url, from_file=None):
    """Bring a file or a zip's content to its target; False if it is there and of its kind. Raises UserError."""
    target = Path(target)
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()
    if target.exists():
        with suppress(Unusable):
            if target.is_file():
                check(target, kind_of(target), str(target))
            return False
    if from_file is None and not url.startswith(("http://", "https://")):
        raise UserError(f"{url} does not begin with https:// or http://: a file of this machine goes to --from-file")
    make_folder(target.parent)
    with system_errors(target, "written"):
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
    """Check a file and bring it, or the content of a zip, to its target. keep: leave it where it is, too."""
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
    """[(target, address, one given for it or None)]. given: addresses or files. Raises UserError where they misfit."""
    files, sources = FILES[name], {}
    for source in given:
        suffix = PurePosixPath(_name_of(source)).suffix
        target = next((target for target in files if kind_of(target) == suffix or len(files) == 1), None)
        if target in (None, *sources):
            kinds = " and ".join(map(kind_of, files))
            raise UserError(f"{source}: {name} is a {kinds} file, give one of each kind at most")
        sources[target] = source
    return [(target, DROPBOX.format(path), sources.get(target)) for target, path in files.items()]


def main(argv=None):
    """Run a command line. Exits with status 2 and one sentence on an error, 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=list(FILES), metavar="NAME", help=", ".join(FILES))
    parser.add_argument("--url", nargs="+", default=[], help="other addresses for the files of one name")
    parser.add_argument("--from-file", nargs="+", default=[], help="files that are here already, for one name")
    parser.add_argument("--dry_run", action="store_true", help="tell what would be fetched, from where to where")
    args = parser.parse_args(argv)
    if (args.url or args.from_file) and (len(args.names) > 1 or (args.url and args.from_file)):
        parser.error("--url or --from-file is for one name at a time")
    for path in args.from_file:
        if not Path(path).is_file():
            parser.error(f"--from-file {path} does not exist")
    try:
        planned = [row for name in args.names for row in plan(name, args.url or args.from_file)]
        for target, address, given in planned:
            if args.from_file and given is None:
                continue
            if args.dry_run:
                console.info(f"{target} would come from {given or address}")
            elif get(target, given or address, given if args.from_file else None):
                console.info(f"{target} is here now")
            else:
                console.info(f"{target} was here already" + ("; remove it to replace it" if given else ""))
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "error: stopped; the same command goes on\n")


if __name__ == "__main__":
    main()
