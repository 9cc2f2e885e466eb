"""The page to play with a model: what the server refuses, what it computes, and the page in a browser."""

import http.client
import io
import json
import os
import re
import signal
import socket
import threading
import urllib.request
import zlib
from dataclasses import replace
from urllib.error import HTTPError
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from core.api import StarGAN
from core.images.io import read_rgb
from core.play import studio as studio_module
from core.play.server import MOST_BYTES, PlayServer
from core.play.studio import Studio
from core.sampling.style_files import read_styles
from tests.browser import browser
from tests.command import ROOT, call
from tests.processes import start

DEMO = ROOT / "assets/demo"
DOG, CAT = (next((ROOT / "assets/representative/demo/src" / name).glob("*.png")) for name in ("dog", "cat"))
WISH = {"domain": "cat", "pad": [1, -0.5], "psi": 0.8, "strength": 1, "references": []}


@pytest.fixture(scope="module")
def server():
    """A server of the included model with the image of a dog."""
    model = StarGAN.load(DEMO, device="cpu")
    server = PlayServer(Studio(model.solver, [DOG]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def request(server, path="", method="GET", body=None, token=None, **headers):
    """Send a request -> (status, body). token: that of the path."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    path = f"/{server.token if token is None else token}/{path}"
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def post(server, path, value):
    return request(server, path, "POST", value if isinstance(value, bytes) else json.dumps(value).encode())


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def bomb(width, height):
    """A small PNG file that claims a large size."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    rows = zlib.compressobj()
    data = b"".join(rows.compress(bytes(3 * width + 1)) for _ in range(20)) + rows.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_outputs_are_those_of_the_model(server):
    """With the style file of the page, and with references."""
    model, image = StarGAN.load(DEMO, device="cpu"), server.studio.examples[0]
    for wish in ({**WISH, "image": image}, {**WISH, "image": image, "strength": 0.6}):
        status, output = post(server, "render", wish)
        _, style = request(server, f"style/{quote(json.dumps(wish))}")
        (ROOT / "expr").mkdir(exist_ok=True)
        style = json.loads(style)["styles"][0]
        assert status == 200 and style["domain"] == "cat" and style["origin"]["pad"] == [1, -0.5]
        loaded = model.style("cat", seed=1)
        loaded = type(loaded)(**{**vars(loaded), "code": loaded.code.new_tensor(style["code"])})
        expected = model.translate(DOG, loaded, strength=wish["strength"], source_domain="dog")
        assert np.array_equal(pixels(output), np.asarray(expected))
    number = json.loads(post(server, "add/cat.png", CAT.read_bytes())[1])["number"]
    wish = {**WISH, "image": image, "references": [[number, 1]]}
    expected = model.translate(DOG, "cat", reference=CAT)
    assert np.array_equal(pixels(post(server, "render", wish)[1]), np.asarray(expected))
    half = {**wish, "references": [[number, 0.5]]}
    outputs = [pixels(post(server, "render", each)[1]).astype(int) for each in (wish, half, {**WISH, "image": image})]
    assert 0 < np.abs(outputs[0] - outputs[1]).mean() < np.abs(outputs[0] - outputs[2]).mean()


def test_references_are_mixed_and_the_pad_has_the_rest(server):
    studio = server.studio
    dog, cat = studio.examples[0], json.loads(post(server, "add/cat.png", CAT.read_bytes())[1])["number"]
    pad, first, second = (studio.style(WISH).code, *(studio.known[number].codes[1] for number in (dog, cat)))
    for weights, expected in (
        ([0.8, 0.8], 0.2 * pad + 0.4 * first + 0.4 * second),
        ([0.3, 0.1], 0.7 * pad + 0.3 * (0.75 * first + 0.25 * second)),
        ([0, 1], second),
        ([0, 0], pad),
    ):
        references = list(zip((dog, cat), weights, strict=True))
        assert np.allclose(studio.style({**WISH, "references": references}).code, expected, atol=1e-5)


def test_the_pad_moves_along_the_principal_axes(server):
    """In standard deviations of the random styles; psi scales the distance from the mean."""
    studio = server.studio
    mean, axes = studio.planes[1]
    codes = [studio.style({**WISH, "pad": pad}).code for pad in ([0, 0], [1, 0], [0, 1])]
    assert np.allclose(codes[0], mean, atol=1e-6)
    assert np.allclose(codes[1] - codes[0], 0.8 * axes[0], atol=1e-5)
    assert abs(float(axes[0] @ axes[1])) < 1e-4 * float(axes[0] @ axes[0]) and axes[0].norm() > axes[1].norm()


def test_only_this_computer_with_the_token_is_answered(server):
    assert request(server)[0] == 200 and server.server_address[0] == "127.0.0.1"
    assert request(server, Host=f"localhost:{server.server_port}")[0] == 200
    for options in (
        {"token": ""},
        {"token": server.token[:-1]},
        {"token": "x" * 22},
        {"Host": "evil.example"},
        {"Host": f"evil.example:{server.server_port}"},
    ):
        for path, method in (("", "GET"), ("image/1", "GET"), ("render", "POST")):
            status, body = request(server, path, method, b"{}" if method == "POST" else None, **options)
            assert status == 403 and b"Use the address that the program printed." in body
    assert server.token not in request(server)[1].decode()
    with pytest.raises(HTTPError, match="403"):  # Without the last slash, the page would not find its images.
        urllib.request.urlopen(server.address.rstrip("/"))


def test_large_uploads_are_refused_and_the_server_lives(server):
    for size in (MOST_BYTES + 1, 100_000_000):
        status, body = request(server, "add/big.png", "POST", bytes(size))
        assert status == 413 and b"Choose a smaller file (at most 34 MB)." in body
    for length in ("-1", "many", str(10**30), "9" * 5000):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as connection:
            lines = (f"Host: 127.0.0.1:{server.server_port}", f"Content-Length: {length}", "", "")
            connection.sendall("\r\n".join((f"POST /{server.token}/add/x HTTP/1.1", *lines)).encode())
            connection.shutdown(socket.SHUT_WR)
            assert b" 413 " in connection.recv(100)
    assert request(server)[0] == 200


@pytest.mark.parametrize(
    "content", [bomb(9000, 9000), bomb(60_000, 60_000), b"no image", b"", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_files_that_are_no_usable_images_are_one_sentence(content, server):
    before = len(server.studio.known)
    status, body = post(server, "add/..%2F..%2Fetc%2Fx.png", content)
    sentence = json.loads(body)["error"]
    assert status == 400 and sentence.startswith("Cannot ") and "x.png" in sentence and "/tmp" not in sentence
    assert len(server.studio.known) == before and request(server)[0] == 200


@pytest.mark.parametrize(
    "change",
    [
        *({"image": 10**6}, {"image": "x"}, {"domain": "fish"}, {"references": [[10**6, 1]]}, {"references": 3}),
        *({"pad": [1]}, {"pad": [1, 2, 3]}, {"pad": [float("nan"), 0]}, {"pad": [1e300, 1]}),
        *({"psi": None}, {"strength": "much"}, {"strength": 1e30}),
    ],
)
def test_wrong_requests_are_refused(change, server):
    status, body = post(server, "render", {**WISH, "image": server.studio.examples[0], **change})
    assert status == 400 and json.loads(body)["error"].startswith("Cannot use this ")
    assert post(server, "render", b"[" * 100_000)[0] == 400 and request(server, "nothing")[0] == 404


def test_the_page_keeps_its_examples_and_the_newest_images(server, monkeypatch):
    monkeypatch.setattr(studio_module, "KEPT", 3)
    numbers = [json.loads(post(server, "add/x.png", CAT.read_bytes())[1])["number"] for _ in range(9)]
    assert server.studio.examples[0] in server.studio.known and numbers[-1] in server.studio.known
    assert request(server)[0] == 200
    status, body = post(server, "render", {**WISH, "image": numbers[0]})
    assert status == 400 and json.loads(body)["error"].startswith("Cannot use this image (the page keeps the last 3).")


def test_images_of_their_own_size_are_limited_on_the_page(server):
    shape = server.studio.translator.shape
    server.studio.translator.shape = replace(shape, resize="keep")
    status, body = post(server, "add/x.png", png(np.zeros((300, 300, 3), np.uint8)))
    server.studio.translator.shape = shape
    assert status == 400 and json.loads(body)["error"].startswith("Cannot use x.png (300 x 300 pixels; at most 65,536)")


def test_a_connection_ends_after_a_refusal(server):
    """What follows in it could be the rest of the refused request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request("POST", f"/{server.token}/nothing", b"hello")
    answer = connection.getresponse()
    assert answer.status == 404 and answer.will_close
    answer.read()
    connection.close()


def test_only_the_newest_request_is_computed(server):
    """While the networks are busy, later requests replace earlier ones."""
    wish, answers = {**WISH, "image": server.studio.examples[0]}, {}
    with server.studio.lock:
        threads = []
        for number in range(5):
            before = server.newest
            work = lambda number=number: answers.update({number: post(server, "render", wish)[0]})  # noqa: E731
            threads.append(threading.Thread(target=work))
            threads[-1].start()
            while server.newest == before:
                pass
    for thread in threads:
        thread.join()
    assert answers == {0: 204, 1: 204, 2: 204, 3: 204, 4: 200}


def test_the_page_in_a_browser(server, tmp_path):
    """Drop an image, drag over the pad, change the domain, use a reference, save a style and an image."""
    with browser() as started:
        context = started.new_context(
            viewport={"width": 390, "height": 844}, color_scheme="dark", accept_downloads=True
        )
        page, errors, requests = context.new_page(), [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(server.address)

        def output(after=None):
            page.wait_for_function("old => document.getElementById('output').src !== (old || '')", arg=after)
            return page.get_attribute("#output", "src")

        shown = output()
        page.evaluate(
            """async ([content]) => {
                const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
                const transfer = new DataTransfer();
                transfer.items.add(new File([bytes], "cat.png", { type: "image/png" }));
                document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
            }""",
            [__import__("base64").b64encode(CAT.read_bytes()).decode()],
        )
        page.wait_for_selector("img[alt='cat.png']")
        shown = output(shown)
        page.get_by_role("radio", name="dog", exact=True).click()
        shown = output(shown)
        pad = page.locator("#pad")
        pad.scroll_into_view_if_needed()
        box = pad.bounding_box()
        page.mouse.move(box["x"] + 10, box["y"] + 10)
        page.mouse.down()
        page.mouse.move(box["x"] + 90, box["y"] + 40, steps=5)
        page.mouse.up()
        shown = output(shown)
        assert page.locator("#output").bounding_box()["y"] >= 0, "the output stays visible while dragging"
        pad.press("ArrowLeft")
        shown = output(shown)
        page.get_by_title("Weight of cat.png as a reference").fill("0.8")
        page.wait_for_function("() => decodeURIComponent(document.getElementById('save_style').href).includes(',0.8]')")
        shown = output(shown)
        assert "The references have 80 % of the style" in page.locator("#share").text_content()
        with page.expect_download() as download:
            page.get_by_role("link", name="style file").click()
        download.value.save_as(tmp_path / "style.json")
        (style,) = read_styles(tmp_path / "style.json", ["bear", "cat", "dog"])
        assert style.domain == "dog" and style.origin["references"] == ["cat.png"]
        with page.expect_download() as download:
            page.get_by_role("link", name="Image", exact=True).click()
        download.value.save_as(tmp_path / "output.png")
        assert read_rgb(tmp_path / "output.png").size == (64, 64)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert errors == [] and all(url.startswith(("blob:", "data:", server.address)) for url in requests)


def test_a_port_in_use_is_one_sentence(server, capsys):
    flags = f"--checkpoint {DEMO} --src_dir {DOG} --device cpu"
    assert call("play", f"{flags} --port {server.server_port}") == 2
    assert f"Cannot use --port {server.server_port} (address already in use)." in capsys.readouterr().err
    assert call("play", f"{flags} --dry_run") == 0
    assert "  * src_dir " in capsys.readouterr().out


def test_the_program_serves_the_page_until_ctrl_c(tmp_path):
    process = start(["play", "--checkpoint", str(DEMO), "--src_dir", str(DOG), "--device", "cpu"], tmp_path / "console")
    found = None
    while process.is_alive() and not found:
        process.join(0.1)
        text = (tmp_path / "console").read_text() if (tmp_path / "console").exists() else ""
        found = re.search(r"Open (http://127\.0\.0\.1:\d+/\S+/) in a browser", text)
    with urllib.request.urlopen(found[1]) as page:
        assert DOG.name in page.read().decode()
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 0
