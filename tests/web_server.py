"""A local web server, and an archive that it can serve."""

import http.server
import io
import socket
import struct
import threading
import time
import zipfile
from contextlib import contextmanager


def archive(**files):
    """A zip of given names, slashes as __, and contents, as bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, text in files.items():
            file.writestr(name.replace("__", "/"), text)
    return content.getvalue()


CONTENT = archive(**{"mean.npy": b"\0" * 300_000})
SIZE = len(CONTENT)


@contextmanager
def serving(handler):
    """The address of a server within the context. handler: creates the handler of a request."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads, server.handle_error = True, lambda *_: None
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


class ScriptedHandler(http.server.BaseHTTPRequestHandler):
    """Ask `answer(handler, start)`, where start is the offset that a request asks for."""

    protocol_version = "HTTP/1.1"

    def __init__(self, answer, asked, *args):
        self.answer, self.asked = answer, asked
        super().__init__(*args)

    def do_GET(self):
        start = self.headers.get("Range")
        self.asked.append((self.path, start))
        self.close_connection = True
        self.answer(self, int(start[6:-1]) if start else 0)

    def begin(self, start, tag='"a"', content=CONTENT, length=True):
        """Send the headers of an answer from an offset."""
        self.send_response(206 if start else 200)
        if tag:
            self.send_header("ETag", tag)
        if length:
            self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()

    def reset(self):
        """Break the connection by a reset, after the client could read what was sent."""
        self.wfile.flush()
        time.sleep(0.05)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.wfile = self.rfile = open("/dev/null", "w+b", buffering=0)  # noqa: PTH123, SIM115

    def log_message(self, *_):
        pass
