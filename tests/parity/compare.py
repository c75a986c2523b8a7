"""Comparison with recorded values, by the project's meaning of "equal"."""

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).resolve().parent.parent / "golden"

# Equal is 1e-4 of the largest output in float32, and 0.01 px for boxes.
TOLERANCE = 1e-4
BOX_TOLERANCE = 0.01


def golden(name: str) -> dict[str, np.ndarray]:
    """Read one recorded file."""
    with np.load(GOLDEN / f"torchvision_{name}.npz") as file:
        return dict(file)


def section(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Arrays whose name begins with "name/"."""
    prefix = f"{name}/"
    return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference relative to the largest reference value."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"{ours.shape} against {theirs.shape}"
    assert np.isfinite(ours).all()
    if theirs.size == 0:
        return 0.0
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-12))


def assert_equal(
    ours: np.ndarray, theirs: np.ndarray, what: str, tolerance: float = TOLERANCE
) -> None:
    """Check and print the measured difference."""
    measured = difference(ours, theirs)
    print(f"{what}: {measured:.1e} of the largest value")
    assert measured <= tolerance, f"{what}: {measured:.2e} > {tolerance}"


def assert_boxes_equal(ours: np.ndarray, theirs: np.ndarray, what: str) -> None:
    """Check boxes in pixels and print the measured difference."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"{what}: {ours.shape} against {theirs.shape}"
    measured = float(np.abs(ours - theirs).max()) if theirs.size else 0.0
    print(f"{what}: {measured:.1e} px")
    assert measured <= BOX_TOLERANCE, f"{what}: {measured:.3f} px"
