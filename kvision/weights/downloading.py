"""A file from a plain address: its size known before, its content hashed on the way."""

import hashlib
import http.client
import ipaddress
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from kvision.weights.retrying import (
    PASSING_CODES,
    FetchError,
    PassingError,
    retried,
    wait_of,
)

__all__ = ["check_address", "check_room", "download"]

_SECONDS = 30.0
_BLOCK = 1 << 20
_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    DownloadColumn(),
    TransferSpeedColumn(),
    TimeRemainingColumn(),
)


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

    Where the connection breaks it is made again, and what is missing asked for, up to
    five times in a row without progress.

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
    console = Console(stderr=True)
    hidden = not (console.is_terminal or console.is_jupyter)
    with Progress(
        *_COLUMNS, console=console, transient=True, disable=hidden
    ) as progress:
        task = progress.add_task(url.rpartition("/")[2], total=None)
        growing = _Growing(url, path, max_bytes)
        growing.tell = lambda: progress.update(
            task, completed=growing.done, total=growing.size
        )
        try:
            retried(growing.go_on)
        except OSError as error:
            raise FetchError(f"{url} cannot be written to {path}: {error}") from error
    return growing.digest.hexdigest()


class _Growing:
    """A file that is downloaded over one connection or several."""

    def __init__(self, url: str, path: Path, max_bytes: int) -> None:
        self.url, self.path, self.max_bytes = url, path, max_bytes
        self.digest = hashlib.sha256()
        self.size = self.done = self.furthest = 0
        self.tag: str | None = None
        self.tell: Callable[[], None] = lambda: None

    def go_on(self) -> None:
        """Write what is missing; all of it where the server does not go on."""
        with _open(self.url, self._from_here()) as response:
            if response.status != 206:
                self._begin(response.headers)
            elif response.headers.get("Content-Range") != self._range():
                self.tag = None
                raise PassingError(f"{self.url}: the server gives another part")
            with self.path.open("ab" if self.done else "wb") as file:
                self._write(response, file)

    def _from_here(self) -> dict[str, str]:
        # If-Range: all of it, should it be another file by now.
        if not self.done or self.tag is None:
            return {}
        return {"Range": f"bytes={self.done}-", "If-Range": self.tag}

    def _range(self) -> str:
        return f"bytes {self.done}-{self.size - 1}/{self.size}"

    def _begin(self, headers: Any) -> None:
        self.size = _size(self.url, headers, self.max_bytes)
        check_room(self.url, self.size, self.path.parent)
        tag = headers.get("ETag")
        self.tag = tag if tag and not tag.startswith("W/") else None
        self.digest, self.done = hashlib.sha256(), 0

    def _write(self, response: Any, file: Any) -> None:
        while self.done < self.size:
            try:
                block = response.read(min(_BLOCK, self.size - self.done))
            except (OSError, http.client.HTTPException) as error:
                raise self._broken(f"{self.url}: the connection broke: {error}") from (
                    error
                )
            if not block:
                raise self._broken(
                    f"{self.url} ended after {self.done:,} of {self.size:,} bytes"
                )
            file.write(block)
            self.digest.update(block)
            self.done += len(block)
            self.tell()

    def _broken(self, message: str) -> PassingError:
        advanced = self.done > self.furthest
        self.furthest = max(self.done, self.furthest)
        return PassingError(message, advanced=advanced)


def _open(url: str, more: dict[str, str]) -> Any:
    # What is compressed on the way has another size.
    headers = {"User-Agent": "kvision", "Accept-Encoding": "identity", **more}
    request = urllib.request.Request(url, headers=headers)
    opener = urllib.request.build_opener(_Redirects)
    try:
        return opener.open(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            said = f"{url}: the server answers {error.code} ({error.reason})"
            if error.code in PASSING_CODES:
                raise PassingError(
                    said, wait_of(error.headers["Retry-After"])
                ) from error
            raise FetchError(said) from error
    except urllib.error.URLError as error:
        said = f"{url} cannot be reached: {error.reason}"
        # Without a network it is better to know that at once.
        passing = isinstance(error.reason, ConnectionResetError)
        raise (PassingError if passing else FetchError)(said) from error
    except (OSError, http.client.HTTPException) as error:
        raise PassingError(f"{url}: the connection broke: {error}") from error


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
