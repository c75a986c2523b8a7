"""Downloads over connections that break, against a server on this machine."""

import email.utils
import hashlib
import threading
import time
from pathlib import Path

import pytest

from kvision.weights import downloading
from kvision.weights.downloading import download
from kvision.weights.retrying import FetchError, wait_of
from tests.weights.file_server import FileServer, code, cut, ranges, send, serving

CONTENT = bytes(range(256)) * 9000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TAG = '"one"'


def whole(content: bytes = CONTENT, **headers: str):
    return lambda request: send(request, content, **headers)


def got(url: str, folder: Path) -> bytes:
    path = folder / "file"
    digest = download(url, path, len(CONTENT))
    content = path.read_bytes()
    assert digest == hashlib.sha256(content).hexdigest()
    return content


@pytest.mark.parametrize("number", [408, 429, 500, 502, 503, 504])
def test_fault_that_passes(
    server: FileServer, waits: list[float], tmp_path: Path, number: int
) -> None:
    url = server.in_turn("/a.bin", code(number), code(number), cut, whole())
    assert got(url, tmp_path) == CONTENT
    assert waits == [1, 2, 4]


def test_fault_that_does_not_pass(
    server: FileServer, waits: list[float], tmp_path: Path
) -> None:
    url = server.in_turn("/a.bin", code(503))
    with pytest.raises(FetchError, match=r"answers 503 .*Tried 5 times"):
        got(url, tmp_path)
    assert waits == [1, 2, 4, 8]
    assert len(server.asked) == 5


@pytest.mark.parametrize("number", [400, 401, 403, 404, 410, 416, 501])
def test_fault_that_is_final(
    server: FileServer, waits: list[float], tmp_path: Path, number: int
) -> None:
    url = server.in_turn("/a.bin", code(number), whole())
    with pytest.raises(FetchError, match=f"answers {number}"):
        got(url, tmp_path)
    assert (waits, len(server.asked)) == ([], 1)


def test_server_says_when(
    server: FileServer, waits: list[float], tmp_path: Path
) -> None:
    then = email.utils.formatdate(time.time() + 60, usegmt=True)
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    faults = (code(429, Retry_After=text) for text in ("17", then, past, "soon"))
    assert got(server.in_turn("/a.bin", *faults, whole()), tmp_path) == CONTENT
    assert waits == [17, pytest.approx(60, abs=5), 0, 8]


def test_server_wants_to_be_left_alone(
    server: FileServer, waits: list[float], tmp_path: Path
) -> None:
    url = server.in_turn("/a.bin", code(429, Retry_After="3600"))
    with pytest.raises(FetchError, match="wait for 3600 seconds"):
        got(url, tmp_path)
    assert waits == []


def test_no_header() -> None:
    assert wait_of(None) is None


def test_goes_on_where_it_broke(
    server: FileServer, waits: list[float], tmp_path: Path
) -> None:
    """More than five times, as long as each brings something."""
    parts = ranges(CONTENT, TAG, at_once=250_000)
    url = server.in_turn("/a.bin", parts)
    assert got(url, tmp_path) == CONTENT
    assert len(server.asked) == 10
    assert waits == [1] * 9


def test_does_not_mix_two_files(
    server: FileServer, waits: list[float], tmp_path: Path
) -> None:
    """Another file by now: the server gives all of it, and the beginning is dropped."""
    other = CONTENT[::-1]
    url = server.in_turn(
        "/a.bin",
        ranges(CONTENT, TAG, at_once=250_000),
        ranges(other, '"two"', at_once=len(other)),
    )
    assert got(url, tmp_path) == other
    assert len(waits) == 1


@pytest.mark.parametrize("tag", ["", 'W/"one"'])
def test_begins_anew_without_a_strong_tag(
    server: FileServer, waits: list[float], tmp_path: Path, tag: str
) -> None:
    headers = {"ETag": tag, "Content_Length": str(len(CONTENT))}
    url = server.in_turn("/a.bin", whole(CONTENT[:1000], **headers), whole())
    assert got(url, tmp_path) == CONTENT


def test_other_part_than_asked_for(
    server: FileServer, waits: list[float], tmp_path: Path
) -> None:
    headers = {"ETag": TAG, "Content_Length": str(len(CONTENT))}
    wrong = {"Content_Range": "bytes 0-9/10"}
    url = server.in_turn(
        "/a.bin",
        whole(CONTENT[:1000], **headers),
        lambda request: send(request, CONTENT[:10], 206, **wrong),
        whole(),
    )
    assert got(url, tmp_path) == CONTENT
    assert len(server.asked) == 3


def test_always_half_of_it(
    server: FileServer, waits: list[float], tmp_path: Path
) -> None:
    half = whole(CONTENT[:1000], Content_Length=str(len(CONTENT)))
    url = server.in_turn("/a.bin", half)
    with pytest.raises(FetchError, match=r"1,000 of 2,304,000 .*Tried 5 times"):
        got(url, tmp_path)
    assert len(server.asked) == 6


def test_silence(
    server: FileServer,
    waits: list[float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(downloading, "_SECONDS", 1.0)
    end = threading.Event()
    url = server.in_turn("/a.bin", lambda _: end.wait(60) and None, whole())
    assert got(url, tmp_path) == CONTENT
    end.set()
    assert waits == [1]


def test_proxy_of_the_environment(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        url = server.file("/a.bin", CONTENT)
        assert got(url, tmp_path) == CONTENT
        assert proxy.asked == []  # no_proxy
        monkeypatch.setenv("no_proxy", "")
        proxy.in_turn(url, whole(b"by proxy"))
        assert got(url, tmp_path) == b"by proxy"


def test_progress_on_a_terminal(
    server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = server.file("/a.bin", CONTENT)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    got(url, tmp_path)
    assert capsys.readouterr().err.strip() == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    got(url, tmp_path)
    said = capsys.readouterr().err
    assert "a.bin" in said
    assert "2.3/2.3 MB" in said
