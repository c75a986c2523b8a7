"""Data sets of tensorflow-datasets for classifiers (extra "tfds")."""

import importlib
import os
from typing import Any

import numpy as np
import tensorflow as tf

from kvision.data.labelled import LabelledOptions, make_labelled_dataset

__all__ = ["tfds"]


def tfds(
    name: str,
    split: str,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    image_key: str = "image",
    label_key: str = "label",
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    **options: Any,
) -> tf.data.Dataset:
    """Make a dataset of a data set of tensorflow-datasets.

    It is read by number (`tfds.data_source`, which needs the package array-record), so
    that order and augmentation follow from the seed as everywhere in kvision.

    Args:
        name: such as "oxford_flowers102", as `tfds.load` takes it.
        split: such as "train", "test" or "train[:90%]".
        image_size: (height, width) of the model's input in pixels.
        batch_size: images in a batch.
        image_key: feature that holds the image.
        label_key: feature that holds the class.
        data_dir: where data sets are kept; tensorflow-datasets' own choice if None.
        download: whether a missing data set is downloaded.
        **options: resize, crop_fraction, interpolation, augment, label_smoothing,
            repeats, shuffle, seed, first_epoch, first_step, drop_remainder,
            num_shards, shard_index and cache, as of `kvision.data.folders`.

    Returns:
        Dataset of (images, labels) as `kvision.data.folders` makes it.

    Raises:
        ImportError: tensorflow-datasets or array-record is not installed.
        ValueError: the data set has no such features.
    """
    arguments = LabelledOptions(image_size=image_size, batch_size=batch_size, **options)
    library = _library()
    found = {"split": split, "data_dir": data_dir, "download": download}
    images = library.data_source(name, **found)
    features = images.dataset_info.features
    for key in (image_key, label_key):
        if key not in features:
            raise ValueError(
                f"{name} has no feature {key!r}, it has {sorted(features)}. Name them "
                "by image_key= and label_key=."
            )
    if not hasattr(features[label_key], "names"):
        raise ValueError(
            f"{name}: feature {label_key!r} is no class, but {features[label_key]}. "
            "Name one by label_key=."
        )
    # A second view of the same records, in which images stay as they are on disk.
    skip = {image_key: library.decode.SkipDecoding()}
    records = library.data_source(name, decoders=skip, **found)
    labels = np.array([int(records[i][label_key]) for i in range(len(records))])
    source = _RecordSource(name, images, image_key, features, label_key, labels)
    return make_labelled_dataset(source, arguments)


class _RecordSource:
    """Records of tensorflow-datasets, by number."""

    def __init__(
        self,
        name: str,
        records: Any,
        image_key: str,
        features: Any,
        label_key: str,
        labels: np.ndarray,
    ) -> None:
        self.title = f"{name}-{records.split}"
        self.records = records
        self.image_key = image_key
        self.class_names: list[str] = list(features[label_key].names)
        self.labels = labels.astype(np.int32)
        self.names = [str(number) for number in range(len(labels))]
        self.channels = 3

    def load_image(self, index: int) -> np.ndarray:
        image = np.asarray(self.records[index][self.image_key])
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
            raise ValueError(
                f"{self.title}, image {index}: expected (height, width, 1 or 3) uint8. "
                f"Received: shape={image.shape}, dtype={image.dtype}"
            )
        return np.repeat(image, 3 // image.shape[-1], axis=-1)

    def fingerprint(self, index: int) -> str:
        letters = [c if c.isalnum() else "_" for c in f"{self.title}-{index}"]
        return "".join(letters)


def _library() -> Any:
    try:
        importlib.import_module("array_record")
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise ImportError(
            "kvision.data.tfds needs tensorflow-datasets and array-record: pip install "
            "'kvision[tfds]'"
        ) from error
