"""Download the data sets and pretrained networks that the authors of StarGAN v2 publish.

python -m data.download afhq-dataset                     data/afhq
python -m data.download pretrained-network-celeba-hq wing
python -m data.download wing --url https://example.org/wing.ckpt
python -m data.download afhq-dataset --from_file afhq.zip

Names: celeba-hq-dataset, afhq-dataset, afhq-v2-dataset, pretrained-network-celeba-hq, pretrained-network-afhq, wing.
Run the same command again to resume an interrupted download. Existing files are not downloaded again.
"""

import shutil
import stat
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from core.cli.parser import Parser
from core.cli.values import PATH, SWITCH, TEXT, nearest
from core.system import console
from core.system.errors import UserError, reason
from core.system.files import atomic_write, make_folder, sha256, system_errors
from metrics import transfer
from metrics.transfer import TransferError, forget, size_of


class Unavailable(UserError):
    """An address does not deliver a file. Another address may."""


class Unusable(UserError):
    """A file has the wrong content, so another attempt at the same address would not help."""


class Source(NamedTuple):
    """A published file. addresses: tried in order. size, sha256: None where unknown."""

    addresses: tuple
    size: int | None = None
    sha256: str | None = None


def _dropbox(path):
    return Source((f"https://www.dropbox.com/s/{path}?dl=1",))


FILES = {  # name -> {target: Source}; a zip archive is unpacked into a folder
    "celeba-hq-dataset": {"data/celeba_hq": _dropbox("f7pvjij2xlpff59/celeba_hq.zip")},
    "afhq-dataset": {"data/afhq": _dropbox("t9l9o3vsx2jai3z/afhq.zip")},
    "afhq-v2-dataset": {"data/afhq_v2": _dropbox("vkzjokiwof5h8w6/afhq_v2.zip")},
    "pretrained-network-celeba-hq": {
        "expr/checkpoints/celeba_hq/100000_nets_ema.ckpt": _dropbox("96fmei6c93o8b8t/100000_nets_ema.ckpt")
    },
    "pretrained-network-afhq": {
        "expr/checkpoints/afhq/100000_nets_ema.ckpt": _dropbox("etwm810v25h42sn/100000_nets_ema.ckpt")
    },
    "wing": {
        "expr/checkpoints/wing.ckpt": _dropbox("tjxpypwpt38926e/wing.ckpt"),
        "expr/checkpoints/celeba_lm_mean.npz": _dropbox("91fth49gyb7xksk/celeba_lm_mean.npz"),
    },
}


def fetch(url, part):
    """Download a URL into the file `part`, or resume an interrupted download. Raises Unavailable, UserError."""
    try:
        transfer.fetch(url, part, console.progress)
    except TransferError as error:
        again = "Run the same command again to resume. " if error.can_resume else ""
        raise Unavailable(f"Cannot download {url} ({error}). {again}{elsewhere(url)}") from error
    except OSError as error:
        problem = f"Cannot write {error.filename} ({reason(error)})"
        raise UserError(f"{problem}. Check the folder and free space.") from error


def check_bytes(path, source, url):
    """Raise Unusable if a file has another size or hash than its Source."""
    problem = ""
    if source.size not in (None, size_of(path)):
        problem = f"expected {source.size:,} bytes, got {size_of(path):,}"
    elif source.sha256 not in (None, sha256(path)):
        problem = "its SHA-256 hash differs from the published one"
    if problem:
        raise Unusable(f"Cannot use {url} ({problem}). {elsewhere(url)}")


def name_of(url):
    """Return the file name in a URL or path."""
    return PurePosixPath(url.partition("?")[0].replace("\\", "/")).name


def elsewhere(url):
    """Return the advice to take a file from another place."""
    return f"Use another address with --url, or download {name_of(url)} in a browser and use --from_file."


def kind_of(target):
    """Return the suffix of a target, or ".zip" for a folder."""
    return Path(target).suffix or ".zip"


def check(path, kind, origin):
    """Raise Unusable if a file is not of its kind: ".zip" (a data set), ".npz" or ".ckpt"."""
    with path.open("rb") as file:
        head = file.read(512).lstrip()
    names = []
    damage = zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError
    with suppress(*damage), zipfile.ZipFile(path) as content:
        if kind == ".zip" or content.testzip() is None:  # Unpacking checks a data set.
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
        raise Unusable(f"Cannot use {origin} (expected a {wanted}, got {content}). {elsewhere(origin)}")


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


def get(target, source, from_file=None):
    """Create a target from a file or zip archive; return False if a usable one exists. Raises UserError.

    source: an address, or a Source, whose addresses are tried in order.
    """
    target, source = Path(target), Source((source,)) if isinstance(source, str) else source
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()
    if target.exists():
        with suppress(Unusable):
            if target.is_file():
                check(target, kind_of(target), str(target))
            return False
    make_folder(target.parent)
    with system_errors(target, "write"):
        if from_file is None:
            _download(source, target)
        else:
            _install(Path(from_file), target, from_file, keep=True)
    return True


def _download(source, target):
    """Download a target from the first address that delivers it. Raises UserError if none does."""
    # Each address has its own part: otherwise, the bytes of one would be lost as soon as another one is tried.
    names = [f"{target.name}.part{number if number > 1 else ''}" for number in range(1, len(source.addresses) + 1)]
    parts = [target.with_name(name) for name in names]
    for url, part in zip(source.addresses, parts, strict=True):
        try:
            fetch(url, part)
            try:
                check_bytes(part, source, url)
                _install(part, target, url, keep=False)
            except Unusable:
                forget(part)
                raise
        except (Unavailable, Unusable) as error:
            if part == parts[-1]:
                raise
            console.warn(f"{reason(error)[:1].upper()}{reason(error)[1:]}. Trying the next address.")
        else:
            break
    for part in parts:
        forget(part)


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


def plan(name, given, are_files=False):
    """Return [(target, Source, file or None)] of the files to create. Raises UserError.

    given: other addresses, or files, distinguished by their suffixes. Several addresses of a kind are tried in order.
    """
    files, found = FILES[name], {}
    for origin in given:
        suffix = PurePosixPath(name_of(origin)).suffix
        target = next((target for target in files if kind_of(target) == suffix or len(files) == 1), None)
        if target is None or (are_files and target in found):
            kinds = " and one ".join(map(kind_of, files))
            raise UserError(f"Cannot use {origin} for {name} ({name} needs one {kinds} file). Give each file once.")
        found.setdefault(target, []).append(origin)
    if are_files:
        return [(target, files[target], file) for target, (file,) in found.items()]
    return [(target, Source(tuple(found[target])) if target in found else source, None)
            for target, source in files.items()]  # fmt: skip


def main(argv=None):
    """Run the command line. Exits with status 2 after printing an error, 130 on Ctrl-C."""
    parser = Parser(description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help="one or more names listed above")
    parser.add("url", TEXT, [], "other addresses for one NAME, tried in order", nargs="+", metavar="URL")
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
        given, are_files = args.url or args.from_file, bool(args.from_file)
        planned = [row for name in args.names for row in plan(name, given, are_files)]
        for target, source, file in planned:
            if args.dry_run:
                console.info(f"Would create {target} from {file or ', else '.join(source.addresses)}")
            elif get(target, source, file):
                console.info(f"Created {target}")
            else:
                console.info(f"{target} already exists." + (" Remove it to replace it." if given else ""))
    except UserError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(130, "error: Stopped by Ctrl-C. Run the same command again to resume.\n")


if __name__ == "__main__":
    main()
