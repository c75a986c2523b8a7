"""A server on this machine that answers as a test tells it."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class FileServer:
    """Answers by path; `asked` holds the paths in order."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []

    def file(self, path: str, content: bytes, **headers: str) -> str:
        """Serve a file; headers in place of the usual ones, "_" for "-"."""
        self.answers[path] = lambda request: send(request, content, **headers)
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


@contextlib.contextmanager
def serving() -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            files.asked.append(path)
            answer = files.answers.get(path)
            answer(self) if answer else self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        files = FileServer(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()
