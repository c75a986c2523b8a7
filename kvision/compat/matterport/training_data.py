"""From a `Dataset` of a script to the batches that a detector trains on."""

import logging
import threading
from typing import Any

import numpy as np
import tensorflow as tf

from kvision.compat.matterport.arguments import mask_cells
from kvision.compat.matterport.boxes import extract_bboxes
from kvision.compat.matterport.config import Config
from kvision.compat.matterport.dataset import Dataset
from kvision.compat.matterport.instances import checked_image, checked_masks
from kvision.compat.matterport.molding import molding_of
from kvision.data.masks import crop_pixels
from kvision.data.pipeline import Options, make_dataset

__all__ = ["DatasetSource", "training_batches", "validation_batches"]

_LOGGER = logging.getLogger("kvision")

Array = np.ndarray


class DatasetSource:
    """Images and objects of a `Dataset`, as `kvision.data.pipeline` asks for them.

    Args:
        dataset: the data set, checked.
        config: the configuration.

    Attributes:
        fault: the first error that loading raised. tf.data reports errors of Python in
            a form of its own; this is the one to show.
    """

    has_masks = True

    def __init__(self, dataset: Dataset, config: Config) -> None:
        self.dataset = dataset
        self.config = config
        self.class_names = list(dataset.class_names[1:])
        self.category_ids = list(range(1, dataset.num_classes))
        self.image_ids = list(range(len(dataset.image_ids)))
        self.fault: Exception | None = None
        self._sizes: dict[int, tuple[int, int]] = {}
        self._empty: dict[int, int] = {}
        self._crowded: dict[int, int] = {}
        # Scripts were run by processes, not by threads: one at a time may load.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.image_ids)

    def load_image(self, index: int) -> Array:
        """Load image number `index`."""
        with self._lock:
            try:
                image = checked_image(self.dataset, index)
                self._check_size(index, image)
            except Exception as error:
                self.fault = self.fault or error
                raise
        self._sizes[index] = image.shape[0], image.shape[1]
        return image

    def load_objects(self, index: int, cells: int) -> tuple[Array, Array, Array]:
        """Load boxes, labels and masks of an image that was loaded before."""
        with self._lock:
            try:
                masks, class_ids = checked_masks(
                    self.dataset, index, self._sizes[index]
                )
            except Exception as error:
                self.fault = self.fault or error
                raise
        used = masks.any(axis=(0, 1))
        if not used.all():
            self._empty[index] = int(np.sum(~used))
        if used.sum() > self.config.MAX_GT_INSTANCES:
            self._crowded[index] = int(used.sum())
        masks, class_ids = masks[..., used], class_ids[used]
        boxes = extract_bboxes(masks)
        grids = np.zeros((len(boxes), cells, cells), np.uint8)
        for row, (y1, x1, y2, x2) in enumerate(boxes):
            inside = masks[y1:y2, x1:x2, row]
            grids[row] = crop_pixels(inside, (0.0, 0.0, x2 - x1, y2 - y1), cells)
        labels = np.where(class_ids > 0, class_ids - 1, -1).astype(np.int32)
        return boxes[:, [1, 0, 3, 2]].astype(np.float32), labels, grids

    def largest_count(self) -> int:
        """Return MAX_GT_INSTANCES."""
        return self.config.MAX_GT_INSTANCES

    def fingerprint(self, index: int) -> str:
        """Do nothing: images are not cached, since a script may make them anew."""
        raise NotImplementedError

    def _check_size(self, index: int, image: Array) -> None:
        """Refuse an image that the mode leaves in another size than the model's."""
        if self.config.IMAGE_RESIZE_MODE not in ("none", "pad64"):
            return
        size = tf.constant(image.shape[:2], tf.float64)
        frame = molding_of(self.config).matrix(tf.zeros([2], tf.int32), size)[1]
        expected = tuple(int(side) for side in self.config.IMAGE_SHAPE[:2])
        if tuple(frame.numpy().astype(int)) != expected:
            raise ValueError(
                f"IMAGE_RESIZE_MODE={self.config.IMAGE_RESIZE_MODE!r} brings image "
                f"{index} of (height, width) {image.shape[:2]} to "
                f"{tuple(frame.numpy().astype(int).tolist())}, but training needs "
                f'{expected} (IMAGE_MAX_DIM). Train with "square" or "crop".'
            )

    def tell(self) -> None:
        """Say what of the images that were loaded was not learnt."""
        most = self.config.MAX_GT_INSTANCES
        if self._empty:
            _LOGGER.warning(
                "%d masks of %d images are empty and were left out (%s)",
                sum(self._empty.values()),
                len(self._empty),
                _some(self._empty),
            )
        if self._crowded:
            _LOGGER.warning(
                "%d images have more than MAX_GT_INSTANCES=%d objects (%s). Of those "
                "that are seen at once no more than the first %d are learnt",
                len(self._crowded),
                most,
                _some(self._crowded),
                most,
            )


def training_batches(
    source: DatasetSource, config: Config, augmentation: Any, first_batch: int
) -> tf.data.Dataset:
    """Make endless batches, every image once before any comes again.

    Args:
        source: images and objects.
        config: the configuration.
        augmentation: None, or a list of `kvision.data` transforms.
        first_batch: how many batches were trained on before.

    Returns:
        Dataset of (images, targets).
    """
    steps = -(-len(source) // config.BATCH_SIZE)
    epoch, step = divmod(first_batch, steps)
    return _batches(source, config, checked_transforms(augmentation), epoch, step)


def validation_batches(source: DatasetSource, config: Config) -> tf.data.Dataset:
    """Make VALIDATION_STEPS batches, the same ones every time.

    Args:
        source: images and objects.
        config: the configuration.

    Returns:
        Dataset of (images, targets).
    """
    return _batches(source, config, [], 0, 0).take(config.VALIDATION_STEPS)


def checked_transforms(augmentation: Any) -> list[Any]:
    """Refuse what is no list of transforms.

    Args:
        augmentation: the argument of `train`.

    Returns:
        Transforms.

    Raises:
        ValueError: it is something else, such as an augmenter of imgaug.
    """
    if augmentation is None:
        return []
    is_list = isinstance(augmentation, list | tuple)
    if is_list and not any(map(_is_of_imgaug, [augmentation, *augmentation])):
        return list(augmentation)
    raise ValueError(
        "augmentation must be None or a list of transforms, such as "
        "[kvision.data.HorizontalFlip(0.5)]. Received: "
        f"{type(augmentation).__name__}. (imgaug, which matterport used, does not work "
        "with NumPy 2; docs/from_matterport.md names what to use for its augmenters.)"
    )


def _some(counts: dict[int, int]) -> str:
    index = min(counts)
    return f"image {index}: {counts[index]}" + (", ..." if len(counts) > 1 else "")


def _is_of_imgaug(augmenter: Any) -> bool:
    return hasattr(augmenter, "to_deterministic")


def _batches(
    source: DatasetSource, config: Config, transforms: list[Any], epoch: int, step: int
) -> tf.data.Dataset:
    height, width = (int(side) for side in config.IMAGE_SHAPE[:2])
    options = Options(
        image_size=(height, width),
        batch_size=config.BATCH_SIZE,
        augment=[molding_of(config), *transforms],
        first_epoch=epoch,
        first_step=step,
        drop_remainder=False,  # the last batch is filled up
        max_instances=config.MAX_GT_INSTANCES,
        mask_size=mask_cells(config),
    )
    return make_dataset(source, options)
