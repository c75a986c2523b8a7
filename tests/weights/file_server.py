"""A server on this machine that answers as a test tells it."""

import contextlib
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class FileServer:
    """Answers by path; `asked` holds the paths in order, `got` those with content."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.got: list[str] = []

    def file(self, path: str, content: bytes, **headers: str) -> str:
        """Serve a file; headers in place of the usual ones, "_" for "-"."""
        self.answers[path] = lambda request: send(request, content, **headers)
        return self.url + path

    def in_turn(self, path: str, *answers: Answer) -> str:
        """Answer the first request so, the second so, ..., and all later as the last.

        A break of the connection is `cut`.
        """
        left = list(answers)

        def answer(request: BaseHTTPRequestHandler) -> None:
            (left.pop(0) if left[1:] else left[0])(request)

        self.answers[path] = answer
        return self.url + path

    def redirect(self, path: str, to: str) -> str:
        self.answers[path] = lambda request: send(request, b"", 302, Location=to)
        return self.url + path


def send(
    request: BaseHTTPRequestHandler, content: bytes, code: int = 200, **headers: str
) -> None:
    request.send_response(code)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    for name, value in {"Content-Length": str(len(content)), **given}.items():
        if value:
            request.send_header(name, value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(content)
    request.close_connection = True


def code(number: int, **headers: str) -> Answer:
    """Make an answer without content."""
    return lambda request: send(request, b"", number, **headers)


def cut(request: BaseHTTPRequestHandler) -> None:
    """Break the connection before any answer."""
    # With a zero linger time the system sends a reset.
    request.connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    request.close_connection = True
    request.connection.close()


def ranges(content: bytes, tag: str, at_once: int) -> Answer:
    """Make an answer that ends after some bytes, but goes on where it is asked to."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        first, number = 0, 200
        if request.headers.get("If-Range") == tag:
            first = int(request.headers["Range"].removeprefix("bytes=")[:-1])
            number = 206
        size = len(content)
        headers = {
            "ETag": tag,
            "Content_Length": str(size - first),
            "Content_Range": f"bytes {first}-{size - 1}/{size}" if first else "",
        }
        send(request, content[first : first + at_once], number, **headers)

    return answer


@contextlib.contextmanager
def serving() -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            files.asked.append(path)
            if self.command == "GET":
                files.got.append(path)
            answer = files.answers.get(path)
            answer(self) if answer else self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # the client has gone
                super().handle_error(request, client_address)

    with Server(("127.0.0.1", 0), Handler) as server:
        files = FileServer(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()
