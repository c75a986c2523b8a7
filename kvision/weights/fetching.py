"""`fetch`: published files, kept in one folder and checked whenever they are used."""

import hashlib
import json
import os
import threading
import urllib.parse
from pathlib import Path
from typing import Any

from kvision.weights.downloading import FetchError, check_address, download
from kvision.weights.hub import HubFile, from_hub
from kvision.weights.replacing import replacing

__all__ = ["FetchError", "HubFile", "fetch", "home"]

# The largest published model of a preset has 2.5 GB.
_MAX_BYTES = 4 << 30
_LOCK = "lock.json"
_writing = threading.Lock()


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
    time. A file that differs from them later is an error, and is not kept.

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
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(origin, HubFile):
        return _of_hub(origin, sha256, max_bytes, folder)
    return _of_url(origin, sha256, max_bytes, folder)


def _of_url(url: str, sha256: str | None, max_bytes: int, folder: Path) -> Path:
    check_address(url)
    known = _recorded(folder, url)
    # Files of several addresses may have one name.
    label = hashlib.sha256(url.encode()).hexdigest()[:8]
    name = Path(urllib.parse.urlsplit(url).path).name or "file"
    path = folder / "files" / label / name
    if path.is_file():
        digest = _digest(path)
        if _fault(digest, sha256, known) is None:
            _record(folder, url, digest, None)
            return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        digest = download(url, unfinished, max_bytes)
        _check(url, digest, sha256, known, folder)
    _record(folder, url, digest, None)
    return path


def _of_hub(origin: HubFile, sha256: str | None, max_bytes: int, folder: Path) -> Path:
    name = f"{origin.repo}/{origin.filename}@{origin.revision or 'main'}"
    known = _recorded(folder, name)
    cache = folder / "hub"
    cache.mkdir(exist_ok=True)
    path, commit = from_hub(origin, known.get("revision"), cache, max_bytes)
    digest = _digest(path)
    try:
        _check(name, digest, sha256, known, folder)
    except FetchError:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise
    _record(folder, name, digest, commit)
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fault(digest: str, sha256: str | None, known: dict[str, Any]) -> str | None:
    """Return whose hash a file does not have, if any."""
    if sha256 is not None and not digest.startswith(sha256):
        return f"its publisher says {sha256}"
    if known and digest != known["sha256"]:
        return f"its first download had {known['sha256']}"
    return None


def _check(
    name: str, digest: str, sha256: str | None, known: dict[str, Any], folder: Path
) -> None:
    fault = _fault(digest, sha256, known)
    if fault is not None:
        raise FetchError(
            f"{name} has the sha256 {digest}, but {fault}. It is damaged or has been "
            f"changed, and was not kept. Try again; if you trust a change, remove the "
            f"entry from {folder / _LOCK}"
        )


def _recorded(folder: Path, name: str) -> dict[str, Any]:
    entry = _read(folder / _LOCK).get(name, {})
    if entry and not isinstance(entry.get("sha256"), str):
        raise FetchError(f"{folder / _LOCK}: the entry {name!r} has no sha256")
    return entry


def _read(path: Path) -> dict[str, dict[str, Any]]:
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


def _record(folder: Path, name: str, digest: str, revision: str | None) -> None:
    entry = {"sha256": digest, **({"revision": revision} if revision else {})}
    path = folder / _LOCK
    # Read again: others may have added to it. What two processes add in the same
    # moment may be lost, and is then recorded when the file is next used.
    with _writing:
        entries = _read(path)
        if entries.get(name) == entry:
            return
        text = json.dumps({**entries, name: entry}, indent=2, sort_keys=True)
        with replacing(path) as unfinished:
            unfinished.write_text(text + "\n", encoding="utf-8")
