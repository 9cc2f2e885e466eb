"""Transfers over connections that break or stall, redirects, several addresses, and published hashes."""

import hashlib
import io
import time
import zlib
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from core.system.errors import UserError
from data import download
from metrics import transfer
from metrics.weights import MissingWeights, load_pretrained, weights_path
from tests.web_server import CONTENT, SIZE, ScriptedHandler, archive, serving


@pytest.fixture
def serve(monkeypatch):
    """serve(answer) -> (address of a server, list of its requests)"""
    monkeypatch.setattr(transfer, "PAUSE", 0)
    with ExitStack() as servers:

        def start(answer):
            asked = []
            address = servers.enter_context(serving(partial(ScriptedHandler, answer, asked)))
            return f"{address}/mean.npz", asked

        yield start


@pytest.mark.parametrize("tag", ['"a"', ""])
@pytest.mark.parametrize("most", [20_000, 130_000])
def test_bytes_before_a_reset_are_kept_with_and_without_a_version(serve, tmp_path, tag, most):
    """Far fewer bytes than a block arrive before each of many resets."""

    def answer(handler, start):
        handler.begin(start, tag)
        handler.wfile.write(CONTENT[start : start + most])
        if start + most < SIZE:
            handler.reset()

    address, asked = serve(answer)
    assert download.get(tmp_path / "mean.npz", address)
    assert (tmp_path / "mean.npz").read_bytes() == CONTENT
    starts = [int(start[6:-1]) for _, start in asked if start]
    assert starts == sorted(set(starts)) and len(asked) <= SIZE // most + 2


def test_a_chunked_answer_that_breaks_off_continues(serve, tmp_path):
    def answer(handler, start):
        if start:
            handler.begin(start)
            handler.wfile.write(CONTENT[start:])
            return
        handler.send_response(200)
        handler.send_header("ETag", '"a"')
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (5000, CONTENT[:5000]))

    address, asked = serve(answer)
    assert download.get(tmp_path / "mean.npz", address)
    assert (tmp_path / "mean.npz").read_bytes() == CONTENT and asked[-1][1] == "bytes=5000-"


def test_a_stalled_connection_times_out_and_continues(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PATIENCE", 0.3)

    def answer(handler, start):
        handler.begin(start)
        handler.wfile.write(CONTENT[start : start + SIZE // 2 + 1])
        handler.wfile.flush()
        if not start:
            time.sleep(1.5)

    address, asked = serve(answer)
    assert download.get(tmp_path / "mean.npz", address)
    assert [start for _, start in asked] == [None, f"bytes={SIZE // 2 + 1}-"]


def test_a_silent_server_is_an_error_soon(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PATIENCE", 0.1)
    address, _ = serve(lambda handler, start: time.sleep(1))
    with pytest.raises(UserError, match="timed out; 0 bytes received so far"):
        download.get(tmp_path / "mean.npz", address)


def test_a_server_without_ranges_starts_again_and_ends(serve, tmp_path):
    """It sends the complete file each time. Attempts that never get further than before end with an error."""
    lengths = iter([100, 300, 200, 300, 200, 300, 200, 300, 200, 300])

    def answer(handler, _start):
        handler.begin(0)
        handler.wfile.write(CONTENT[: next(lengths, SIZE)])

    address, asked = serve(answer)
    with pytest.raises(UserError, match="bytes received so far"):
        download.get(tmp_path / "mean.npz", address)
    assert len(asked) == 7  # two that get further, then five
    lengths = iter([])
    assert download.get(tmp_path / "mean.npz", address)
    assert (tmp_path / "mean.npz").read_bytes() == CONTENT


@pytest.mark.parametrize("tag", ['"b"', ""])
def test_a_file_that_changed_is_never_mixed_even_if_the_server_ignores_versions(serve, tmp_path, tag):
    other = archive(**{"mean.npy": b"\1" * 290_000})

    def answer(handler, start):
        if len(asked) == 1:
            handler.begin(start, '"a"' if tag else "")
            handler.wfile.write(CONTENT[:1000])
        else:
            handler.begin(start, tag, other)
            handler.wfile.write(other[start:])

    address, asked = serve(answer)
    assert download.get(tmp_path / "mean.npz", address)
    assert (tmp_path / "mean.npz").read_bytes() == other


def test_a_part_that_is_larger_than_the_file_starts_over(serve, tmp_path):
    def answer(handler, start):
        if start:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{SIZE}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        else:
            handler.begin(0)
            handler.wfile.write(CONTENT)

    address, _ = serve(answer)
    (tmp_path / "mean.npz.part").write_bytes(b"x" * (SIZE + 9))
    (tmp_path / "mean.npz.part.version").write_text('{"version": "\\"a\\"", "total": null}')
    assert download.get(tmp_path / "mean.npz", address)
    assert (tmp_path / "mean.npz").read_bytes() == CONTENT


@pytest.mark.parametrize("note", ["[]", "{", '{"version": 1, "total": 2}', '"one"', "\udcff", "[" * 100_000])
def test_a_damaged_note_starts_over(serve, tmp_path, note):
    def answer(handler, start):
        handler.begin(start)
        handler.wfile.write(CONTENT[start:])

    address, asked = serve(answer)
    (tmp_path / "mean.npz.part").write_bytes(b"other bytes")
    (tmp_path / "mean.npz.part.version").write_text(note, errors="surrogateescape")
    assert download.get(tmp_path / "mean.npz", address)
    assert [start for _, start in asked] == [None]


@pytest.mark.parametrize(
    "place", ["ftp://127.0.0.1/x", "file:///etc/passwd", "data:,x", "FTP://127.0.0.1/x", "gopher://a"]
)
def test_redirects_lead_to_web_addresses_only(serve, tmp_path, place):
    def answer(handler, _start):
        handler.send_response(302)
        handler.send_header("Location", place)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    address, asked = serve(answer)
    with pytest.raises(UserError, match=r"Cannot download http.* \("):
        download.get(tmp_path / "mean.npz", address)
    assert len(asked) == 1 and not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="not an http or https address"):
        download.get(tmp_path / "mean.npz", place)


def test_endless_redirects_are_one_sentence(serve, tmp_path):
    def answer(handler, _start):
        handler.send_response(302)
        handler.send_header("Location", handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with pytest.raises(UserError, match="infinite loop") as caught:
        download.get(tmp_path / "mean.npz", serve(answer)[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", [429, 503])
def test_busy_servers_are_asked_again(serve, tmp_path, code):
    def answer(handler, start):
        if len(asked) < 3:
            handler.send_error(code)
            return
        handler.begin(start)
        handler.wfile.write(CONTENT[start:])

    address, asked = serve(answer)
    assert download.get(tmp_path / "mean.npz", address)


def test_addresses_are_tried_in_order_and_each_keeps_its_bytes(serve, tmp_path, capsys):
    """The first address is gone, the second one sends a web page, the third one breaks off, the fourth one works."""
    limits = {"broken": 5000}

    def answer(handler, start):
        if "gone" in handler.path:
            handler.send_error(404)
            return
        page = b"<html>sorry</html>" if "page" in handler.path else CONTENT
        handler.begin(start, content=page)
        handler.wfile.write(page[start : limits["broken"] if "broken" in handler.path else None])

    address, asked = serve(answer)
    base = address.rpartition("/")[0]
    addresses = tuple(f"{base}/{name}.npz" for name in ("gone", "page", "broken"))
    with pytest.raises(UserError, match="broken.npz .*5,000 bytes received so far"):
        download.get(tmp_path / "mean.npz", download.Source(addresses))
    assert capsys.readouterr().err.count("Trying the next address.") == 2
    limits["broken"], asked[:] = SIZE, []
    assert download.get(tmp_path / "mean.npz", download.Source((*addresses, address)))
    assert asked == [("/gone.npz", None), ("/page.npz", None), ("/broken.npz", "bytes=5000-")]
    assert [path.name for path in tmp_path.iterdir()] == ["mean.npz"]


def test_published_sizes_and_hashes_are_checked(serve, tmp_path):
    def answer(handler, start):
        handler.begin(start)
        handler.wfile.write(CONTENT[start:])

    address, _ = serve(answer)
    digest = hashlib.sha256(CONTENT).hexdigest()
    for size, sha256, problem in ((SIZE + 1, None, "expected .* bytes, got"), (SIZE, "0" * 64, "SHA-256 hash differs")):
        with pytest.raises(UserError, match=f"Cannot use .*{problem}"):
            download.get(tmp_path / "mean.npz", download.Source((address,), size, sha256))
        assert not list(tmp_path.iterdir())
    assert download.get(tmp_path / "mean.npz", download.Source((address,), SIZE, digest))


def test_changed_bytes_inside_an_archive_are_noticed(tmp_path):
    damaged = bytearray(CONTENT)
    damaged[SIZE // 2] ^= 1
    assert zlib.crc32(damaged) != zlib.crc32(CONTENT)
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with pytest.raises(UserError, match="different or damaged file"):
        download.get(tmp_path / "mean.npz", "", str(tmp_path / "damaged.npz"))


def test_a_full_disk_ends_the_download_at_once(serve, tmp_path, monkeypatch):
    def answer(handler, start):
        handler.begin(start)
        handler.wfile.write(CONTENT[start:])

    def fail(file, block):
        raise OSError(28, "No space left on device", str(tmp_path / "mean.npz.part"))

    address, asked = serve(answer)
    monkeypatch.setattr(transfer, "_write", fail)
    with pytest.raises(UserError, match=r"Cannot write .*part \(no space left on device\)"):
        download.get(tmp_path / "mean.npz", download.Source((address, address)))
    assert len(asked) == 1


def test_several_addresses_of_one_file_on_the_command_line(capsys):
    download.main(["wing", "--url", "http://a/x.ckpt", "http://b/y.ckpt", "--dry_run"])
    assert (
        "Would create expr/checkpoints/wing.ckpt from http://a/x.ckpt, else http://b/y.ckpt" in capsys.readouterr().out
    )
    with pytest.raises(UserError, match="Give each file once"):
        download.plan("wing", ["x.ckpt", "y.ckpt"], are_files=True)


@pytest.mark.parametrize("is_right", [True, False])
def test_weights_of_metrics_continue_and_are_checked_by_the_hash_in_their_name(serve, tmp_path, monkeypatch, is_right):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = io.BytesIO()
    torch.save(torch.nn.Linear(100, 100).state_dict(), file)
    content = file.getvalue()

    def answer(handler, start):
        handler.begin(start, content=content)
        handler.wfile.write(content[start : start + 9000])
        if start + 9000 < len(content):
            handler.reset()

    address, asked = serve(answer)
    digest = hashlib.sha256(content if is_right else b"other").hexdigest()[:8]
    weights = SimpleNamespace(url=f"{address.rpartition('/')[0]}/net-{digest}.pth")
    if is_right:
        network = load_pretrained(partial(torch.nn.Linear, 100, 100), weights)
        assert torch.equal(network.weight, torch.load(io.BytesIO(content), weights_only=True)["weight"])
        assert len(asked) == len(content) // 9000 + 1
    else:
        with pytest.raises(MissingWeights, match="its hash is wrong"):
            load_pretrained(partial(torch.nn.Linear, 100, 100), weights)
    left = {path.name for path in weights_path(weights).parent.iterdir()} - {f"net-{digest}.pth.lock"}
    assert left == ({f"net-{digest}.pth"} if is_right else set())
