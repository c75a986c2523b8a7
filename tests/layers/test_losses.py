"""Losses by hand, with their normalisers."""

import numpy as np
import pytest

from kvision import layers
from tests.ops.modes import to_numpy


def values(outputs: dict) -> dict[str, float]:
    return {name: float(value) for name, value in to_numpy(outputs).items()}


def rpn_targets() -> dict[str, np.ndarray]:
    """Two images: a positive, a negative and an empty slot; two negatives and none."""
    return {
        "indices": np.int32([[2, 0, 0], [1, 3, 0]]),
        "objectness": np.float32([[1, 0, 0], [0, 0, 0]]),
        "deltas": np.zeros((2, 3, 4), np.float32),
        "weights": np.float32([[1, 1, 0], [1, 1, 0]]),
        "box_weights": np.float32([[1, 0, 0], [0, 0, 0]]),
    }


def test_rpn_losses_are_divided_by_the_number_of_sampled_anchors() -> None:
    logits = np.float32([[0, 9, np.log(3), 9], [9, 0, 9, 0]])
    deltas = np.full((2, 4, 4), 50, np.float32)  # of anchors that take no part
    deltas[0, 2] = [0.1, -0.5, 1.0, 0.0]
    got = values(layers.RPNLoss(beta=0.5)(logits, deltas, rpn_targets()))
    # -log(sigmoid(log 3)) = log(4/3); three times log 2.
    objectness = (np.log(4 / 3) + 3 * np.log(2)) / 4
    # 0.1^2 / 2 / 0.5 | 0.5 - 0.25 | 1 - 0.25, over four sampled anchors
    box = (0.01 + 0.25 + 0.75) / 4
    assert got == pytest.approx(
        {"rpn_objectness_loss": objectness, "rpn_box_loss": box}, rel=1e-5
    )


def test_beta_0_is_the_l1_loss() -> None:
    deltas = np.zeros((2, 4, 4), np.float32)
    deltas[0, 2] = [0.1, -0.5, 1.0, 0.0]
    got = values(layers.RPNLoss(beta=0)(np.zeros((2, 4)), deltas, rpn_targets()))
    assert got["rpn_box_loss"] == pytest.approx(1.6 / 4)
    assert got["rpn_objectness_loss"] == pytest.approx(np.log(2))


def box_targets() -> dict[str, np.ndarray]:
    return {
        "labels": np.int32([[1, 2, 2], [0, 1, 2]]),  # two classes, 2 is background
        "deltas": np.zeros((2, 3, 4), np.float32),
        "weights": np.float32([[1, 1, 0], [1, 1, 1]]),
        "box_weights": np.float32([[1, 0, 0], [1, 1, 0]]),
    }


def test_box_losses_are_divided_by_the_number_of_all_sampled_regions() -> None:
    class_logits = np.zeros((2, 3, 3), np.float32)
    class_logits[0, 0, 1] = np.log(2)  # softmax 1/4, 1/2, 1/4
    class_logits[0, 2] = 77  # an empty slot
    box_deltas = np.full((2, 3, 2, 4), 50, np.float32)  # of other classes
    box_deltas[0, 0, 1] = [1, 0, 0, 0]
    box_deltas[1, 0, 0] = [0, -2, 0, 0]
    box_deltas[1, 1, 1] = [0, 0, 0.25, 0.25]
    got = values(layers.BoxLoss(beta=1.0)(class_logits, box_deltas, box_targets()))
    # 1/2 | 2 - 1/2 | twice 1/32; five regions are sampled, three of them positive.
    assert got == pytest.approx(
        {
            "class_loss": (np.log(2) + 4 * np.log(3)) / 5,
            "box_loss": (0.5 + 1.5 + 2 / 32) / 5,
        },
        rel=1e-5,
    )


def test_box_losses_as_the_mean_of_positives() -> None:
    """Matterport's: over the four deltas of positives, however many are sampled."""
    deltas = np.full((2, 4, 4), 50, np.float32)
    deltas[0, 2] = [0.1, -0.5, 1.0, 0.0]
    rpn = layers.RPNLoss(beta=0.5, mean_of_positives=True)
    got = values(rpn(np.zeros((2, 4)), deltas, rpn_targets()))
    assert got["rpn_box_loss"] == pytest.approx((0.01 + 0.25 + 0.75) / 4 / 1)
    box_deltas = np.zeros((2, 3, 2, 4), np.float32)
    box_deltas[0, 0, 1] = [1, 0, 0, 0]
    box_deltas[1, 0, 0] = [0, -2, 0, 0]
    box = layers.BoxLoss(beta=1.0, mean_of_positives=True)
    got = values(box(np.zeros((2, 3, 3), np.float32), box_deltas, box_targets()))
    assert got["box_loss"] == pytest.approx((0.5 + 1.5) / 4 / 3)
    assert got["class_loss"] == pytest.approx(np.log(3))


def test_mask_loss_is_the_mean_over_the_cells_of_positives() -> None:
    targets = {
        "masks": np.float32([[[1, 1], [0, 0]], [[1, 0], [0, 0.5]], [[0, 0], [0, 0]]]),
        "weights": np.float32([1, 1, 0]),
    }
    logits = np.zeros((3, 2, 2), np.float32)
    logits[0, 0] = np.log(3)  # sigmoid 3/4 where the mask is 1
    logits[2] = 1000  # an empty slot
    first = (2 * np.log(4 / 3) + 2 * np.log(2)) / 4
    got = values(layers.MaskLoss()(logits, targets))
    assert got == pytest.approx({"mask_loss": (first + np.log(2)) / 2}, rel=1e-5)


@pytest.mark.parametrize("layer", [layers.RPNLoss, layers.BoxLoss, layers.MaskLoss])
def test_nothing_sampled_costs_nothing(layer: type) -> None:
    shape, targets = {
        layers.RPNLoss: ([(2, 4), (2, 4, 4)], rpn_targets()),
        layers.BoxLoss: ([(2, 3, 3), (2, 3, 2, 4)], box_targets()),
        layers.MaskLoss: (
            [(3, 2, 2)],
            {
                "masks": np.zeros((3, 2, 2), np.float32),
                "weights": np.ones(3, np.float32),
            },
        ),
    }[layer]
    for name in ("weights", "box_weights"):
        if name in targets:
            targets[name] = 0 * targets[name]
    predictions = [np.random.default_rng(0).normal(size=s) for s in shape]
    got = values(layer()(*predictions, targets))
    assert set(got.values()) == {0.0}
