"""Downloads, against a server on this machine: the real code, no network."""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from kvision.weights import fetching
from kvision.weights.downloading import check_address
from kvision.weights.fetching import FetchError, HubFile, fetch, home, recorded
from tests.weights.file_server import FileServer, code, cut, serving

CONTENT = bytes(range(256)) * 9000  # more than two blocks
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_FILE = HubFile("someone/model")


def kept() -> list[str]:
    """Names of the files that are kept, hidden ones too, but for locks."""
    files = (path for path in home().rglob("*") if path.is_file())
    return sorted(path.name for path in files if path.parent.name != ".locks")


def test_file_is_downloaded_once(server: FileServer) -> None:
    url = server.file("/a.bin", CONTENT)
    path = fetch(url, SHA256[:8])
    assert path.read_bytes() == CONTENT
    assert path.name == "a.bin"
    assert fetch(url, SHA256[:8]) == path
    assert server.asked == ["/a.bin"]
    lock = json.loads((home() / "lock.json").read_text())
    assert lock == {url: {"sha256": SHA256}}
    assert kept() == ["a.bin", "lock.json"]


def test_same_name_at_two_addresses(server: FileServer) -> None:
    first = fetch(server.file("/one/a.bin", b"one"))
    second = fetch(server.file("/two/a.bin", b"two"))
    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")


def test_hash_of_publisher(server: FileServer) -> None:
    url = server.file("/a-00000000.pth", CONTENT)
    with pytest.raises(FetchError, match=f"{SHA256}, but its publisher says 00000000"):
        fetch(url, "00000000")
    assert kept() == []


def test_hash_of_first_download(server: FileServer) -> None:
    url = server.file("/a.bin", CONTENT)
    path = fetch(url)
    path.unlink()
    server.file("/a.bin", b"changed")
    with pytest.raises(FetchError, match=f"its first download had {SHA256}"):
        fetch(url)
    assert kept() == ["lock.json"]


def test_damaged_file_is_downloaded_again(server: FileServer) -> None:
    url = server.file("/a.bin", CONTENT)
    path = fetch(url)
    path.write_bytes(CONTENT[:-1])
    assert fetch(url).read_bytes() == CONTENT
    path.write_bytes(CONTENT[:-1])
    del server.answers["/a.bin"]
    with pytest.raises(FetchError, match="404"):
        fetch(url)


def test_missing(server: FileServer) -> None:
    with pytest.raises(FetchError, match=r"/no\.bin: the server answers 404"):
        fetch(server.url + "/no.bin")
    assert kept() == []


def test_half_a_file(server: FileServer, waits: list[float]) -> None:
    url = server.file("/a.bin", CONTENT[:1000], Content_Length=str(len(CONTENT)))
    with pytest.raises(FetchError, match=r"(ended after 1,000 of|connection broke)"):
        fetch(url)
    assert kept() == []
    server.file("/a.bin", CONTENT)
    assert fetch(url).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("size", "message"), [("", "does not say"), ("x", "does not say")]
)
def test_size_must_be_known(server: FileServer, size: str, message: str) -> None:
    with pytest.raises(FetchError, match=message):
        fetch(server.file("/a.bin", CONTENT, Content_Length=size))


def test_too_large(server: FileServer) -> None:
    with pytest.raises(FetchError, match=r"2,304,000 bytes, more than 2,303,999"):
        fetch(server.file("/a.bin", CONTENT), max_bytes=len(CONTENT) - 1)
    assert kept() == []


def test_no_room(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=99))
    with pytest.raises(FetchError, match=r"room for 99.*KVISION_HOME"):
        fetch(server.file("/a.bin", CONTENT))
    assert kept() == []


def test_offline(server: FileServer) -> None:
    with serving() as gone:
        url = gone.file("/a.bin", CONTENT)
        path = fetch(url)
    assert fetch(url) == path  # the server has gone, the file is here
    path.unlink()
    with pytest.raises(FetchError, match=r"cannot be reached: .*refused"):
        fetch(url)
    assert kept() == ["lock.json"]


def test_redirect(server: FileServer) -> None:
    server.file("/a.bin", CONTENT)
    path = fetch(server.redirect("/from.bin", "/a.bin"))
    assert path.read_bytes() == CONTENT
    assert server.asked == ["/from.bin", "/a.bin"]


@pytest.mark.parametrize(
    "to", ["http://example.com/a.bin", "file:///etc/passwd", "ftp://example.com/a"]
)
def test_redirect_to_what_may_not_be(server: FileServer, to: str) -> None:
    # urllib itself refuses schemes that are not of the web.
    with pytest.raises(FetchError, match=r"https://|the server answers 302"):
        fetch(server.redirect("/from.bin", to))
    assert kept() == []


def test_redirects_in_a_circle(server: FileServer) -> None:
    with pytest.raises(FetchError, match="302"):
        fetch(server.redirect("/a.bin", "/a.bin"))
    assert len(server.asked) < 10


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.bin",
        "ftp://localhost/a.bin",
        "file:///etc/passwd",
        "a.bin",
        "https:///a.bin",
        "https://[::1/a.bin",
        "http://localhost.example.com/a.bin",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(FetchError):
        check_address(url)


def test_password_is_not_repeated() -> None:
    with pytest.raises(FetchError, match="may not name a user") as error:
        check_address("https://user:secret@example.com/a.bin")
    assert "secret" not in str(error.value)


def test_redirect_from_elsewhere_to_this_machine() -> None:
    check_address("https://cdn.example.com/a", since="https://example.com/a")
    for url in ("https://localhost/a", "http://127.0.0.1/a", "https://[::1]/a"):
        with pytest.raises(FetchError, match="redirects to this machine"):
            check_address(url, since="https://example.com/a")


def test_lock_file_of_another_kind(server: FileServer) -> None:
    url = server.file("/a.bin", CONTENT)
    home().mkdir()
    lock = home() / "lock.json"
    for text in ("{", "[]", '{"a": 1}', json.dumps({url: {}, "b": {}})):
        lock.write_text(text)
        if text.endswith("}}"):
            fetch(url)
            continue
        with pytest.raises(FetchError, match=r"lock\.json"):
            fetch(url)


def serve_hub(
    server: FileServer, content: bytes, commit: str = COMMIT, sha256: str | None = None
) -> None:
    """Answer as the hub does for a file of a public repository."""
    sha256 = sha256 or hashlib.sha256(content).hexdigest()
    for revision in ("main", commit):
        server.file(
            f"/someone/model/resolve/{revision}/model.safetensors",
            content,
            ETag=f'"{sha256}"',
            X_Repo_Commit=commit,
        )


def test_hub(server: FileServer) -> None:
    pytest.importorskip("huggingface_hub")
    serve_hub(server, CONTENT)
    path = fetch(HUB_FILE)
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(home())
    lock = json.loads((home() / "lock.json").read_text())
    name = "someone/model/model.safetensors@main"
    assert lock == {name: {"sha256": SHA256, "revision": COMMIT}}
    # From now on that commit, and without the network.
    serve_hub(server, b"changed", COMMIT[::-1])
    asked = len(server.asked)
    assert fetch(HUB_FILE).read_bytes() == CONTENT
    assert len(server.asked) == asked


def test_hub_changes_a_commit(server: FileServer) -> None:
    pytest.importorskip("huggingface_hub")
    serve_hub(server, CONTENT)
    shutil.rmtree(fetch(HUB_FILE).parents[3])
    serve_hub(server, b"changed")
    with pytest.raises(FetchError, match=f"its first download had {SHA256}"):
        fetch(HUB_FILE)
    serve_hub(server, CONTENT)
    assert fetch(HUB_FILE).read_bytes() == CONTENT


def test_damaged_file_of_the_hub_is_downloaded_again(server: FileServer) -> None:
    pytest.importorskip("huggingface_hub")
    serve_hub(server, CONTENT)
    fetch(HUB_FILE).resolve().write_bytes(b"damaged")
    assert fetch(HUB_FILE).read_bytes() == CONTENT
    fetch(HUB_FILE).resolve().write_bytes(b"damaged")
    server.answers.clear()
    with pytest.raises(FetchError, match=r"cannot be downloaded: .*404"):
        fetch(HUB_FILE)


def test_hub_says_the_hash_of_a_large_file(server: FileServer) -> None:
    """What is damaged on the way is not recorded as the first download."""
    pytest.importorskip("huggingface_hub")
    damaged = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    serve_hub(server, damaged, sha256=SHA256)
    with pytest.raises(FetchError, match=f"its publisher says {SHA256}"):
        fetch(HUB_FILE)
    assert not any(home().rglob("*.safetensors"))
    assert "lock.json" not in kept()
    serve_hub(server, CONTENT)
    assert fetch(HUB_FILE).read_bytes() == CONTENT


def test_hub_without_the_file(server: FileServer) -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(FetchError, match=r"someone/model.*cannot be downloaded"):
        fetch(HUB_FILE)
    serve_hub(server, CONTENT)
    with pytest.raises(FetchError, match="more than 9"):
        fetch(HUB_FILE, max_bytes=9)
    assert "lock.json" not in kept()


def test_hub_sends_large_files_from_elsewhere(server: FileServer) -> None:
    """As huggingface.co does: what it says of the file is with the redirection."""
    pytest.importorskip("huggingface_hub")
    with serving() as elsewhere:
        answer = code(
            302,
            Location=elsewhere.file("/blob", CONTENT, ETag='"another"'),
            X_Linked_ETag=f'"{SHA256}"',
            X_Linked_Size=str(len(CONTENT)),
            X_Repo_Commit=COMMIT,
        )
        for revision in ("main", COMMIT):
            path = f"/someone/model/resolve/{revision}/model.safetensors"
            server.in_turn(path, answer)
        assert fetch(HUB_FILE).read_bytes() == CONTENT
        assert recorded(HUB_FILE) == {"sha256": SHA256, "revision": COMMIT}
        elsewhere.file("/blob", CONTENT[::-1])
        shutil.rmtree(home())
        with pytest.raises(FetchError, match=f"its publisher says {SHA256}"):
            fetch(HUB_FILE)


def test_hub_is_asked_again(server: FileServer, waits: list[float]) -> None:
    pytest.importorskip("huggingface_hub")
    serve_hub(server, CONTENT)
    whole = server.answers["/someone/model/resolve/main/model.safetensors"]
    server.in_turn(
        "/someone/model/resolve/main/model.safetensors",
        code(503),
        code(429, Retry_After="7"),
        cut,
        whole,
    )
    assert fetch(HUB_FILE).read_bytes() == CONTENT
    # huggingface_hub 1.0 makes one of the pauses itself.
    assert waits in ([1, 7, 4], [1, 2])


def test_hub_is_not_asked_again(server: FileServer, waits: list[float]) -> None:
    pytest.importorskip("huggingface_hub")
    for number in (401, 403, 404):
        path = "/someone/model/resolve/main/model.safetensors"
        server.in_turn(path, code(number))
        with pytest.raises(FetchError, match=f"{number}"):
            fetch(HUB_FILE)
    assert waits == []
    assert len(server.asked) == 3


def test_hub_offline(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    pytest.importorskip("huggingface_hub")
    with serving() as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.url)
        serve_hub(gone, CONTENT)
        path = fetch(HUB_FILE)
    assert fetch(HUB_FILE) == path
    path.resolve().unlink()
    with pytest.raises(FetchError, match=r"cannot be downloaded: .*refused"):
        fetch(HUB_FILE)
    assert waits == []


def test_folder_that_cannot_be_made(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KVISION_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(FetchError, match=r"kept in .*file/home.*Set KVISION_HOME"):
        fetch(server.file("/a.bin", CONTENT))


def test_what_is_there_needs_no_writing(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights may come with an image of a container, whose files stay as they are."""
    url = server.file("/a.bin", CONTENT)
    path = fetch(url)

    def refuse(*_: object) -> None:
        raise AssertionError

    for name in ("locked", "replacing"):
        monkeypatch.setattr(fetching, name, refuse)
    assert fetch(url) == path


def test_recorded(server: FileServer) -> None:
    url = server.file("/a.bin", CONTENT)
    assert recorded(url) == recorded(HUB_FILE) == {}
    fetch(url)
    assert recorded(url) == {"sha256": SHA256}


def test_hub_needs_its_package(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'kvision\[hub\]'"):
        fetch(HUB_FILE)
