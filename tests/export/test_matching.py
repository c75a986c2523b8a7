"""Comparison of detections: what is a difference, and what is rounding."""

from dataclasses import replace

import numpy as np
import pytest

from kvision.export.matching import Difference, Spread, Tolerance, compare

NUM = 6


def outputs(num_images: int = 10) -> dict[str, np.ndarray]:
    """Six detections an image, far apart, and two rows of padding."""
    boxes = np.zeros((num_images, NUM + 2, 4), np.float32)
    left = 40.0 * np.arange(NUM)
    boxes[:, :NUM] = np.stack([left, left, left + 20, left + 30], axis=-1)
    scores = np.zeros((num_images, NUM + 2), np.float32)
    scores[:, :NUM] = np.linspace(0.9, 0.4, NUM)
    labels = np.full((num_images, NUM + 2), -1, np.int32)
    labels[:, :NUM] = np.arange(NUM) % 2
    masks = np.zeros((num_images, NUM + 2, 4, 4), np.float32)
    masks[:, :NUM] = 0.7
    return {"boxes": boxes, "scores": scores, "labels": labels, "masks": masks}


def difference(changed: dict[str, np.ndarray], **arguments: object) -> Difference:
    return compare("changed", outputs(), changed, 0.05, **arguments)


def test_equal_outputs() -> None:
    same = difference(outputs())
    assert (same.num_images, same.num_detections, same.num_matched) == (10, 60, 60)
    assert same.num_unmatched == 0
    assert same.boxes == same.scores == same.masks == Spread(0.0, 0.0)
    assert same.is_conclusive
    assert not same.problems


@pytest.mark.parametrize(
    ("key", "within", "beyond"),
    [("boxes", 0.4, 0.6), ("scores", 8e-4, 1.2e-3), ("masks", 8e-3, 1.2e-2)],
)
def test_tolerances(key: str, within: float, beyond: float) -> None:
    changed = outputs()
    changed[key][:, :NUM] -= within
    close = difference(changed)
    assert not close.problems
    assert getattr(close, key).largest == pytest.approx(within, rel=1e-3)
    changed = outputs()
    changed[key][:, :NUM] -= beyond
    far = difference(changed)
    assert far.num_matched == 0
    assert far.num_unmatched == 60
    (problem,) = far.problems
    assert "60 of 60" in problem
    assert f"{getattr(far, key).largest:.2g}" in problem


def test_order_does_not_matter() -> None:
    changed = {key: value[:, ::-1] for key, value in outputs().items()}
    assert difference(changed).num_matched == 60


def test_another_class_is_another_detection() -> None:
    changed = outputs()
    changed["labels"][0, 0] = 1
    found = difference(changed)
    assert found.num_matched == 59
    assert found.num_unmatched == 2  # one of each side
    assert "2 of 61" in found.problems[0]


def test_missing_and_surplus_detections_count_once_each() -> None:
    changed = outputs()
    changed["labels"][0, 0] = -1
    assert difference(changed).num_unmatched == 1
    changed = outputs()
    changed["labels"][1, NUM] = 0
    changed["scores"][1, NUM] = 0.3
    changed["boxes"][1, NUM] = [500, 500, 520, 520]
    assert difference(changed).num_unmatched == 1


def test_one_in_a_hundred_may_lack_a_partner() -> None:
    reference = outputs(num_images=20)  # 120 detections
    changed = outputs(num_images=20)
    changed["labels"][0, 0] = -1
    assert not compare("one", reference, changed, 0.05).problems
    changed["labels"][1, 0] = -1
    assert compare("two", reference, changed, 0.05).problems


def test_detections_on_a_threshold_do_not_count() -> None:
    reference, changed = outputs(), outputs()
    reference["scores"][:, NUM - 1] = 0.0505
    changed["labels"][:, NUM - 1] = -1
    changed["scores"][:, NUM - 1] = 0
    found = compare("on the threshold", reference, changed, 0.05)
    assert found.num_detections == 50
    assert found.num_unmatched == 0


def test_a_full_list_ends_at_a_threshold() -> None:
    reference = {key: value[:, :NUM] for key, value in outputs().items()}
    reference["scores"][:, NUM - 2] = reference["scores"][:, NUM - 1] + 5e-4
    changed = {key: value.copy() for key, value in reference.items()}
    changed["boxes"][:, NUM - 1] += 300
    found = compare("full", reference, changed, 0.05)
    # The last and the one that scores as much may be exchanged by rounding.
    assert found.num_detections == 40
    assert not found.problems


def test_each_detection_has_one_partner() -> None:
    reference, changed = outputs(1), outputs(1)
    changed["boxes"][0, 1] = changed["boxes"][0, 0] + 1  # overlaps the first by half
    changed["labels"][0, 1] = changed["labels"][0, 0]
    found = compare("pairs", reference, changed, 0.05)
    assert found.boxes.largest == 0
    assert found.num_matched == NUM - 1
    assert found.num_unmatched == 2


def test_few_detections_prove_little() -> None:
    reference, changed = outputs(2), outputs(2)
    changed["labels"][0, :3] = -1
    found = compare("few", reference, changed, 0.05)
    assert not found.is_conclusive
    assert not found.problems  # 3 of 12
    changed["labels"][:, :4] = -1
    assert compare("few", reference, changed, 0.05).problems  # 8 of 12


def test_without_tolerance_nothing_but_ap_counts() -> None:
    changed = outputs()
    changed["boxes"][:, :NUM] += 3
    found = difference(changed, tolerance=None)
    assert found.num_matched == 60
    assert found.boxes.largest == pytest.approx(3)
    assert not found.problems


@pytest.mark.parametrize(("after", "problems"), [(0.395, 0), (0.385, 1), (0.5, 0)])
def test_loss_of_ap(after: float, problems: int) -> None:
    found = Difference(
        form="int8",
        num_images=1,
        num_detections=1,
        num_matched=1,
        num_unmatched=0,
        boxes=Spread(),
        scores=Spread(),
        masks=None,
        ap={"box_ap": (0.4, after)},
        max_ap_lost=0.01,
    )
    assert found.is_conclusive
    assert len(found.problems) == problems
    for text in found.problems:
        assert "from 0.4000 to 0.3850, 1.50 points; allowed are 1" in text


@pytest.mark.parametrize(("ap", "proves"), [(0.4, True), (0.0, False), (-1.0, False)])
def test_an_ap_of_nothing_proves_nothing(ap: float, proves: bool) -> None:
    nothing = {key: value[:0] for key, value in outputs().items()}
    found = compare("int8", nothing, nothing, 0.05, tolerance=None)
    assert not found.is_conclusive
    assert replace(found, ap={"box_ap": (ap, ap)}).is_conclusive is proves


def test_dict_holds_plain_values() -> None:
    values = difference(outputs()).to_dict()
    assert values["boxes"] == {"median": 0.0, "largest": 0.0}
    assert values["tolerance"] == {"boxes": 0.5, "scores": 1e-3, "masks": 1e-2}
    assert values["is_conclusive"] is True
    assert Tolerance().boxes == 0.5
