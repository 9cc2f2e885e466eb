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
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from core.system.errors import UserError
from core.system.files import atomic_write, make_folder, system_errors

DROPBOX = "https://www.dropbox.com/s/{}?dl=1"
FILES = {  # name -> {where it belongs: its address}; a zip becomes a folder
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
BROKEN_OFF = (OSError, http.client.HTTPException)  # urllib's errors among them
TRIES, PAUSE, PATIENCE = 5, 2.0, 30.0  # seconds
BLOCK = 2**20


class Unusable(UserError):
    """A file that cannot become right by trying again."""


def fetch(url, part):
    """Bring what is at the address into the file `part`, from where an earlier transfer broke off. Raises UserError."""
    idle = 0  # attempts in a row that brought nothing
    while idle < TRIES:
        had = _size(part)
        try:
            _transfer(url, part)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise UserError(f"{url} answers {error.code} {error.reason}: {_elsewhere(url)}") from error
            reason = f"{error.code} {error.reason}"
        except (http.client.InvalidURL, ValueError) as error:  # and what does not fit into ASCII
            raise UserError(f"{url} is no address that can be asked ({error}): {_elsewhere(url)}") from error
        except BROKEN_OFF as error:
            if isinstance(error, OSError) and error.filename:  # of this machine
                raise UserError(f"{error.filename} cannot be written ({error.strerror}): free the way") from error
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        idle = 0 if _size(part) > had else idle + 1
        time.sleep(PAUSE)
    raise UserError(
        f"{url} cannot be fetched ({reason}), {_size(part):,} bytes are here: give the command again to go on, or "
        f"{_elsewhere(url)}"
    )


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _transfer(url, part):
    """One attempt. A note beside the part tells which version of the file it is of; without one it begins anew."""
    note = part.with_name(f"{part.name}.version")
    request = urllib.request.Request(url, headers={"User-Agent": "python -m data.download"})  # noqa: S310 (of `get`)
    have = _size(part) if note.exists() else 0
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", note.read_text(encoding="utf-8"))
    try:
        answer = urllib.request.urlopen(request, timeout=PATIENCE)  # noqa: S310
    except urllib.error.HTTPError as error:
        if have and error.code == 416:  # nothing follows: it is whole
            return
        raise
    with answer:
        goes_on = answer.status == 206
        if goes_on and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            note.unlink()
            raise http.client.HTTPException("it sent another part than was asked for")
        if not goes_on:
            have = 0
            _note_version(answer.headers, note)
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        bar = {"total": total, "initial": have, "unit": "B", "unit_scale": True, "disable": not sys.stderr.isatty()}
        with part.open("ab" if goes_on else "wb") as file, tqdm(desc=part.stem, **bar) as progress:
            while block := answer.read(BLOCK):
                file.write(block)
                progress.update(len(block))
        if total is not None and _size(part) < total:
            raise http.client.IncompleteRead(b"", total - _size(part))


def _note_version(headers, note):
    """Keep what tells a file from its other versions: a strong ETag, else the time of its last change."""
    tag = headers.get("ETag", "W/")
    version = headers.get("Last-Modified") if tag.startswith("W/") else tag
    note.unlink(missing_ok=True)
    if version:
        note.write_text(version, encoding="utf-8")


def _name_of(url):
    """The name of a file at an address, or on this machine."""
    return PurePosixPath(url.partition("?")[0].replace("\\", "/")).name


def _elsewhere(url):
    return f"fetch {_name_of(url)} from another place, by --url, or by a browser and --from-file"


def check(path, kind, origin):
    """Raise UserError where a file is not of its kind: ".zip" of a data set, ".npz", ".ckpt"."""
    with path.open("rb") as file:
        head = file.read(512).lstrip()
    names = []
    try:
        with zipfile.ZipFile(path) as content:
            names = content.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):  # no zip, or a damaged one
        pass
    pickled = head.startswith(b"\x80")  # as PyTorch wrote checkpoints before 1.6
    fits = {
        ".ckpt": pickled or any(name.endswith("data.pkl") for name in names),
        ".npz": any(name.endswith(".npy") for name in names),
        ".zip": any("train" in PurePosixPath(name).parts for name in names),
    }
    if not fits[kind]:
        found = "a web page" if head[:1] == b"<" else "another or a damaged file"
        wanted = "zip of a data set" if kind == ".zip" else f"{kind} file"
        raise Unusable(f"{origin} gave {found} in place of a {wanted}: {_elsewhere(origin)}")


def unpack(archive, folder):
    """Unpack a zip into a folder that is whole or not there. What is in it must lie in it. Raises UserError."""
    unpacking = folder.with_name(f"{folder.name}.unpacking")
    try:
        shutil.rmtree(unpacking, ignore_errors=True)
        _extract(archive, unpacking)
        inside = [path for path in unpacking.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        root = unpacking if (unpacking / "train").is_dir() or len(inside) != 1 else inside[0]
        if (root / "test").is_dir() and not (root / "val").exists():
            (root / "test").rename(root / "val")  # AFHQ v2 has it under this name
        root.rename(folder)
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)


def _extract(archive, folder):
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as content:
            entries = content.infolist()
            unsafe = next((entry.filename for entry in entries if not _is_safe(entry)), None)
            if unsafe is not None:
                raise Unusable(f"{archive} wants to write {unsafe}, outside of its folder: it is not to be trusted")
            size, free = sum(entry.file_size for entry in entries), shutil.disk_usage(folder).free
            if size > free:
                raise UserError(f"{archive} needs {size / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free: make room")
            for entry in tqdm(entries, desc=f"unpacking {archive.stem}", disable=not sys.stderr.isatty()):
                content.extract(entry, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise Unusable(f"{archive} is damaged ({error}): remove it and fetch it again") from error


def _is_safe(entry):
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    is_link = stat.S_ISLNK(entry.external_attr >> 16)
    return not (path.is_absolute() or ".." in path.parts or ":" in entry.filename or is_link)


def get(target, url, from_file=None):
    """Bring a file, or what a zip holds, to where it belongs; return whether it was not there before. Raises UserError.

    What lies there already stays, unless it is an empty folder or no such file.
    """
    target = Path(target)
    kind, part = kind_of(target), target.with_name(f"{target.name}.part")
    if _is_there(target, kind):
        return False
    if from_file is None and not url.startswith(("http://", "https://")):
        raise UserError(f"{url} does not begin with https:// or http://: a file of this machine goes to --from-file")
    make_folder(target.parent)
    with system_errors(target, "written"):
        if from_file is not None:
            check(Path(from_file), kind, from_file)
            if kind == ".zip":
                unpack(Path(from_file), target)
            else:
                with atomic_write(target) as temporary:
                    shutil.copyfile(from_file, temporary)
            return True
        fetch(url, part)
        try:
            check(part, kind, url)
            unpack(part, target) if kind == ".zip" else part.replace(target)
        except Unusable:
            _forget(part)
            raise
        _forget(part)
    return True


def _is_there(target, kind):
    if target.is_dir():
        if any(target.iterdir()):
            return True
        target.rmdir()
    if not target.exists():
        return False
    try:
        check(target, kind, str(target))
    except Unusable:
        return False
    return True


def _forget(part):
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.version").unlink(missing_ok=True)


def kind_of(target):
    """ ".zip" where a folder comes of it, else the suffix."""
    return Path(target).suffix or ".zip"


def plan(name, given):
    """[(target, address, file given for it or None)]; given: addresses or files, told apart by their suffixes.

    Raises UserError where one fits none of them, or two fit the same.
    """
    files = FILES[name]
    found = {}
    for source in given:
        suffix = PurePosixPath(_name_of(source)).suffix
        fitting = [target for target in files if kind_of(target) == suffix or len(files) == 1]
        if not fitting or fitting[0] in found:
            kinds = " and ".join(map(kind_of, files))
            raise UserError(f"{source}: {name} is a {kinds} file, give one of each kind at most")
        found[fitting[0]] = source
    return [(target, DROPBOX.format(path), found.get(target)) for target, path in files.items()]


def main(argv=None):
    """Bring here what a command line names. Exits with status 2 and one sentence on an error, 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=list(FILES), metavar="NAME", help=", ".join(FILES))
    parser.add_argument("--url", nargs="+", default=[], help="other addresses for the files of one name")
    parser.add_argument("--from-file", nargs="+", default=[], help="files that are here already, for one name")
    parser.add_argument("--dry_run", action="store_true", help="tell what would be fetched, from where to where")
    args = parser.parse_args(argv)
    if (args.url or args.from_file) and (len(args.names) > 1 or (args.url and args.from_file)):
        parser.error("--url or --from-file is for one name at a time")
    missing = next((path for path in args.from_file if not Path(path).is_file()), None)
    if missing:
        parser.error(f"--from-file {missing} does not exist")
    try:
        for name in args.names:
            for target, address, given in plan(name, args.url or args.from_file):
                if args.from_file and given is None:
                    continue
                if args.dry_run:
                    sys.stdout.write(f"{target} would come from {given or address}\n")
                    continue
                fresh = get(target, address, given) if args.from_file else get(target, given or address)
                there = "was here already" + "; remove it to replace it" * (given is not None)
                sys.stdout.write(f"{target} {'is here now' if fresh else there}\n")
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "error: stopped; the same command goes on\n")


if __name__ == "__main__":
    main()
