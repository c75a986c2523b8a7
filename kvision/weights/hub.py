"""A file of the Hugging Face hub, through huggingface_hub."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from kvision.weights.downloading import FetchError, check_address, check_room

__all__ = ["HubFile", "from_hub"]


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


def from_hub(
    origin: HubFile, commit: str | None, folder: Path, max_bytes: int
) -> tuple[Path, str]:
    """Bring a file into a cache of the hub, or find it there.

    Args:
        origin: the file.
        commit: that of an earlier download; with it the network is needed only for what
            is not in the cache. None for `origin.revision`.
        folder: of the cache.
        max_bytes: size above which nothing is downloaded.

    Returns:
        The file, and its commit.

    Raises:
        ImportError: huggingface_hub is not installed.
        FetchError: the file is not there, cannot be reached, or is too large.
    """
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise ImportError(
            "Weights on the hub need huggingface_hub: pip install 'kvision[hub]'"
        ) from error
    where: dict[str, Any] = {"repo_id": origin.repo, "filename": origin.filename}
    if commit is not None:
        path = hub.try_to_load_from_cache(cache_dir=folder, revision=commit, **where)
        if isinstance(path, str):
            return Path(path), commit
    name = f"{origin.repo}/{origin.filename}"
    endpoint = os.environ.get("HF_ENDPOINT") or None
    if endpoint is not None:
        check_address(endpoint)
    revision = commit or origin.revision or "main"
    try:
        url = hub.hf_hub_url(**where, revision=revision, endpoint=endpoint)
        found = hub.get_hf_file_metadata(url, endpoint=endpoint)
        _check(name, found, max_bytes, folder)
        path = hub.hf_hub_download(
            **where, revision=found.commit_hash, cache_dir=folder, endpoint=endpoint
        )
    except FetchError:
        raise
    except Exception as error:  # those of requests or httpx, by its version
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise FetchError(f"{name} of the hub cannot be downloaded: {said}") from error
    return Path(path), str(found.commit_hash)


def _check(name: str, found: Any, max_bytes: int, folder: Path) -> None:
    if found.commit_hash is None or found.size is None:
        raise FetchError(f"{name}: the hub does not say its commit and size")
    if found.size > max_bytes:
        raise FetchError(f"{name} has {found.size:,} bytes, more than {max_bytes:,}")
    check_room(name, found.size, folder)
