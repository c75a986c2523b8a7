"""kvision doctor: what it finds, and that it speaks when imports fail."""

import json
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

import kvision_cli

doctor = kvision_cli.load_doctor()


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the packages that seem to be installed; a test may change them."""
    found: dict[str, str] = {}
    monkeypatch.setattr(doctor, "installed", found.get)
    return found


def test_report_of_this_machine() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kvision_cli", "doctor", "--json"],
        capture_output=True,
        text=True,
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == (0 if report["ok"] else 1)
    assert report["errors"] == []
    assert report["packages"]["tensorflow"].startswith("2.")
    assert "supervision" in report["extras"]["viz"]
    assert "dev" not in report["extras"]
    assert "tensorflow" in done.stdout


def test_core_and_extras_are_read_from_the_metadata() -> None:
    core, extras = doctor.requirements()
    assert {"tensorflow", "keras", "pycocotools"} <= {need.name for need in core}
    assert [need.name for need in extras["fast"]] == ["faster-coco-eval"]


def test_missing_and_old_packages_are_errors(versions: dict[str, str]) -> None:
    core = [Requirement("tensorflow>=2.20"), Requirement("numpy>=2.0")]
    versions["numpy"] = "1.26.4"
    assert doctor.find_errors(core) == [
        "tensorflow is missing: pip install 'tensorflow>=2.20'",
        "numpy 1.26.4 is unfit: pip install -U 'numpy>=2.0'",
    ]
    versions.update(tensorflow="2.20.0", numpy="2.1.3")
    assert doctor.find_errors(core) == []


def test_python_out_of_range_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.14.0")
    errors = doctor.find_errors([])
    assert errors[0] == "Python 3.14.0: kvision needs >= 3.11 and < 3.14"
    assert "not installed" in errors[1]


def test_releases_without_security_fixes_are_warned_of(
    versions: dict[str, str],
) -> None:
    versions.update(keras="3.13.2", pillow="12.3.0")
    (warning,) = doctor.find_unsafe()
    assert warning.startswith("keras 3.13.2 reads model files unsafely")
    assert warning.endswith("pip install -U 'keras>=3.14.1'")


def test_settings_in_the_way_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    found = doctor.find_settings({"backend": "jax", "gpus": ["GPU"]})
    assert "Keras runs on jax" in found[0]
    assert "TF_USE_LEGACY_KERAS" in found[1]
    monkeypatch.delenv("TF_USE_LEGACY_KERAS")
    assert doctor.find_settings({"backend": "tensorflow", "gpus": ["GPU"]}) == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "raise ImportError('no libfoo')",
            "cannot be imported: ImportError: no libfoo",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
            "died of SIGILL (a CPU without AVX?)",
        ),
    ],
)
def test_failing_imports_are_reported_not_raised(
    code: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PROBE", code)
    found, errors = doctor.try_imports()
    assert found == {}
    assert errors[0].endswith(message)


def test_missing_extra_names_its_install_line() -> None:
    line = doctor.describe_extra("fast", {"faster-coco-eval": None})
    assert line == "not installed   pip install 'kvision[fast]'"
