"""A file of the Hugging Face hub, through huggingface_hub."""

import os
import string
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from kvision.weights.downloading import check_address, check_room
from kvision.weights.retrying import (
    PASSING_CODES,
    FetchError,
    PassingError,
    retried,
    wait_of,
)

__all__ = ["Found", "HubFile", "from_cache", "from_hub"]

# Errors of httpx, which one huggingface_hub has under another name than the next.
_PASSING_NAMES = {"ReadError", "RemoteProtocolError", "ReadTimeout"}


class HubFile(NamedTuple):
    """A file of the hub.

    Attributes:
        repo: such as "timm/deit_small_patch16_224.fb_in1k".
        filename: its path in the repository.
        revision: commit, tag or branch; None for "main" when it is first downloaded,
            and then for the same commit.
    """

    repo: str
    filename: str = "model.safetensors"
    revision: str | None = None

    @property
    def url(self) -> str:
        """Its address."""
        path = f"{self.revision or 'main'}/{self.filename}"
        return f"https://huggingface.co/{self.repo}/resolve/{path}"


class Found(NamedTuple):
    """A file that was downloaded.

    Attributes:
        path: where it is.
        commit: that it is of.
        sha256: its hash as the hub says, which it does of large files; else None.
    """

    path: Path
    commit: str
    sha256: str | None


def from_cache(origin: HubFile, commit: str | None, folder: Path) -> Path | None:
    """Find a file of an earlier download, without the network.

    Args:
        origin: the file.
        commit: that of the earlier download; None if there was none.
        folder: of the cache.

    Returns:
        The file, or None.

    Raises:
        ImportError: huggingface_hub is not installed.
    """
    if commit is None:
        return None
    path = _hub().try_to_load_from_cache(
        origin.repo, origin.filename, cache_dir=folder, revision=commit
    )
    return Path(path) if isinstance(path, str) else None


def from_hub(
    origin: HubFile, commit: str | None, folder: Path, max_bytes: int
) -> Found:
    """Download a file into a cache of the hub.

    Args:
        origin: the file.
        commit: that of an earlier download; None for `origin.revision`.
        folder: of the cache.
        max_bytes: size above which nothing is downloaded.

    Returns:
        The file, and what the hub says of it.

    Raises:
        ImportError: huggingface_hub is not installed.
        FetchError: the file is not there, cannot be reached, or is too large.
    """
    hub = _hub()
    endpoint = os.environ.get("HF_ENDPOINT") or None
    if endpoint is not None:
        check_address(endpoint)
    folder.mkdir(exist_ok=True)
    name = f"{origin.repo}/{origin.filename}"
    where: dict[str, Any] = {"repo_id": origin.repo, "filename": origin.filename}
    revision = commit or origin.revision or "main"

    def download() -> Found:
        try:
            url = hub.hf_hub_url(**where, revision=revision, endpoint=endpoint)
            said = hub.get_hf_file_metadata(url, endpoint=endpoint)
            _check(name, said, max_bytes, folder)
            path = hub.hf_hub_download(
                **where, revision=said.commit_hash, cache_dir=folder, endpoint=endpoint
            )
        except FetchError:
            raise
        except Exception as error:  # those of httpx, by its version
            raise _failure(name, error) from error
        return Found(Path(path), str(said.commit_hash), _sha256(said.etag))

    return retried(download)


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "Weights on the hub need huggingface_hub: pip install 'kvision[hub]'"
        ) from error
    return huggingface_hub


def _check(name: str, found: Any, max_bytes: int, folder: Path) -> None:
    if found.commit_hash is None or found.size is None:
        raise FetchError(f"{name}: the hub does not say its commit and size")
    if found.size > max_bytes:
        raise FetchError(f"{name} has {found.size:,} bytes, more than {max_bytes:,}")
    check_room(name, found.size, folder)


def _sha256(etag: str | None) -> str | None:
    """Return the hash that is the tag of a large file; small ones have git's."""
    if etag is None or len(etag) != 64 or not set(etag) <= set(string.hexdigits):
        return None
    return etag.lower()


def _failure(name: str, error: Exception) -> FetchError:
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    message = f"{name} of the hub cannot be downloaded: {said}"
    for one in _chain(error):
        response: Any = getattr(one, "response", None)
        if getattr(response, "status_code", None) in PASSING_CODES:
            return PassingError(message, wait_of(response.headers.get("Retry-After")))
        if _PASSING_NAMES & {kind.__name__ for kind in type(one).__mro__}:
            return PassingError(message)
    return FetchError(message)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
