"""`fetch`: published files, kept in one folder and checked whenever they are used."""

import hashlib
import json
import os
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kvision.weights.downloading import check_address, download
from kvision.weights.hub import HubFile, from_cache, from_hub
from kvision.weights.locking import locked
from kvision.weights.replacing import replacing
from kvision.weights.retrying import FetchError

__all__ = ["FetchError", "HubFile", "fetch", "home", "recorded"]

# The largest published model of a preset has 2.5 GB.
_MAX_BYTES = 4 << 30
_LOCK = "lock.json"

Entry = dict[str, Any]


def home() -> Path:
    """Return the folder of downloaded files: KVISION_HOME, or ~/.cache/kvision.

    Returns:
        The folder, which need not exist.
    """
    return Path(os.environ.get("KVISION_HOME") or "~/.cache/kvision").expanduser()


def fetch(
    origin: str | HubFile, sha256: str | None = None, max_bytes: int = _MAX_BYTES
) -> Path:
    """Download a file, or take it from the folder of `home`.

    Its hash and, on the hub, its commit are written to `lock.json` there the first
    time. A file that differs from them later is an error, and is not kept. Of several
    processes that want a file one downloads it and the others wait.

    Args:
        origin: an address, https only, or a file of the hub.
        sha256: what its hash begins with, where the publisher says so.
        max_bytes: size above which nothing is downloaded.

    Returns:
        The file.

    Raises:
        FetchError: the file cannot be had, or is another one; a `ValueError`.
        ImportError: it is on the hub, and huggingface_hub is not installed.
    """
    folder = home()
    with _naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(origin, HubFile):
            return _of_hub(origin, sha256, max_bytes, folder)
        return _of_url(origin, sha256, max_bytes, folder)


def recorded(origin: str | HubFile) -> Entry:
    """Tell what is known of a file since its first download.

    Args:
        origin: as of `fetch`.

    Returns:
        Its "sha256" and, on the hub, its "revision"; empty before.

    Raises:
        FetchError: `lock.json` is damaged.
    """
    name = origin if isinstance(origin, str) else _name(origin)
    return _recorded(home(), name)


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Say which folder it is that cannot be written to, and how to choose another."""
    try:
        yield
    except OSError as error:
        raise FetchError(
            f"Weights cannot be kept in {folder}: {error}. Set KVISION_HOME to a "
            "folder that can be written to"
        ) from error


def _of_url(url: str, sha256: str | None, max_bytes: int, folder: Path) -> Path:
    check_address(url)
    # Files of several addresses may have one name.
    file = Path(urllib.parse.urlsplit(url).path).name or "file"
    path = folder / "files" / _label(url) / file
    if _is_right(path, sha256, _recorded(folder, url)):
        return path
    with _alone(folder, url):
        known = _recorded(folder, url)
        digest = _digest(path) if path.is_file() else None
        if digest is None or _fault(digest, sha256, known) is not None:
            digest = _download(url, path, max_bytes, sha256, known)
        _record(folder, url, {"sha256": digest})
    return path


def _download(
    url: str, path: Path, max_bytes: int, sha256: str | None, known: Entry
) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.iterdir():
        if left != path:  # by a process that was killed
            left.unlink()
    with replacing(path) as unfinished:
        digest = download(url, unfinished, max_bytes)
        _check(url, digest, sha256, known)
    return digest


def _of_hub(origin: HubFile, sha256: str | None, max_bytes: int, folder: Path) -> Path:
    name = _name(origin)
    path = _cached(origin, folder)
    if path is not None and _is_right(path, sha256, _recorded(folder, name)):
        return path
    with _alone(folder, name):
        known, path = _recorded(folder, name), _cached(origin, folder)
        if path is not None:
            if _is_right(path, sha256, known):
                return path
            _remove(path)
        found = from_hub(origin, known.get("revision"), folder / "hub", max_bytes)
        digest = _digest(found.path)
        try:
            _check(name, digest, sha256 or found.sha256, known)
        except FetchError:
            _remove(found.path)
            raise
        _record(folder, name, {"sha256": digest, "revision": found.commit})
    return found.path


def _cached(origin: HubFile, folder: Path) -> Path | None:
    commit = _recorded(folder, _name(origin)).get("revision")
    return from_cache(origin, commit, folder / "hub")


def _remove(path: Path) -> None:
    path.resolve().unlink(missing_ok=True)  # the cache of the hub has a link to it
    path.unlink(missing_ok=True)


def _name(origin: HubFile) -> str:
    return f"{origin.repo}/{origin.filename}@{origin.revision or 'main'}"


def _label(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    with locked(folder / ".locks" / _label(name), f"{name} is being fetched"):
        yield


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_right(path: Path, sha256: str | None, known: Entry) -> bool:
    """Tell whether a file is there, recorded and whole."""
    is_known = bool(known) and path.is_file()
    return is_known and _fault(_digest(path), sha256, known) is None


def _fault(digest: str, sha256: str | None, known: Entry) -> str | None:
    """Return whose hash a file does not have, if any."""
    if sha256 is not None and not digest.startswith(sha256):
        return f"its publisher says {sha256}"
    if known and digest != known["sha256"]:
        return f"its first download had {known['sha256']}"
    return None


def _check(name: str, digest: str, sha256: str | None, known: Entry) -> None:
    fault = _fault(digest, sha256, known)
    if fault is not None:
        raise FetchError(
            f"{name} has the sha256 {digest}, but {fault}. It is damaged or has been "
            f"changed, and was not kept. Try again; if you trust a change, remove the "
            f"entry from {home() / _LOCK}"
        )


def _recorded(folder: Path, name: str) -> Entry:
    entry = _read(folder / _LOCK).get(name, {})
    if entry and not isinstance(entry.get("sha256"), str):
        raise FetchError(f"{folder / _LOCK}: the entry {name!r} has no sha256")
    return entry


def _read(path: Path) -> dict[str, Entry]:
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FetchError(f"{path} is no json: {error}") from error
    if not isinstance(entries, dict) or not all(
        isinstance(entry, dict) for entry in entries.values()
    ):
        raise FetchError(f"{path}: expected a dict of dicts, one for each file")
    return entries


def _record(folder: Path, name: str, entry: Entry) -> None:
    path = folder / _LOCK
    with locked(folder / ".locks" / _LOCK, f"{path} is being written"):
        entries = _read(path)  # again: others may have added to it
        if entries.get(name) == entry:
            return
        text = json.dumps({**entries, name: entry}, indent=2, sort_keys=True)
        with replacing(path) as unfinished:
            unfinished.write_text(text + "\n", encoding="utf-8")
