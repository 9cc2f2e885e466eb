"""The web server of the page. It answers only this computer, and only requests with the token of its address."""

import json
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from urllib.parse import unquote

from core.images.io import Upload
from core.system.errors import UserError, reason
from core.system.memory import explain
from core.system.notes import parse_json

HOST = "127.0.0.1"
MOST_BYTES = 2**25  # of an upload: 34 MB
MOST_DRAINED = 2**28  # bytes of a refused upload that are read, so that the browser shows the answer
PAGE = Path(__file__).with_name("page.html")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' blob: data:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # The address holds the token.
    "X-Content-Type-Options": "nosniff",
}


class PlayServer(ThreadingHTTPServer):
    """Serves the page of a Studio. port: 0 for any free one. Raises UserError if it is not free."""

    def __init__(self, studio, port=0):
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            raise UserError(f"Cannot use --port {port} ({reason(error)}). Choose another one, or 0.") from error
        self.studio, self.token = studio, secrets.token_urlsafe(16)
        self.address = f"http://{HOST}:{self.server_port}/{self.token}/"
        self.newest, self.lock = 0, Lock()  # number of the newest request for an output

    def handle_error(self, request, client_address):
        """Ignore connections that break."""


class Handler(BaseHTTPRequestHandler):
    """Answers requests with the page, an image, a style, the number of a new image, or an output."""

    protocol_version, server_version, timeout = "HTTP/1.1", "StarGAN", 60

    def do_GET(self):
        """Answer with the page, an image as the networks see it, or a style."""
        self._answer({"": self._page, "image": self._image, "style": self._style})

    def do_POST(self):
        """Answer with the number of a new image, or with an output."""
        self._answer({"add": self._add, "render": self._render})

    def log_message(self, *args):
        """Print nothing."""

    def _answer(self, functions):
        """Send what the function that the path names returns: (content type, bytes), or None for nothing."""
        hosts = {f"{host}:{self.server.server_port}" for host in (HOST, "localhost")}
        token, slash, path = self.path.lstrip("/").partition("/")
        function, _, rest = path.partition("/")
        is_known = secrets.compare_digest(f"{token}{slash}".encode(), f"{self.server.token}/".encode())
        if not is_known or self.headers.get("Host") not in hosts:
            return self._send(HTTPStatus.FORBIDDEN, error="Use the address that the program printed.")
        text = self.headers.get("Content-Length", "0")
        size = int(text) if text.isdecimal() and len(text) <= 18 else None
        if size is None or size > MOST_BYTES or "Transfer-Encoding" in self.headers:
            self._drain(size or 0)
            limit = f"at most {MOST_BYTES / 1e6:.0f} MB"
            return self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, error=f"Choose a smaller file ({limit}).")
        if function not in functions:
            return self._send(HTTPStatus.NOT_FOUND, error="There is no such page.")
        try:
            found = functions[function](unquote(rest), self.rfile.read(size))
        except UserError as error:
            return self._send(HTTPStatus.BAD_REQUEST, error=str(error))
        except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
            sentence = explain(error) or "Cannot use this request (a value is missing or wrong)."
            return self._send(HTTPStatus.BAD_REQUEST, error=sentence)
        return self._send(HTTPStatus.NO_CONTENT) if found is None else self._send(HTTPStatus.OK, *found)

    def _drain(self, size):
        """Read and drop a refused upload, within limits."""
        left = min(size, MOST_DRAINED)
        while left > 0 and (part := self.rfile.read(min(left, 2**16))):
            left -= len(part)

    def _send(self, status, kind="application/json", content=b"", error=None):
        content = json.dumps({"error": error}).encode() if error else content
        self.send_response(status)
        if error:  # The body of a refused request may be unread.
            self.send_header("Connection", "close")
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": len(content)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def _page(self, rest, body):
        studio = self.server.studio
        images = [{"number": number, "name": studio.image(number).name} for number in studio.examples]
        data = json.dumps({"domains": studio.domains, "images": images}).replace("<", "\\u003c")
        return "text/html; charset=utf-8", PAGE.read_text(encoding="utf-8").replace("{{data}}", data).encode()

    def _image(self, rest, body):
        return "image/png", self.server.studio.shown(int(rest))

    def _add(self, rest, body):
        number = self.server.studio.add(Upload(Path(rest).name or "image", body))
        return "application/json", json.dumps({"number": number}).encode()

    def _render(self, rest, body):
        """Only the newest request counts. Requests that still wait for the networks then get no output."""
        with self.server.lock:
            self.server.newest += 1
            number = self.server.newest
        output = self.server.studio.render(parse_json(body), is_wanted=lambda: number == self.server.newest)
        return output and ("image/png", output)

    def _style(self, rest, body):
        return "application/json", self.server.studio.style_file(parse_json(rest))
