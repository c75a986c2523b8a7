"""Scores of classifiers: logits and labels in, a dict of figures out.

Shape letters: N images, K classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = [
    "area_under_roc",
    "bootstrap_intervals",
    "calibration",
    "classification_scores",
    "confusion_counts",
    "probabilities",
    "ranks_of_truth",
    "roc_curves",
]

Array = np.ndarray
Interval = tuple[float, float]

_NUM_BINS = 15
_NUM_RESAMPLES = 1000
# Images * classes * resamples; some ten seconds. Beyond it AUC gets no interval.
_MAX_BOOTSTRAP = 1_000_000_000
_CHUNK = 1 << 22


def classification_scores(
    logits: Array,
    labels: Array,
    class_names: Sequence[str] | None = None,
    *,
    num_resamples: int = _NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a classifier.

    What cannot be computed is None: the AUC of a class that no image or every image
    has, the precision of one that was never predicted, the recall of one that is
    absent. Means are over the classes that have images; `absent_classes` names the
    others.

    Args:
        logits: (N, K) array of floats.
        labels: (N,) integers in 0..K-1.
        class_names: K names; "0", "1", ... by default.
        num_resamples: how often images are drawn with replacement for the intervals;
            0 for no intervals.
        seed: of those draws.

    Returns:
        `num_images`; `accuracy`; `top5_accuracy` where K > 5; `loss` (cross-entropy in
        nats); `auc` (mean over classes of one against the rest); `balanced_accuracy`
        (mean recall); `f1` (mean over classes); `calibration_error` (expected, over 15
        bins) and `calibration` (as `calibration` gives it); `per_class`: name ->
        `precision`, `recall`, `f1`, `auc`, `support` (images of the class) and
        `predicted` (images taken for it); `confusion`: K lists of K counts, row = true
        class; `absent_classes`; `intervals`: figure -> (low, high), 95 % of the
        resamples, of `accuracy`, `top5_accuracy` and `auc`.

    Raises:
        ValueError: shapes do not fit, a label is no class, or a logit is no number.
    """
    logits, labels = _checked(logits, labels)
    num_classes = logits.shape[1]
    names = _names(class_names, num_classes)
    ranks = ranks_of_truth(logits, labels)
    areas = area_under_roc(logits, labels)
    confusion = confusion_counts(logits.argmax(axis=1), labels, num_classes)
    per_class = _per_class(confusion, areas, names)
    shown = [figures for figures in per_class.values() if figures["support"]]
    bins = calibration(logits, labels)
    scores: dict[str, Any] = {
        "num_images": len(labels),
        "accuracy": float(np.mean(ranks == 0)),
        **({"top5_accuracy": float(np.mean(ranks < 5))} if num_classes > 5 else {}),
        "loss": float(-_log_softmax(logits)[np.arange(len(labels)), labels].mean()),
        "auc": _mean_or_none(areas),
        "balanced_accuracy": float(np.mean([each["recall"] for each in shown])),
        "f1": float(np.mean([each["f1"] for each in shown])),
        "calibration_error": bins["error"],
        "calibration": bins,
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "absent_classes": [n for n, each in per_class.items() if not each["support"]],
    }
    scores["intervals"] = bootstrap_intervals(
        logits, labels, num_resamples=num_resamples, seed=seed
    )
    return scores


def probabilities(logits: Array) -> Array:
    """Compute softmax in float64.

    Args:
        logits: (N, K) array.

    Returns:
        (N, K) float64 array whose rows sum to 1.
    """
    return np.exp(_log_softmax(np.asarray(logits, np.float64)))


def ranks_of_truth(logits: Array, labels: Array) -> Array:
    """Count the classes that come before the true one.

    Of equal logits the class of the smaller number comes first, as in `argmax`.

    Args:
        logits: (N, K) array.
        labels: (N,) integers.

    Returns:
        (N,) integers from 0: the true class is in the top k where this is below k.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    is_earlier = np.arange(logits.shape[1]) < labels[:, None]
    return np.sum((logits > own) | ((logits == own) & is_earlier), axis=1)


def confusion_counts(predicted: Array, labels: Array, num_classes: int) -> Array:
    """Count which class was taken for which.

    Args:
        predicted: (N,) integers.
        labels: (N,) integers.
        num_classes: K.

    Returns:
        (K, K) integers; row = true class, column = predicted class.
    """
    pairs = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def area_under_roc(logits: Array, labels: Array) -> Array:
    """Compute the area under the ROC curve of each class against the rest.

    It is the share of pairs (an image of the class, another image) in which the first
    has the higher probability of the class; a tie counts half.

    Args:
        logits: (N, K) array.
        labels: (N,) integers.

    Returns:
        (K,) float64 array; NaN for a class that no image or every image has.

    Source: Hanley and McNeil 1982; ties by mid-ranks, Mann and Whitney 1947.
    """
    areas = np.full(logits.shape[1], np.nan)
    for label, odds in enumerate(_log_odds(logits).T):
        is_class = labels == label
        positives = int(is_class.sum())
        negatives = len(labels) - positives
        if positives and negatives:
            _, places, counts = np.unique(odds, return_inverse=True, return_counts=True)
            mid_ranks = np.cumsum(counts) - (counts - 1) / 2
            above = mid_ranks[places][is_class].sum() - positives * (positives + 1) / 2
            areas[label] = above / (positives * negatives)
    return areas


def roc_curves(
    logits: Array, labels: Array, class_names: Sequence[str] | None = None
) -> dict[str, tuple[Array, Array]]:
    """Compute the ROC curve of each class against the rest.

    Args:
        logits: (N, K) array.
        labels: (N,) integers.
        class_names: K names; "0", "1", ... by default.

    Returns:
        Name -> (false positive rates, true positive rates), from (0, 0) to (1, 1), a
        point for each distinct score. Classes that no image or every image has are
        left out.
    """
    logits, labels = _checked(logits, labels)
    names = _names(class_names, logits.shape[1])
    curves = {}
    for label, odds in enumerate(_log_odds(logits).T):
        is_class = labels == label
        if is_class.all() or not is_class.any():
            continue
        order = np.argsort(-odds, kind="stable")
        # A step ends where the score changes: tied images enter together.
        ends = np.append(np.flatnonzero(np.diff(odds[order])), len(order) - 1)
        hits = np.cumsum(is_class[order])[ends]
        misses = ends + 1 - hits
        curves[names[label]] = (
            np.append(0.0, misses / misses[-1]),
            np.append(0.0, hits / hits[-1]),
        )
    return curves


def calibration(
    logits: Array, labels: Array, num_bins: int = _NUM_BINS
) -> dict[str, Any]:
    """Compare how sure a classifier is with how often it is right.

    Args:
        logits: (N, K) array.
        labels: (N,) integers.
        num_bins: bins of equal width for the probability of the top class, each with
            its upper edge.

    Returns:
        `error` (expected calibration error: mean over images of the gap of their bin),
        `max_error` (largest gap of a bin with images), `edges` (num_bins + 1 floats),
        `counts`, and for each bin `confidence` and `accuracy`, None where it is empty.

    Source: Guo et al. 2017, On calibration of modern neural networks, Eq. 3 and 5.
    """
    scores = probabilities(logits)
    confidence = scores.max(axis=1)
    # The class as everywhere else: softmax may round two logits to one probability.
    is_right = np.asarray(logits).argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    sums = [
        np.bincount(bins, weights=values, minlength=num_bins)
        for values in (confidence, is_right)
    ]
    filled = counts > 0
    means = [
        np.divide(each, counts, where=filled, out=np.zeros(num_bins)) for each in sums
    ]
    gaps = np.abs(means[0] - means[1])
    confidences, accuracies = (
        [float(mean) if any_ else None for mean, any_ in zip(each, filled, strict=True)]
        for each in means
    )
    return {
        "error": float(np.sum(gaps * counts) / len(labels)),
        "max_error": float(gaps[filled].max()),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "confidence": confidences,
        "accuracy": accuracies,
    }


def bootstrap_intervals(
    logits: Array,
    labels: Array,
    *,
    num_resamples: int = _NUM_RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Estimate how far figures would move with other images of the same kind.

    Images are drawn with replacement, as many as there are; the interval holds the
    middle of the figures of all draws. The AUC of a draw is the mean over its classes
    that have both images of the class and others.

    Args:
        logits: (N, K) array.
        labels: (N,) integers.
        num_resamples: number of draws.
        seed: of the draws; the same seed gives the same intervals.
        level: share of the draws inside the interval.

    Returns:
        "accuracy", "top5_accuracy" (K > 5) and "auc" -> (low, high). Without "auc"
        where it is undefined, or where images * classes * draws exceed 1e9.

    Source: Efron 1979; percentile method.
    """
    if num_resamples < 1:
        return {}
    rng = np.random.default_rng(seed)
    number, num_classes = logits.shape
    ranks = ranks_of_truth(logits, labels)
    orders = None
    is_defined = not np.isnan(area_under_roc(logits, labels)).all()
    if is_defined and number * num_classes * num_resamples <= _MAX_BOOTSTRAP:
        orders = _orders(logits)
    draws: dict[str, list[Array]] = {"accuracy": [], "top5_accuracy": [], "auc": []}
    rows = max(1, _CHUNK // number)
    for start in range(0, num_resamples, rows):
        size = min(rows, num_resamples - start)
        # How often each image was drawn.
        weights = rng.multinomial(number, np.full(number, 1 / number), size)
        draws["accuracy"].append(weights @ (ranks == 0) / number)
        if num_classes > 5:
            draws["top5_accuracy"].append(weights @ (ranks < 5) / number)
        if orders is not None:
            draws["auc"].append(_mean_areas(weights, labels, *orders))
    edges = [100 * (1 - level) / 2, 100 * (1 + level) / 2]
    return {
        name: _interval(np.concatenate(values), edges)
        for name, values in draws.items()
        if values
    }


def _interval(values: Array, edges: Sequence[float]) -> Interval:
    low, high = np.nanpercentile(values, edges)
    return float(low), float(high)


def _orders(logits: Array) -> tuple[Array, Array]:
    """Sort the images once for all draws.

    Returns:
        (K, N) order of the images by each class's score, and (K, N) the number of the
        group of equal scores that each place belongs to.
    """
    odds = _log_odds(logits).T
    order = np.argsort(odds, axis=1, kind="stable")
    ordered = np.take_along_axis(odds, order, axis=1)
    is_new = np.diff(ordered, axis=1, prepend=ordered[:, :1]) > 0
    return order, np.cumsum(is_new, axis=1)


def _mean_areas(weights: Array, labels: Array, order: Array, groups: Array) -> Array:
    """Return the mean AUC of each draw, NaN where no class has one.

    Args:
        weights: (R, N) how often each image was drawn.
        labels: (N,) integers.
        order: as `_orders` gives it.
        groups: as `_orders` gives it.
    """
    total, count = np.zeros(len(weights)), np.zeros(len(weights))
    for label, (places, group) in enumerate(zip(order, groups, strict=True)):
        is_class = labels[places] == label
        drawn = weights[:, places]
        positives, others = drawn * is_class, drawn * ~is_class
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        positives, others = (
            np.add.reduceat(each, starts, axis=1) for each in (positives, others)
        )
        # Others of a lower score, and half of those of the same.
        below = np.cumsum(others, axis=1) - others / 2
        pairs = positives.sum(axis=1) * others.sum(axis=1)
        area = np.sum(positives * below, axis=1) / np.maximum(pairs, 1)
        total += np.where(pairs > 0, area, 0.0)
        count += pairs > 0
    return np.divide(total, count, where=count > 0, out=np.full(len(total), np.nan))


def _checked(logits: Array, labels: Array) -> tuple[Array, Array]:
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or logits.shape[1] < 2 or logits.dtype.kind not in "fiu":
        raise ValueError(
            "Expected logits of shape (images, classes) with at least 2 classes. "
            f"Received: shape {logits.shape}, dtype {logits.dtype}"
        )
    if labels.shape != (len(logits),) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"Expected an integer label for each of the {len(logits)} images. "
            f"Received: shape {labels.shape}, dtype {labels.dtype}"
        )
    if not len(labels):
        raise ValueError("There is no image to score")
    _refuse_values(logits, labels)
    return logits.astype(np.float64), labels.astype(np.int64)


def _refuse_values(logits: Array, labels: Array) -> None:
    is_bad = ~np.isfinite(logits).all(axis=1)
    if is_bad.any():
        raise ValueError(
            f"The logits of {is_bad.sum()} of {len(logits)} images are not finite, "
            f"first of image {np.flatnonzero(is_bad)[0]}: the model is broken, or was "
            "given images that are"
        )
    is_no_class = (labels < 0) | (labels >= logits.shape[1])
    if is_no_class.any():
        first = np.flatnonzero(is_no_class)[0]
        raise ValueError(
            f"Expected labels in 0..{logits.shape[1] - 1}. Received: {labels[first]} "
            f"for image {first}"
        )


def _names(class_names: Sequence[str] | None, num_classes: int) -> list[str]:
    names = list(map(str, range(num_classes)) if class_names is None else class_names)
    if len(names) != num_classes or len(set(names)) != num_classes:
        raise ValueError(
            f"Expected {num_classes} different class names, one for each logit. "
            f"Received: {len(names)}, {len(set(names))} of them different"
        )
    return names


def _per_class(
    confusion: Array, areas: Array, names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    table = {}
    for label, name in enumerate(names):
        hits = int(confusion[label, label])
        support, predicted = (
            int(confusion[label].sum()),
            int(confusion[:, label].sum()),
        )
        table[name] = {
            "precision": hits / predicted if predicted else None,
            "recall": hits / support if support else None,
            "f1": 2 * hits / (support + predicted) if support + predicted else None,
            "auc": None if np.isnan(areas[label]) else float(areas[label]),
            "support": support,
            "predicted": predicted,
        }
    return table


def _mean_or_none(values: Array) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(_sums(np.exp(shifted)))


def _sums(values: Array) -> Array:
    """Sum each row, the same for the same numbers in another order: ties stay ties."""
    return np.sort(values, axis=1).sum(axis=1, keepdims=True)


def _log_odds(logits: Array) -> Array:
    """Return log(p / (1 - p)): the order of p, without ties where p rounds to 1."""
    logs = _log_softmax(logits)
    top = logits.argmax(axis=1)[:, None]
    odds = logs - np.log1p(-np.minimum(np.exp(logs), 0.5))
    # 1 - p of a class that has more than half cancels; the sum of the others does not.
    others = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.put_along_axis(others, top, 0.0, axis=1)
    # Never 0: the others of a row may underflow, which is as far as odds go.
    rest = np.maximum(_sums(others), np.finfo(np.float64).tiny)
    return np.where(np.exp(logs) > 0.5, -np.log(rest), odds)
