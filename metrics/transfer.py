"""Transfer a file from a web server. Each byte that arrives is kept, and the next attempt continues after it."""

import http.client
import json
import time
import urllib.error
import urllib.request
from contextlib import suppress

BROKEN_OFF = (OSError, http.client.HTTPException)  # urllib raises OSErrors
TRANSIENT = (408, 425, 429)  # status codes below 500 after which another attempt may succeed
TRIES, PAUSE, PATIENCE = 5, 2.0, 30.0  # attempts without progress; seconds
BLOCK = 2**20  # bytes
AGENT = "StarGAN v2"


class TransferError(Exception):
    """An address does not deliver a file. The message is the reason. can_resume: a later attempt may continue."""

    def __init__(self, message, can_resume=False):
        super().__init__(message)
        self.can_resume = can_resume


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http and https addresses only. urllib alone would also follow them to ftp."""

    def redirect_request(self, request, answer, code, message, headers, new_url):
        if not is_web(new_url):
            answer.close()
            raise TransferError(f"it redirects to {new_url}, which is not an http or https address")
        return super().redirect_request(request, answer, code, message, headers, new_url)


def _opener():
    """Return an opener for http and https addresses. urllib's own one also opens local files, data and ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor, _WebRedirects,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener


def is_web(url):
    """Whether an address begins with http:// or https://."""
    return url.lower().startswith(("http://", "https://"))


def fetch(url, part, progress, tries=TRIES):
    """Download a URL into the file `part`, or resume an interrupted download.

    progress(desc=, total=, initial=, unit=, unit_scale=): returns a bar such as tqdm's. tries: consecutive attempts
    that may end without a new byte. Raises TransferError, and OSError with a file name for errors of this machine.
    """
    if not is_web(url):
        raise TransferError("not an http or https address")
    idle, most = 0, size_of(part)  # consecutive attempts without progress; most bytes received so far
    while True:
        try:
            _transfer(url, part, progress)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and _is_complete(part, error.headers):
                return
            problem = " ".join(f"{error.code} {error.reason}".split())
            if error.code < 500 and error.code not in (416, *TRANSIENT):
                raise TransferError(problem) from error
        except (http.client.InvalidURL, ValueError) as error:  # ValueError: not ASCII, for example
            raise TransferError(f"invalid address: {error}") from error
        except BROKEN_OFF as error:
            if getattr(error, "filename", None):  # an error of this machine, not of the network
                raise
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        idle = 0 if size_of(part) > most else idle + 1
        most = max(most, size_of(part))
        if idle >= tries:
            raise TransferError(f"{problem}; {size_of(part):,} bytes received so far", can_resume=True)
        time.sleep(PAUSE)


def _transfer(url, part, progress):
    """Attempt a download once. It starts over if no note beside the part records the version of the file."""
    known = _read_note(part)
    start = size_of(part) if known else 0
    headers = {"User-Agent": AGENT}
    if start:
        headers["Range"] = f"bytes={start}-"
    if start and known["version"]:
        headers["If-Range"] = known["version"]
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (checked by `fetch`)
    with _opener().open(request, timeout=PATIENCE) as answer:
        if answer.status != 206:  # The server sends the complete file.
            start, total = 0, _number(answer.headers.get("Content-Length", ""))
            _write_note(part, _version(answer.headers), total)
        else:
            total = _total_of_range(answer.headers, start, known, part)
        options = {"desc": part.stem, "total": total, "initial": start, "unit": "B", "unit_scale": True}
        # A plain read would discard what it has of a block when the connection breaks. Hence read1, without buffers.
        with part.open("ab" if start else "wb", buffering=0) as file, progress(**options) as bar:
            while block := answer.read1(BLOCK):
                _write(file, block)
                bar.update(len(block))
    if total is not None and size_of(part) != total:
        if size_of(part) > total:
            forget(part)
        raise http.client.HTTPException("the connection was closed too early")


def _write(file, block):
    """Write a complete block to an unbuffered file. Errors name the file, to tell them from those of the network."""
    try:
        rest = memoryview(block)
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        error.filename = file.name
        raise


def _version(headers):
    """Return the header that identifies a version of a file: a strong ETag, else the time of the last change."""
    tag = headers.get("ETag", "W/")
    return headers.get("Last-Modified", "") if tag.startswith("W/") else tag


def _total_of_range(headers, start, known, part):
    """Return the size of the complete file from the headers of a part of it. Raises HTTPException for a wrong part."""
    span, _, total = headers.get("Content-Range", "").partition("/")
    total = _number(total)
    header = "ETag" if known["version"].startswith('"') else "Last-Modified"
    is_other = known["version"] and headers.get(header, known["version"]) != known["version"]
    changed = is_other or (total is not None and known["total"] not in (None, total))
    if changed or not span.startswith(f"bytes {start}-"):
        forget(part)
        raise http.client.HTTPException("the server sent a different byte range than requested")
    length = _number(headers.get("Content-Length", ""))
    return total if total is not None or length is None else start + length


def _is_complete(part, headers):
    """Whether a part is complete, after the server answered that no bytes follow. If not, the next attempt starts over.

    Servers give the size of the file as "bytes */1234".
    """
    known = _read_note(part)
    total = _number(headers.get("Content-Range", "").partition("/")[2])
    if known and {total, known["total"]} <= {None, size_of(part)}:
        return True
    forget(part)
    return False


def _number(text):
    return int(text) if text.isascii() and text.isdecimal() else None


def _write_note(part, version, total):
    """Note what the bytes of a part belong to. Without a version and a size, the next attempt starts over."""
    forget(part)  # its bytes may be those of another version
    if version or total:
        _note_of(part).write_text(json.dumps({"version": version, "total": total}), encoding="utf-8")


def _read_note(part):
    with suppress(OSError, ValueError, LookupError, TypeError, RecursionError):  # none, or a damaged one
        note = json.loads(_note_of(part).read_text(encoding="utf-8"))
        if isinstance(note["version"], str) and isinstance(note["total"], (int, type(None))):
            return note
    return None


def _note_of(part):
    return part.with_name(f"{part.name}.version")


def size_of(path):
    """Return the size of a file in bytes, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def forget(part):
    """Remove a part and its note."""
    for path in (part, _note_of(part)):
        path.unlink(missing_ok=True)
