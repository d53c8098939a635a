"""A server that speaks S3 (moto's, over HTTP), and a door before it that can refuse, fail or be slow."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FORBIDDEN = b"<Error><Code>SignatureDoesNotMatch</Code><Message>The signature does not match that of %s</Message></Error>"


class Door(BaseHTTPRequestHandler):
    """Passes requests on, but where the rule (method, path) -> (status, body), or a number of seconds, says otherwise."""

    protocol_version = "HTTP/1.1"

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = self.server.rule(self.command, self.path)
        if isinstance(said, float):
            time.sleep(said)
            self.close_connection = True
            return
        status, headers, answer = (said[0], {}, said[1]) if said else self.asked(body)
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(answer))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    def asked(self, body):
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "content-length")}
        request = urllib.request.Request(self.server.behind + self.path, body or None, headers, method=self.command)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on

    def log_message(self, *_):
        pass


@contextmanager
def door(behind, rule=lambda method, path: None, tls=None):
    """HOST:PORT of a door before the server at the URL `behind`; of TLS where a context is given."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    server.socket = server.socket if tls is None else tls.wrap_socket(server.socket, server_side=True)
    server.behind, server.rule, server.daemon_threads = behind, rule, True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def s3():
    """The URL of a fresh server."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def make_bucket(url, name):
    urllib.request.urlopen(urllib.request.Request(f"{url}/{name}", method="PUT")).close()


def got(url):
    """An object's bytes, of one moment."""
    with urllib.request.urlopen(url) as answer:
        return answer.read()
