"""Downloads of data sets and networks, from a local server that breaks off."""

import functools
import http.server
import io
import zipfile

import pytest
import torch

from core.system.errors import UserError
from data import download
from metrics import transfer
from tests.web_server import archive, serving


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `files`, whole or from a requested offset; breaks off after `most` bytes of an answer."""

    def __init__(self, served, *args):
        self.served = served
        super().__init__(*args)

    def do_GET(self):
        name, served = self.path.partition("?")[0].lstrip("/"), self.served
        asked = self.headers.get("Range")
        served["asked"].append((name, asked))
        if name == "moved":
            self.send_response(302)
            self.send_header("Location", "/wing.ckpt")
            self.end_headers()
            return
        if name not in served["files"]:
            self.send_error(404)
            return
        content, start = served["files"][name], 0
        if asked and self.headers.get("If-Range") == served["version"]:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(content) and start:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start + served['shift']}-{len(content) - 1}/{len(content)}")
        else:  # a server need not repeat it in a partial answer
            self.send_header(served["header"], served["version"])
        self.end_headers()
        self.wfile.write(content[start : min(start + served["most"], served["until"])])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A local server -> (a dict of what it serves, its address)."""
    served = {"files": {}, "asked": [], "version": '"one"', "header": "ETag", "most": 10**9, "until": 10**9, "shift": 0}
    monkeypatch.setattr(transfer, "PAUSE", 0.01)
    with serving(functools.partial(Handler, served)) as address:
        yield served, address


@pytest.fixture
def checkpoint(tmp_path):
    torch.save({"state_dict": {"a": torch.arange(1000)}}, tmp_path / "made.ckpt")
    return (tmp_path / "made.ckpt").read_bytes()


def test_an_interrupted_transfer_continues_where_it_stopped(server, checkpoint, tmp_path):
    served, address = server
    served["files"]["wing.ckpt"], served["most"] = checkpoint, len(checkpoint) // 3
    target = tmp_path / "expr" / "wing.ckpt"
    assert download.get(target, f"{address}/wing.ckpt")
    assert target.read_bytes() == checkpoint
    broken_off = range(served["most"], len(checkpoint), served["most"])
    assert [asked for _, asked in served["asked"]] == [None, *(f"bytes={start}-" for start in broken_off)]
    assert [path.name for path in target.parent.iterdir()] == ["wing.ckpt"]
    assert not download.get(target, f"{address}/wing.ckpt"), "it is there"


def test_a_second_command_continues_unless_the_file_changed(server, checkpoint, tmp_path):
    served, address = server
    served["files"]["wing.ckpt"], served["until"] = checkpoint, 500
    target = tmp_path / "wing.ckpt"
    with pytest.raises(UserError, match=r"Cannot download .* 500 bytes received so far\)\. Run the same command again"):
        download.get(target, f"{address}/wing.ckpt")
    assert not target.exists()
    served["until"], served["asked"] = 10**9, []
    assert download.get(target, f"{address}/moved")
    assert target.read_bytes() == checkpoint and served["asked"][-1] == ("wing.ckpt", "bytes=500-")
    other = checkpoint + b"more"
    target.unlink()
    served["until"] = 100
    with pytest.raises(UserError):
        download.get(target, f"{address}/wing.ckpt")
    served["until"], served["version"], served["files"]["wing.ckpt"] = 10**9, '"two"', other
    download.get(target, f"{address}/wing.ckpt")
    assert target.read_bytes() == other


SERVERS = [("Last-Modified", "Mon", 0), ("X-None", "", 0), ("ETag", '"x"', 5), ("ETag", 'W/"weak"', 0)]


@pytest.mark.parametrize(("header", "version", "shift"), SERVERS)
def test_servers_without_versions_or_with_wrong_ranges(header, version, shift, server, checkpoint, tmp_path):
    """Some give versions as a time or not at all; some send another range than requested."""
    served, address = server
    served["files"]["wing.ckpt"] = checkpoint
    served |= {"header": header, "version": version, "shift": shift, "most": 2 * len(checkpoint) // 3}
    target = tmp_path / "wing.ckpt"
    if header == "Last-Modified":
        assert download.get(target, f"{address}/wing.ckpt")
    else:
        with pytest.raises(UserError, match=r"Cannot download .*; [\d,]+ bytes received so far"):
            download.get(target, f"{address}/wing.ckpt")
        served["most"] = 10**9
        assert download.get(target, f"{address}/wing.ckpt")
    assert target.read_bytes() == checkpoint


def test_web_pages_and_damaged_files_are_refused(server, tmp_path):
    served, address = server
    served["files"] |= {"wing.ckpt": b"  <!DOCTYPE html><html>gone</html>", "afhq.zip": b"nothing"}
    with pytest.raises(UserError, match=r"expected a \.ckpt file, got a web page\)\..*download wing\.ckpt in"):
        download.get(tmp_path / "wing.ckpt", f"{address}/wing.ckpt")
    with pytest.raises(UserError, match="expected a zip archive of a data set, got a different or damaged file"):
        download.get(tmp_path / "afhq", f"{address}/afhq.zip")
    with pytest.raises(UserError, match=r"Cannot download .*none\.zip \(404 "):
        download.get(tmp_path / "afhq", f"{address}/none.zip")
    with pytest.raises(UserError, match="not an http or https address.* --from_file"):
        download.get(tmp_path / "afhq", (tmp_path / "afhq.zip").as_uri())
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_server_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE", 0)
    with pytest.raises(UserError, match="Cannot download .* 0 bytes received so far"):
        download.get(tmp_path / "wing.ckpt", "http://127.0.0.1:9/wing.ckpt")


def test_data_sets_are_unpacked_into_train_and_val(server, tmp_path):
    served, address = server
    served["files"]["afhq.zip"] = archive(afhq__train__cat__1="a", afhq__val__cat__2="b")
    served["files"]["afhq_v2.zip"] = archive(train__cat__1="a", test__cat__2="b")
    for name in ("afhq", "afhq_v2"):
        assert download.get(tmp_path / name, f"{address}/{name}.zip")
        found = sorted(path.relative_to(tmp_path / name).as_posix() for path in (tmp_path / name).rglob("*/*/*"))
        assert found == ["train/cat/1", "val/cat/2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["afhq", "afhq_v2"]


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "C:\\out", "a/../../out", "..\\out"])
def test_archives_with_paths_outside_are_refused(name, tmp_path):
    (tmp_path / "bad.zip").write_bytes(archive(**{name: "x"}))
    with pytest.raises(UserError, match="could write outside the target"):
        download.unpack(tmp_path / "bad.zip", tmp_path / "bad")
    assert [path.name for path in tmp_path.rglob("*")] == ["bad.zip"]


def deflated_and_damaged():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", bytes(range(256)) * 100)
    return content.getvalue()[:40] + b"\xff" * 20 + content.getvalue()[60:]


def test_a_wrong_kind_of_file_is_refused_and_kept(checkpoint, tmp_path, monkeypatch):
    """The wrong file and the partial download both stay."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set.zip").write_bytes(archive(afhq__train__cat__1="a", afhq__val__cat__1="b"))
    (tmp_path / "expr").mkdir()
    (tmp_path / "expr" / "wing.ckpt.part").write_bytes(b"so far")
    for target, wrong in (("data", "made.ckpt"), ("expr/wing.ckpt", "set.zip"), ("expr/mean.npz", "made.ckpt")):
        with pytest.raises(UserError, match="got a different or damaged file"):
            download.get(target, "", wrong)
        assert (tmp_path / wrong).is_file() and not (tmp_path / target).exists()
    assert (tmp_path / "expr" / "wing.ckpt.part").read_bytes() == b"so far"


def test_a_useless_existing_file_or_folder_is_replaced(checkpoint, server, tmp_path):
    served, address = server
    served["files"] |= {"wing.ckpt": checkpoint, "afhq.zip": archive(afhq__train__cat__1="a", afhq__val__cat__1="b")}
    (tmp_path / "wing.ckpt").write_bytes(b"<html>")
    (tmp_path / "afhq").mkdir()
    assert download.get(tmp_path / "wing.ckpt", f"{address}/wing.ckpt")
    assert download.get(tmp_path / "afhq", f"{address}/afhq.zip") and (tmp_path / "afhq" / "train").is_dir()


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/größe.ckpt", "http://[::1/x.ckpt", "http://a:b/x", "http:/x y"]
)
def test_malformed_addresses_are_refused(address, tmp_path):
    with pytest.raises(UserError):
        download.get(tmp_path / "wing.ckpt", address)


def test_archives_with_links_or_damage_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="could write outside the target"):
        download.unpack(tmp_path / "link.zip", tmp_path / "data")
    for content in (archive(a="x" * 1000).replace(b"xxxx", b"xxyx", 1), deflated_and_damaged(), b"PK\x03\x04", b""):
        (tmp_path / "damaged.zip").write_bytes(content)
        with pytest.raises(UserError, match="Cannot unpack .* is damaged"):
            download.unpack(tmp_path / "damaged.zip", tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.zip", "link.zip"]


def test_command_line_takes_urls_and_files(checkpoint, server, tmp_path, monkeypatch, capsys):
    """From another address and from files, distinguished by their suffixes."""
    served, address = server
    served["files"]["x.ckpt"] = checkpoint
    served["files"]["y.npz"] = archive(**{"mean.npy": "1"})
    monkeypatch.chdir(tmp_path)
    download.main(["wing", "--url", f"{address}/y.npz", f"{address}/x.ckpt?dl=1"])
    assert (tmp_path / "expr" / "checkpoints" / "wing.ckpt").read_bytes() == checkpoint
    assert (tmp_path / "expr" / "checkpoints" / "celeba_lm_mean.npz").is_file()
    (tmp_path / "mine.zip").write_bytes(archive(celeba_hq__train__male__1="a"))
    download.main(["celeba-hq-dataset", "--from_file", "mine.zip"])
    assert (tmp_path / "data" / "celeba_hq" / "train" / "male" / "1").is_file() and (tmp_path / "mine.zip").is_file()
    said = capsys.readouterr().out
    assert said.count("Created ") == 3
    for line in (f"wing --url {address}/z.txt", "wing afhq-dataset --url x", "wing --from_file no"):
        with pytest.raises(SystemExit) as caught:
            download.main(line.split())
        assert caught.value.code == 2
        assert capsys.readouterr().err.strip()


def test_plan_gives_default_target_and_address():
    (target, source, file), *_ = download.plan("wing", [])
    assert (target, file) == ("expr/checkpoints/wing.ckpt", None)
    assert source.addresses == ("https://www.dropbox.com/s/tjxpypwpt38926e/wing.ckpt?dl=1",)
