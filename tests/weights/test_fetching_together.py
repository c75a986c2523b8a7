"""Processes that fetch at the same time, and one that is killed."""

import hashlib
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from kvision.weights.fetching import fetch, home
from tests.weights.file_server import Answer, FileServer, send

SCRIPT = Path(__file__).with_name("fetching_process.py")
CONTENT = bytes(range(256)) * 9000
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/model"
SECONDS = 60.0  # after which a test gives up


def start(*origins: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *origins],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def paths_of(process: "subprocess.Popen[str]") -> list[Path]:
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    return [Path(line) for line in out.split()]


def hold(answer: Answer, begun: threading.Event, end: threading.Event) -> Answer:
    def held(request: BaseHTTPRequestHandler) -> None:
        begun.set()
        end.wait(SECONDS)
        answer(request)

    return held


def test_entries_of_all_are_kept(server: FileServer) -> None:
    """Six processes that end their downloads in the same moment, three times."""
    processes, rounds = 6, 3
    urls: list[list[str]] = [[] for _ in range(processes)]
    for number in range(rounds):
        meeting = threading.Barrier(processes)
        for row in range(processes):
            path = f"/{number}/{row}.bin"

            def answer(
                request: BaseHTTPRequestHandler, meeting: threading.Barrier = meeting
            ) -> None:
                meeting.wait(SECONDS)
                send(request, request.path.encode())

            urls[row].append(server.in_turn(path, answer))
    running = [start(*row) for row in urls]
    for process, row in zip(running, urls, strict=True):
        found = [path.read_text() for path in paths_of(process)]
        assert found == [url.removeprefix(server.url) for url in row]
    lock = json.loads((home() / "lock.json").read_text())
    assert lock == {
        url: {
            "sha256": hashlib.sha256(url.removeprefix(server.url).encode()).hexdigest()
        }
        for row in urls
        for url in row
    }


@pytest.mark.parametrize("kind", ["address", "hub"])
def test_one_downloads_and_the_others_wait(server: FileServer, kind: str) -> None:
    begun, end = threading.Event(), threading.Event()
    if kind == "hub":
        pytest.importorskip("huggingface_hub")
        origin, path = REPOSITORY, f"/{REPOSITORY}/resolve/main/model.safetensors"
        headers = {
            "ETag": f'"{hashlib.sha256(CONTENT).hexdigest()}"',
            "X_Repo_Commit": COMMIT,
        }
        server.file(path.replace("main", COMMIT), CONTENT, **headers)
        server.file(path, CONTENT, **headers)
    else:
        origin, path, headers = server.url + "/a.bin", "/a.bin", {}
    server.in_turn(
        path, hold(lambda request: send(request, CONTENT, **headers), begun, end)
    )
    first = start(origin)
    assert begun.wait(SECONDS)
    others = [start(origin) for _ in range(3)]
    for process in others:
        assert process.stderr is not None
        assert "Waiting for another process" in process.stderr.readline()
    end.set()
    found = {path for process in (first, *others) for path in paths_of(process)}
    assert len(found) == 1
    assert found.pop().read_bytes() == CONTENT
    assert sum(path.endswith((".bin", ".safetensors")) for path in server.got) == 1


def test_killed_in_the_middle(server: FileServer) -> None:
    begun, end = threading.Event(), threading.Event()

    def half(request: BaseHTTPRequestHandler) -> None:
        send(request, CONTENT[:1000], Content_Length=str(len(CONTENT)))
        request.wfile.flush()
        begun.set()
        end.wait(SECONDS)

    url = server.in_turn("/a.bin", half)
    process = start(url)
    assert begun.wait(SECONDS)
    while not list(home().glob("files/*/.*")):
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=SECONDS)
    end.set()
    assert len(list(home().glob("files/*/.*"))) == 1
    server.file("/a.bin", CONTENT)
    path = fetch(url)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
