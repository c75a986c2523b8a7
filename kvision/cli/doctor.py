"""`kvision doctor`: versions, devices, extras, and what to mend.

It is loaded by its path and imports neither TensorFlow nor kvision itself: it has to
speak when those cannot be imported. They are tried in a process of their own.
"""

import json
import os
import platform
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from packaging.requirements import Requirement
from packaging.version import Version

__all__ = ["run"]

PYTHON_RANGE = ("3.11", "3.14")

# Extras for those who work on kvision: their absence is nothing to report.
DEVELOPMENT = {"all", "dev", "docs", "notebooks"}

# Releases below these lack published security fixes for reading other people's files.
SAFE_SINCE = {
    "keras": ("3.14.1", "reads model files unsafely (HDF5 and archive flaws)"),
    "pillow": ("12.3", "reads image files unsafely (decoder flaws)"),
}

PROBE = """
import json
import tensorflow as tf
gpus = tf.config.list_physical_devices("GPU")
details = map(tf.config.experimental.get_device_details, gpus)
names = [detail.get("device_name", "GPU") for detail in details]
import keras
import kvision
print(json.dumps({"backend": keras.backend.backend(), "gpus": names}))
"""


def run() -> dict[str, Any]:
    """Print the report.

    Returns:
        What was printed, with `errors` (kvision cannot work), `warnings` and `ok`.
    """
    core, extras = requirements()
    probe, failure = try_imports()
    report: dict[str, Any] = {
        "kvision": installed("kvision"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "packages": {need.name: installed(need.name) for need in core},
        "extras": {
            extra: {need.name: installed(need.name) for need in needs}
            for extra, needs in extras.items()
        },
        "backend": probe.get("backend"),
        "gpus": probe.get("gpus", []),
        "errors": [*find_errors(core), *failure],
        "warnings": [*find_unsafe(), *find_settings(probe)],
    }
    report["ok"] = not report["errors"]
    show(report)
    return report


def installed(package: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """Return what kvision needs, and what each of its extras for users needs."""
    try:
        lines = metadata.requires("kvision") or []
        names = metadata.metadata("kvision").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return [], {}
    needs = [Requirement(line) for line in lines]
    core = [need for need in needs if holds(need, "")]
    extras = {
        name: [need for need in needs if holds(need, name) and not holds(need, "")]
        for name in sorted(set(names) - DEVELOPMENT)
    }
    return core, extras


def holds(need: Requirement, extra: str) -> bool:
    """Tell whether a requirement applies here when `extra` is asked for."""
    return need.marker is None or need.marker.evaluate({"extra": extra})


def try_imports() -> tuple[dict[str, Any], list[str]]:
    """Import TensorFlow, Keras and kvision in another process.

    Returns:
        What the process found, and the errors that kept it from finding more.
    """
    command = [sys.executable, "-c", PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return {}, ["importing TensorFlow, Keras and kvision took over five minutes"]
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1]), []
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        hint = " (a CPU without AVX?)" if name == "SIGILL" else ""
        return {}, [f"the import of TensorFlow, Keras and kvision died of {name}{hint}"]
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return {}, [f"TensorFlow, Keras and kvision cannot be imported: {last}"]


def find_errors(core: list[Requirement]) -> list[str]:
    """Return what is missing or too old for kvision to work."""
    errors = []
    low, high = map(Version, PYTHON_RANGE)
    if not low <= Version(platform.python_version()) < high:
        errors.append(
            f"Python {platform.python_version()}: kvision needs >= {low} and < {high}"
        )
    if not core:
        errors.append("kvision is not installed: pip install -e . in its folder")
    for need in core:
        version = installed(need.name)
        if version is None:
            errors.append(f"{need.name} is missing: pip install '{need}'")
        elif not need.specifier.contains(version, prereleases=True):
            errors.append(f"{need.name} {version} is unfit: pip install -U '{need}'")
    return errors


def find_unsafe() -> list[str]:
    """Return a warning for each package without its security fixes."""
    warnings = []
    for package, (since, why) in SAFE_SINCE.items():
        version = installed(package)
        if version is not None and Version(version) < Version(since):
            mend = f"pip install -U '{package}>={since}'"
            warnings.append(f"{package} {version} {why}: {mend}")
    return warnings


def find_settings(probe: dict[str, Any]) -> list[str]:
    """Return a warning for each setting of the machine that is in kvision's way."""
    warnings = []
    backend = probe.get("backend", "tensorflow")
    if backend != "tensorflow":
        warnings.append(
            f"Keras runs on {backend}: kvision's data, fit and export need TensorFlow. "
            "Unset KERAS_BACKEND (or mend ~/.keras/keras.json)"
        )
    if os.environ.get("TF_USE_LEGACY_KERAS", "0").lower() in {"1", "true"}:
        warnings.append("TF_USE_LEGACY_KERAS makes tf.keras Keras 2: unset it")
    if Path("/proc/driver/nvidia/version").exists() and probe.get("gpus") == []:
        warnings.append(
            "an NVIDIA driver is there but TensorFlow sees no GPU: "
            "pip install 'tensorflow[and-cuda]', and check CUDA_VISIBLE_DEVICES"
        )
    return warnings


def show(report: dict[str, Any]) -> None:
    """Print a report for people."""
    title(f"kvision {report['kvision']}")
    line("Python", report["python"])
    line("platform", f"{report['platform']}, {report['cores']} cores")
    title("Packages")
    for package, version in report["packages"].items():
        line(package, version or "missing")
    title("Devices")
    line("Keras backend", report["backend"] or "unknown")
    line("GPUs", ", ".join(report["gpus"]) or "none: all work is done by the CPU")
    title("Extras")
    for extra, packages in report["extras"].items():
        line(extra, describe_extra(extra, packages))
    title("To mend")
    for text in report["errors"]:
        click.secho(f"  error: {text}", fg="red")
    for text in report["warnings"]:
        click.secho(f"  warning: {text}", fg="yellow")
    if not report["errors"] and not report["warnings"]:
        click.secho("  nothing", fg="green")


def describe_extra(extra: str, packages: dict[str, str | None]) -> str:
    """Return the versions of an extra, or how to install it."""
    if None in packages.values():
        return f"not installed   pip install 'kvision[{extra}]'"
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def title(text: str) -> None:
    """Print a heading."""
    click.secho(text, bold=True)


def line(name: str, text: str) -> None:
    """Print a name and what belongs to it."""
    click.echo(f"  {name:<16}{text}")
