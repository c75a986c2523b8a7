"""Figures of classifiers against scikit-learn's, counted pairs and values by hand."""

import numpy as np
import pytest

from kvision.evaluation import (
    area_under_roc,
    bootstrap_intervals,
    calibration,
    classification_scores,
    roc_curves,
)
from kvision.evaluation.classification import probabilities, ranks_of_truth

# Of scikit-learn 1.9.1 on `sample(images, classes, coarse)`: roc_auc_score of each
# class and macro, precision_recall_fscore_support, log_loss, top_k_accuracy_score (2),
# balanced_accuracy_score, and the first points of roc_curve of class 0. It was given
# probabilities of 12 digits, so that rounding breaks no tie.
SKLEARN = {
    (80, 4, True): {
        "auc": [
            0.7641666666666667,
            0.7406188281764319,
            0.7493872549019608,
            0.7254901960784313,
        ],
        "macro": 0.7449157364558727,
        "sk": 0.7449157364558727,
        "precision": [
            0.5238095238095238,
            0.6086956521739131,
            0.42857142857142855,
            0.4090909090909091,
        ],
        "recall": [0.55, 0.45161290322580644, 0.5, 0.5294117647058824],
        "f1": [
            0.5365853658536586,
            0.5185185185185185,
            0.46153846153846156,
            0.46153846153846156,
        ],
        "loss": 1.1999910831248541,
        "top2": 0.7125,
        "bal": 0.5077561669829223,
        "roc": [
            [
                0.0,
                0.016666666666666666,
                0.016666666666666666,
                0.016666666666666666,
                0.016666666666666666,
                0.016666666666666666,
            ],
            [0.0, 0.0, 0.05, 0.1, 0.15, 0.2],
            69,
        ],
    },
    (60, 7, False): {
        "auc": [
            0.8355795148247979,
            0.7973856209150327,
            0.7102396514161219,
            0.735576923076923,
            0.8460111317254174,
            0.808641975308642,
            0.8600000000000001,
        ],
        "macro": 0.7990621167524193,
        "sk": 0.7990621167524193,
        "precision": [
            0.3333333333333333,
            0.45454545454545453,
            0.4,
            0.25,
            0.5714285714285714,
            0.3333333333333333,
            0.5555555555555556,
        ],
        "recall": [
            0.42857142857142855,
            0.5555555555555556,
            0.4444444444444444,
            0.25,
            0.36363636363636365,
            0.3333333333333333,
            0.5,
        ],
        "f1": [
            0.375,
            0.5,
            0.42105263157894735,
            0.25,
            0.4444444444444444,
            0.3333333333333333,
            0.5263157894736842,
        ],
        "loss": 1.4878415376603238,
        "top2": 0.6166666666666667,
        "bal": 0.41079158936301796,
        "roc": [
            [
                0.0,
                0.0,
                0.018867924528301886,
                0.018867924528301886,
                0.03773584905660377,
                0.05660377358490566,
            ],
            [
                0.0,
                0.14285714285714285,
                0.14285714285714285,
                0.2857142857142857,
                0.2857142857142857,
                0.2857142857142857,
            ],
            61,
        ],
    },
    (50, 2, True): {
        "auc": [0.7280844155844156, 0.7280844155844156],
        "macro": 0.7280844155844156,
        "sk": 0.7280844155844156,
        "precision": [0.6176470588235294, 0.5625],
        "recall": [0.75, 0.4090909090909091],
        "f1": [0.6774193548387096, 0.47368421052631576],
        "loss": 0.6230527371598773,
        "top2": 1.0,
        "bal": 0.5795454545454546,
        "roc": [
            [
                0.0,
                0.0,
                0.045454545454545456,
                0.09090909090909091,
                0.13636363636363635,
                0.22727272727272727,
            ],
            [
                0.0,
                0.03571428571428571,
                0.10714285714285714,
                0.35714285714285715,
                0.5357142857142857,
                0.7142857142857143,
            ],
            13,
        ],
    },
}


def sample(number: int, num_classes: int, coarse: bool) -> tuple:
    """Logits and labels; coarse ones have many ties."""
    seed = 100 * (3 if (number, coarse) == (50, True) else 4) + num_classes
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, number)
    logits = rng.normal(0, 1, (number, num_classes))
    logits[np.arange(number), labels] += 0.8
    return (np.round(logits * 2) / 2 if coarse else logits), labels


@pytest.mark.parametrize("size", SKLEARN, ids=str)
def test_figures_of_scikit_learn(size: tuple) -> None:
    expected, (logits, labels) = SKLEARN[size], sample(*size)
    found = classification_scores(logits, labels, num_resamples=0)
    assert found["num_images"] == size[0]
    assert found["auc"] == pytest.approx(expected["sk"], abs=1e-12)
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-12)
    assert found["balanced_accuracy"] == pytest.approx(expected["bal"], abs=1e-11)
    for name in ("auc", "precision", "recall", "f1"):
        values = [figures[name] for figures in found["per_class"].values()]
        np.testing.assert_allclose(values, expected[name], atol=1e-12, err_msg=name)
    assert found["f1"] == pytest.approx(np.mean(expected["f1"]))
    assert np.sum(found["confusion"]) == size[0]
    assert np.trace(found["confusion"]) / size[0] == found["accuracy"]
    assert ("top5_accuracy" in found) == (size[1] > 5)
    if not size[2]:  # of ties scikit-learn counts other classes
        assert np.mean(ranks_of_truth(logits, labels) < 2) == expected["top2"]


@pytest.mark.parametrize("size", SKLEARN, ids=str)
def test_curve_of_scikit_learn(size: tuple) -> None:
    logits, labels = sample(*size)
    rates, hits, number = SKLEARN[size]["roc"]
    curve = roc_curves(logits, labels)["0"]
    assert len(curve[0]) == len(curve[1]) == number
    np.testing.assert_allclose(curve[0][:6], rates)
    np.testing.assert_allclose(curve[1][:6], hits)
    assert (curve[0][-1], curve[1][-1]) == (1, 1)
    area = np.trapezoid(curve[1], curve[0])
    assert area == pytest.approx(SKLEARN[size]["auc"][0], abs=1e-12)


@pytest.mark.parametrize("num_classes", [2, 3, 9])
def test_area_is_the_share_of_ordered_pairs(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    labels = rng.integers(0, num_classes, 40)
    # Permuted rows of few values: nearly every pair is a tie of some kind.
    logits = rng.integers(-1, 2, (40, num_classes)).astype(float)
    scores = probabilities(logits)
    for label, area in enumerate(area_under_roc(logits, labels)):
        inside, outside = (
            scores[labels == label, label],
            scores[labels != label, label],
        )
        gaps = np.round(inside[:, None] - outside[None], 9)
        assert area == pytest.approx(np.mean((gaps > 0) + 0.5 * (gaps == 0)))


def test_no_ties_where_probabilities_round_to_one() -> None:
    logits = np.array([[100.0, 0], [90, 0], [80, 0], [70, 0]])
    assert len(np.unique(probabilities(logits)[:, 0])) == 1
    np.testing.assert_array_equal(
        area_under_roc(logits, np.array([0, 0, 1, 1])), [1.0, 1.0]
    )


def test_equal_logits_count_as_argmax_counts() -> None:
    logits, labels = np.zeros((4, 7)), np.array([0, 1, 5, 6])
    np.testing.assert_array_equal(ranks_of_truth(logits, labels), labels)
    found = classification_scores(logits, labels, num_resamples=0)
    assert found["accuracy"] == 0.25
    assert found["top5_accuracy"] == 0.5
    assert found["auc"] == 0.5


def test_absent_class_has_no_figures() -> None:
    logits = np.array([[3.0, 0, 1], [0, 3, 1], [3, 0, 1], [2, 1, 0]])
    found = classification_scores(logits, np.array([0, 1, 0, 1]), ["a", "b", "c"])
    assert found["absent_classes"] == ["c"]
    assert found["per_class"]["c"] == {
        **dict.fromkeys(("precision", "recall", "f1", "auc")),
        "support": 0,
        "predicted": 0,
    }
    assert found["per_class"]["a"]["precision"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == 0.75  # of a and b
    # The last image of b scores below one of a's three competitors in each class.
    assert found["auc"] == pytest.approx(np.nanmean([1.0, 1.0]))
    assert list(roc_curves(logits, np.array([0, 1, 0, 1]))) == ["0", "1"]


def test_one_class_only_has_no_area() -> None:
    found = classification_scores(np.eye(3), np.zeros(3, int))
    assert found["auc"] is None
    assert "auc" not in found["intervals"]
    assert found["accuracy"] == pytest.approx(1 / 3)


def test_calibration_by_hand() -> None:
    # Confidence 0.9 four times, right three times; 0.6 twice, always right.
    logits = np.log([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    found = calibration(logits, np.array([0, 0, 0, 1, 1, 1]), num_bins=10)
    assert found["counts"] == [0, 0, 0, 0, 0, 2, 0, 0, 4, 0]
    assert found["confidence"][8] == pytest.approx(0.9)
    assert found["accuracy"][8] == 0.75
    assert found["accuracy"][0] is None
    assert found["error"] == pytest.approx((4 * 0.15 + 2 * 0.4) / 6)
    assert found["max_error"] == pytest.approx(0.4)


def test_a_calibrated_model_has_little_error() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20000, 3))
    draws = rng.random((20000, 1)) < np.cumsum(probabilities(logits), axis=1)
    labels = draws.argmax(axis=1)
    assert calibration(logits, labels)["error"] < 0.015
    assert calibration(logits * 3, labels)["error"] > 0.1


def test_intervals_hold_what_theory_says() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 400)
    logits = np.zeros((400, 2))
    is_right = rng.random(400) < 0.8
    logits[np.arange(400), np.where(is_right, labels, 1 - labels)] = rng.random(400)
    found = bootstrap_intervals(logits, labels, seed=3)
    low, high = found["accuracy"]
    rate = is_right.mean()
    width = 2 * 1.96 * np.sqrt(rate * (1 - rate) / 400)
    assert low < rate < high
    assert high - low == pytest.approx(width, rel=0.1)
    assert found["auc"][0] < area_under_roc(logits, labels)[0] < found["auc"][1]
    assert found == bootstrap_intervals(logits, labels, seed=3)
    assert found != bootstrap_intervals(logits, labels, seed=4)
    assert bootstrap_intervals(logits, labels, num_resamples=0) == {}


def test_area_of_each_draw_is_that_of_the_drawn_images() -> None:
    from kvision.evaluation.classification import _mean_areas, _orders

    logits, labels = sample(50, 3, True)
    rng = np.random.default_rng(0)
    weights = rng.multinomial(50, np.full(50, 1 / 50), 8)
    found = _mean_areas(weights, labels, *_orders(logits))
    for weight, area in zip(weights, found, strict=True):
        drawn = np.repeat(np.arange(50), weight)
        expected = np.nanmean(area_under_roc(logits[drawn], labels[drawn]))
        assert area == pytest.approx(expected, abs=1e-12)


def test_many_classes_have_no_interval_of_the_area() -> None:
    logits = np.random.default_rng(0).normal(size=(30, 10))
    labels = np.arange(30) % 10
    assert "auc" in bootstrap_intervals(logits, labels, num_resamples=10)
    import kvision.evaluation.classification as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MAX_BOOTSTRAP", 2999)
        found = bootstrap_intervals(logits, labels, num_resamples=10)
    assert list(found) == ["accuracy", "top5_accuracy"]


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[1.0, np.nan], [0, 1], [np.inf, 0]], [0, 1, 0], "2 of 3 .* image 0"),
        ([[1.0, 0]], [2], r"labels in 0\.\.1\. Received: 2 for image 0"),
        ([[1.0, 0], [1, 0]], [0, -1], "Received: -1 for image 1"),
        ([[1.0], [0]], [0, 0], r"at least 2 classes\. Received: shape \(2, 1\)"),
        ([[1.0, 0]], [[1, 0]], r"Received: shape \(1, 2\)"),
        ([[1.0, 0]], [0.0], "dtype float64"),
        (np.zeros((0, 3)), np.zeros(0, int), "no image"),
    ],
)
def test_what_cannot_be_scored(logits: list, labels: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification_scores(np.array(logits), np.array(labels))


def test_names_fit() -> None:
    with pytest.raises(ValueError, match=r"Expected 2 different class names.*3, 3"):
        classification_scores(np.eye(2), np.arange(2), ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"2, 1 of them different"):
        classification_scores(np.eye(2), np.arange(2), ["a", "a"])
