"""Comparison with recorded values, by the project's meaning of "equal"."""

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).resolve().parent.parent / "golden"

# Equal is 1e-4 of the largest output in float32, and 0.01 px for boxes.
TOLERANCE = 1e-4
BOX_TOLERANCE = 0.01
# Detections whose score is further than this from a threshold must be matched.
MARGIN = 1e-3


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


def assert_detections_matched(
    ours: dict[str, np.ndarray],
    theirs: dict[str, np.ndarray],
    what: str,
    threshold: float = 0.05,
    max_detections: int = 100,
) -> None:
    """Match boxes, scores and labels both ways: 99 % of those off the thresholds."""
    assert len(theirs["scores"]) >= 50
    for a, b, whose in ((ours, theirs, "reference"), (theirs, ours, "our")):
        counted = _clear(b["scores"], threshold, max_detections)
        share = _matched(a, b)[counted].mean()
        print(f"{what}: {share:.1%} of {counted.sum()} {whose} detections matched")
        assert share >= 0.99


def _matched(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> np.ndarray:
    """Tell which of `theirs` have a detection of the same label, box and score."""
    boxes = np.abs(theirs["boxes"][:, None] - ours["boxes"][None]).max(-1)
    scores = np.abs(theirs["scores"][:, None] - ours["scores"][None])
    labels = theirs["labels"][:, None] == ours["labels"][None]
    return (labels & (boxes <= BOX_TOLERANCE) & (scores <= TOLERANCE)).any(1)


def _clear(scores: np.ndarray, threshold: float, max_detections: int) -> np.ndarray:
    """Tell which scores are away from the threshold and from the cut at the end."""
    cut = scores.min() if len(scores) == max_detections else 0.0
    return (np.abs(scores - threshold) > MARGIN) & (scores > cut + MARGIN)
