"""A file from a plain address: its size known before, its content hashed on the way."""

import hashlib
import http.client
import ipaddress
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["FetchError", "check_address", "check_room", "download"]

_SECONDS = 30.0
_BLOCK = 1 << 20


class FetchError(ValueError):
    """A file could not be had, or is not the one it should be."""


def check_address(url: str, since: str | None = None) -> None:
    """Refuse an address that others on the way could read or change.

    Args:
        url: the address.
        since: that of the server that redirects to it.

    Raises:
        FetchError: it is not https (http only on this machine), names a user, or leads
            from elsewhere to this machine.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        is_local = _is_local(parts)
    except ValueError as error:
        raise FetchError(f"{url!r} is no address: {error}") from error
    if not parts.hostname or not (
        parts.scheme == "https" or (parts.scheme == "http" and is_local)
    ):
        raise FetchError(
            f"Files are downloaded from https:// only (http:// from this machine). "
            f"Received: {url!r}"
        )
    if parts.username is not None:
        raise FetchError(f"An address may not name a user. Received: {_bare(url)!r}")
    if since is not None:
        before = urllib.parse.urlsplit(since)
        if is_local and not _is_local(before):
            raise FetchError(f"{since} redirects to this machine: {url!r}")
        if before.scheme == "https" and parts.scheme != "https":
            raise FetchError(f"{since} redirects to one without encryption: {url!r}")


def _is_local(parts: urllib.parse.SplitResult) -> bool:
    host = (parts.hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _bare(url: str) -> str:
    """Return an address without the name and password in it."""
    return urllib.parse.urlsplit(url)._replace(netloc="...").geturl()


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        try:
            check_address(newurl, since=req.full_url)
        except FetchError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, path: Path, max_bytes: int) -> str:
    """Write what is at an address to a file.

    Args:
        url: https, or http on this machine; redirections are followed by the same rule.
        path: the file; give a temporary one, which may be left unfinished.
        max_bytes: size above which nothing is downloaded.

    Returns:
        The sha256 of the content.

    Raises:
        FetchError: it cannot be reached, is not there, does not say its size, is too
            large for the limit or the disk, or ends early.
    """
    check_address(url)
    with _open(url) as response:
        size = _size(url, response.headers, max_bytes)
        check_room(url, size, path.parent)
        try:
            return _copy(url, response, size, path)
        except OSError as error:
            raise FetchError(f"{url} cannot be written to {path}: {error}") from error


def _open(url: str) -> Any:
    # What is compressed on the way has another size.
    headers = {"User-Agent": "kvision", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers)
    opener = urllib.request.build_opener(_Redirects)
    try:
        return opener.open(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(
            f"{url}: the server answers {error.code} ({error.reason})"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(
            f"{url} cannot be reached: {getattr(error, 'reason', error)}"
        ) from error


def _size(url: str, headers: Any, max_bytes: int) -> int:
    text = headers.get("Content-Length") or ""
    if not text.isdecimal():
        raise FetchError(f"{url}: the server does not say how large the file is")
    if int(text) > max_bytes:
        raise FetchError(f"{url} has {int(text):,} bytes, more than {max_bytes:,}")
    return int(text)


def check_room(origin: str, size: int, folder: Path) -> None:
    """Refuse to begin what the disk cannot hold.

    Args:
        origin: what is to be downloaded, for the message.
        size: its bytes.
        folder: where it will be.

    Raises:
        FetchError: there is less room.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise FetchError(
            f"{origin} has {size:,} bytes, and {folder} has room for {free:,}. Make "
            "room, or set KVISION_HOME to a folder on another disk"
        )


def _copy(url: str, response: Any, size: int, path: Path) -> str:
    from rich.console import Console
    from rich.progress import Progress

    digest = hashlib.sha256()
    console = Console(stderr=True)
    hidden = not console.is_terminal
    with (
        path.open("wb") as file,
        Progress(console=console, transient=True, disable=hidden) as progress,
    ):
        task = progress.add_task(url.rpartition("/")[2], total=size)
        for block in _blocks(url, response, size):
            file.write(block)
            digest.update(block)
            progress.advance(task, len(block))
    return digest.hexdigest()


def _blocks(url: str, response: Any, size: int) -> Iterator[bytes]:
    left = size
    while left:
        try:
            block = response.read(min(_BLOCK, left))
        except (OSError, http.client.HTTPException) as error:
            raise FetchError(f"{url}: the connection broke: {error}") from error
        if not block:
            raise FetchError(
                f"{url} ended after {size - left:,} of {size:,} bytes. Nothing was "
                "kept: try again"
            )
        left -= len(block)
        yield block
