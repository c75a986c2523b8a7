"""What a run ran on: versions, devices, command."""

import os
import platform
import shlex
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["describe"]

_PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "pillow",
    "pycocotools",
    "faster-coco-eval",
)


def describe() -> dict[str, Any]:
    """Describe this process, its packages and its devices.

    Returns:
        Plain values, as YAML knows them. No name of the machine or its user.
    """
    import tensorflow as tf

    import kvision

    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "kvision": kvision.__version__,
        "git": git_version(Path(kvision.__file__).parent),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "devices": [
            tf.config.experimental.get_device_details(device).get("device_name", kind)
            for kind in ("GPU", "TPU")
            for device in tf.config.list_physical_devices(kind)
        ]
        or ["CPU"],
    }


def git_version(folder: Path) -> str | None:
    """Return the commit of a work tree, "+changes" where it differs from it.

    Args:
        folder: a folder in the work tree.

    Returns:
        The text, or None where there is no git or no work tree.
    """
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12"]
    command += ["--dirty=+changes", "--exclude=*"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
