"""COCO scores after every epoch of `fit`, where other callbacks can see them."""

import logging
import sys
import time
from collections.abc import Iterator
from os import PathLike
from typing import Any

import keras
import numpy as np

from kvision.evaluation.annotations import read_annotations
from kvision.evaluation.coco import coco_scores, figure_names
from kvision.evaluation.results import coco_results

__all__ = ["COCOMetrics"]

Array = np.ndarray
Batch = tuple[Array, dict[str, Array]]

_log = logging.getLogger("kvision.train")


class COCOMetrics(keras.callbacks.Callback):
    """Score the model on a dataset in original pixels at the end of each epoch.

    The figures go into the epoch's logs, so a callback that stands behind this one in
    the list can use them: `ModelCheckpoint(path, monitor="val_mask_ap", mode="max",
    save_best_only=True)`, `EarlyStopping("val_box_ap", mode="max", patience=5)`,
    `CSVLogger`. One that monitors a figure and stands before is an error. With
    `keras.callbacks.SwapEMAWeights` in the list the averaged weights are scored, as in
    validation.

    Args:
        dataset: the `tf.data.Dataset` of the images to score, each once, with
            `image_ids`, `scales` and `original_sizes` among its targets, as
            `kvision.data.coco` makes it. Without augmentation.
        annotations: path of the COCO instances json of those images, or its content.
        prefix: what stands before the names of the figures.
        max_detections: the detections per image and class that count, best first.
        masks: whether to score masks too; by default if the model puts out masks.
        per_class: whether each class' AP goes into the logs as well, as
            "val_box_ap/NAME".
        every: score every so many epochs, the first and the last always. In between the
            figures are NaN, which no callback takes for an improvement.
        verbose: 1 prints a line per scoring, 0 nothing.

    Attributes:
        scores: the last result of `coco_scores`, with recalls and per class.
        results: the COCO results behind it.
        seconds: what the last scoring took.

    Raises:
        ValueError: the classes of the model are not in the annotations, an image of
            the dataset is not, or an image comes twice.
    """

    def __init__(
        self,
        dataset: Any,
        annotations: "str | PathLike[str] | dict[str, Any]",
        prefix: str = "val_",
        max_detections: int = 100,
        masks: bool | None = None,
        per_class: bool = False,
        every: int = 1,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be 1 or more. Received: {every}")
        self._refuse_endless(dataset)
        self.dataset = dataset
        self.prefix = prefix
        self.max_detections = max_detections
        self.masks = masks
        self.per_class = per_class
        self.every = every
        self.verbose = verbose
        self.scores: dict[str, Any] = {}
        self.results: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._annotations = read_annotations(annotations)
        self._averages: list[keras.callbacks.SwapEMAWeights] = []
        self._told = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check the classes and the order of the callbacks before any time is spent."""
        self._annotations.category_ids(self.model.class_names)
        self.scores = {}
        callbacks = _callbacks_with(self)
        self._refuse_order(callbacks)
        self._averages = [
            callback
            for callback in callbacks
            if isinstance(callback, keras.callbacks.SwapEMAWeights)
        ]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the figures of this epoch into its logs."""
        last = epoch + 1 == (self.params or {}).get("epochs")
        due = last or not self.scores or (epoch + 1) % self.every == 0
        if due:
            self._score_averages()
        figures = self._logs(self.scores)
        if logs is not None:
            logs.update(figures if due else dict.fromkeys(figures, float("nan")))

    def score(self, model: Any | None = None) -> dict[str, Any]:
        """Run the model over the dataset and score it, outside of `fit` too.

        Args:
            model: the detector; by default that of the `fit` this callback is in.

        Returns:
            As `coco_scores`.
        """
        if model is not None:
            self.set_model(model)
        start = time.monotonic()
        category_ids = self._annotations.category_ids(self.model.class_names)
        self.results, image_ids = [], []
        for outputs, targets in self._outputs():
            masks = "masks" in outputs if self.masks is None else self.masks
            image_ids += [int(image_id) for image_id in targets["image_ids"]]
            self.results += coco_results(outputs, targets, category_ids, masks)
        self._check_images(image_ids)
        self.scores = coco_scores(
            self._annotations,
            self.results,
            max_detections=self.max_detections,
            masks=masks,
            class_names=self.model.class_names,
            image_ids=image_ids,
        )
        self.seconds = time.monotonic() - start
        if self.verbose:
            print(self._line(), flush=True)
        return self.scores

    def _outputs(self) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
        """Run the model over the dataset in batches of one shape.

        A last, smaller batch is filled up, as another shape would be traced anew; and
        under `tf.distribute` each replica is given the whole batch, so the outputs hold
        it several times.
        """
        rows = 0
        for images, targets in _as_numpy(self.dataset):
            rows = max(rows, len(images))
            filling = np.zeros((rows - len(images), *images.shape[1:]), images.dtype)
            batch = np.concatenate([images, filling]) if len(filling) else images
            outputs = self.model.predict_on_batch(batch)
            yield (
                {
                    key: np.asarray(value)[: len(images)]
                    for key, value in outputs.items()
                },
                targets,
            )

    def _score_averages(self) -> None:
        """Score with averaged weights where validation uses them."""
        swapped = [each for each in self._averages if not each._ema_weights_in_model]
        for callback in swapped:
            callback.on_test_begin()
        try:
            self.score()
        finally:
            for callback in swapped:
                callback.on_test_end()

    def _logs(self, scores: dict[str, Any]) -> dict[str, float]:
        """Return what goes into the logs: AP, not recall, which `scores` has."""
        names = figure_names("mask_ap" in scores, self.max_detections)
        wanted = [name for name in names if "_ap" in name]
        logs = {f"{self.prefix}{name}": scores[name] for name in wanted}
        if self.per_class:
            for class_name, figures in scores["per_class"].items():
                for name in ("box_ap", "mask_ap"):
                    if name in figures:
                        logs[f"{self.prefix}{name}/{class_name}"] = figures[name]
        return logs

    def _line(self) -> str:
        kinds = ("box", "mask") if "mask_ap" in self.scores else ("box",)
        figures = ", ".join(
            f"{kind} AP {self.scores[f'{kind}_ap']:.3f} "
            f"(50: {self.scores[f'{kind}_ap50']:.3f})"
            for kind in kinds
        )
        return f"{figures}, {len(self.results)} detections, {self.seconds:.1f} s"

    def _check_images(self, image_ids: list[int]) -> None:
        """Refuse images that come twice; tell once how many of the file are scored."""
        if len(set(image_ids)) < len(image_ids):
            twice = next(i for i in image_ids if image_ids.count(i) > 1)
            raise ValueError(
                f"Image {twice} came twice: COCOMetrics scores each image once. Give "
                "it a dataset without repeat()"
            )
        total = len(self._annotations.image_sizes)
        if len(image_ids) < total and not self._told:
            _log.info(
                "COCOMetrics scores %d of the %d images of %s",
                len(image_ids),
                total,
                self._annotations.source,
            )
            self._told = True

    def _refuse_order(self, callbacks: list[Any]) -> None:
        """Refuse a callback that would look for a figure before it is there."""
        names = {f"{self.prefix}{name}" for name in figure_names(True)}
        for callback in callbacks:
            if callback is self:
                return
            monitor = str(getattr(callback, "monitor", ""))
            if monitor.split("/")[0] in names:
                raise ValueError(
                    f"{type(callback).__name__} monitors {monitor!r} and stands before "
                    "COCOMetrics, which computes it, in the list of callbacks. Put "
                    f"COCOMetrics before {type(callback).__name__}"
                )

    @staticmethod
    def _refuse_endless(dataset: Any) -> None:
        cardinality = getattr(dataset, "cardinality", None)
        if cardinality is not None and int(cardinality()) == -1:
            raise ValueError(
                "The dataset never ends: COCOMetrics scores each image once. Give it a "
                "dataset without repeat()"
            )


def _as_numpy(dataset: Any) -> Iterator[Batch]:
    """Iterate over a tf.data.Dataset, or any iterable of batches, in numpy arrays."""
    needed = ("image_ids", "scales", "original_sizes")
    batches = dataset.as_numpy_iterator() if _is_tf_data(dataset) else dataset
    empty = True
    for images, targets in batches:
        missing = [name for name in needed if name not in targets]
        if missing:
            raise ValueError(
                f"COCOMetrics needs {missing} among the targets, to return to original "
                f"pixels. Received: {sorted(targets)}"
            )
        empty = False
        yield np.asarray(images), {name: np.asarray(targets[name]) for name in needed}
    if empty:
        raise ValueError("The dataset has no images to score")


def _is_tf_data(dataset: Any) -> bool:
    return hasattr(dataset, "as_numpy_iterator")


def _callbacks_with(callback: keras.callbacks.Callback) -> list[Any]:
    """Find the list of callbacks that one is in, while it is being called by it.

    Keras tells a callback nothing of the others, and keeps the list in a local
    variable of `fit`.
    """
    frame = sys._getframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            callbacks = list(caller.callbacks)
            if any(other is callback for other in callbacks):
                return callbacks
        frame = frame.f_back  # type: ignore[assignment]
    return [callback]
