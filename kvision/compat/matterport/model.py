"""`MaskRCNN`: matterport's class around a detector of `kvision.models`."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvision.compat.matterport import checkpoints, imagenet
from kvision.compat.matterport.arguments import (
    check_config,
    loss_weights,
    mask_rcnn_arguments,
)
from kvision.compat.matterport.config import Config
from kvision.compat.matterport.dataset import Dataset
from kvision.compat.matterport.ground_truth import load_image_gt, mold_image
from kvision.compat.matterport.instances import check_dataset
from kvision.compat.matterport.layer_names import select_layers, set_trainable
from kvision.compat.matterport.log import log
from kvision.compat.matterport.molding import mold, molding_of
from kvision.compat.matterport.results import unmold
from kvision.compat.matterport.training_data import (
    DatasetSource,
    training_batches,
    validation_batches,
)
from kvision.models import mask_rcnn, with_image_size
from kvision.weights.report import Report

__all__ = ["MaskRCNN", "load_image_gt", "log", "mold_image"]

Array = np.ndarray

_KEPT_SIZES = 4


class MaskRCNN:
    """A Mask R-CNN that trains and detects as matterport's did.

    Args:
        mode: "training" or "inference".
        config: the configuration.
        model_dir: folder for the folders of runs.

    Attributes:
        keras_model: the detector, a `keras.Model` as `kvision.models.mask_rcnn` returns
            it; its exports and callbacks are kvision's.
        epoch: epochs that are done.
        log_dir: folder of the run, made when training begins.
        checkpoint_path: of the files in it, with "{epoch:04d}".

    Raises:
        ValueError: for another mode, or a configuration that cannot be followed.
    """

    def __init__(self, mode: str, config: Config, model_dir: Any) -> None:
        if mode not in ("training", "inference"):
            raise ValueError(
                f'mode must be "training" or "inference". Received: mode={mode!r}'
            )
        arguments = mask_rcnn_arguments(config)
        if mode == "inference" and config.IMAGE_RESIZE_MODE == "crop":
            raise ValueError(
                f'{type(config).__name__}.IMAGE_RESIZE_MODE="crop" is for training: '
                'detections would be of a random part. Use "square" or "pad64".'
            )
        self.mode = mode
        self.config = config
        self.model_dir = str(model_dir)
        self.keras_model = mask_rcnn(**arguments, name="mask_rcnn")
        self._learnable = list(self.keras_model.trainable_variables)
        self._resized: dict[tuple[int, int], keras.Model] = {}
        self.set_log_dir()

    def set_log_dir(self, model_path: Any = None) -> None:
        """Choose the folder of the run, and which epoch comes next.

        Args:
            model_path: a file of a run, to go on there; others, and None, begin a new
                run.
        """
        name = str(self.config.NAME).lower()
        found = checkpoints.position_of(Path(model_path)) if model_path else None
        now = f"{name}{datetime.datetime.now():%Y%m%dT%H%M}"
        folder, self.epoch = found or (now, 0)
        self.log_dir = str(Path(self.model_dir) / folder)
        self.checkpoint_path = str(
            Path(self.log_dir) / f"mask_rcnn_{name}_{{epoch:04d}}.h5"
        )

    def find_last(self) -> str:
        """Find the weights after the last epoch of the last run.

        Returns:
            Path of the file.

        Raises:
            FileNotFoundError: there is none.
        """
        name = str(self.config.NAME).lower()
        return str(checkpoints.find_last(Path(self.model_dir), name))

    def get_imagenet_weights(self) -> str:
        """Download ImageNet weights of the backbone, those of `keras.applications`.

        Returns:
            Path of the file, for `load_weights(path, by_name=True)`.
        """
        return imagenet.download(self.config.BACKBONE)

    def load_weights(
        self, filepath: Any, by_name: bool = False, exclude: Sequence[str] | None = None
    ) -> Report:
        """Load weights; a file of a run makes training go on after its epoch.

        Args:
            filepath: see `kvision.compat.matterport.checkpoints.load`.
            by_name: whether the file may lack layers, which then stay as they are.
            exclude: names of layers that stay as they are; implies `by_name`.

        Returns:
            What was loaded and what was not.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it does not fit.
        """
        path = Path(filepath)
        by_name = by_name or bool(exclude)
        report = checkpoints.load(self.keras_model, path, by_name, exclude or ())
        log(
            f"{path.name} ({report.source}): {len(report.matched)} tensors loaded, "
            f"{len(report.unused)} not used, {len(report.fresh)} weights stay as they "
            "are" + (f" ({report.fresh[0]}, ...)" if report.fresh else "")
        )
        self.set_log_dir(path)
        return report

    def train(
        self,
        train_dataset: Dataset,
        val_dataset: Dataset,
        learning_rate: Any,
        epochs: int,
        layers: str,
        augmentation: Any = None,
        custom_callbacks: Sequence[keras.callbacks.Callback] | None = None,
        no_augmentation_sources: Sequence[str] | None = None,
    ) -> keras.callbacks.History | None:
        """Train some layers up to an epoch; weights are written after each.

        Args:
            train_dataset: images to learn from.
            val_dataset: images to validate on.
            learning_rate: a number, or a schedule of Keras.
            epochs: in all, those done before included.
            layers: "heads", "3+", "4+", "5+", "all", or a regular expression of
                matterport's names of layers.
            augmentation: None, or a list of transforms of `kvision.data`.
            custom_callbacks: of Keras.
            no_augmentation_sources: sources whose images are not augmented.

        Returns:
            The losses, as of `fit`; None if the epochs are done already.

        Raises:
            ValueError: the model is for inference, a data set or argument does not fit.
        """
        if self.mode != "training":
            raise ValueError('This model detects. Make one with mode="training".')
        config = self.config
        check_config(config)
        names = select_layers(self.keras_model, layers)
        for argument, dataset in (("train", train_dataset), ("val", val_dataset)):
            check_dataset(dataset, config.NUM_CLASSES, f"{argument}_dataset")
        if epochs <= self.epoch:
            log(f"Nothing to train: {self.epoch} epochs are done, {epochs=} in all.")
            return None
        if {info["source"] for info in train_dataset.image_info} & {
            *(no_augmentation_sources or ())
        }:
            augmentation = None
        training = DatasetSource(train_dataset, config)
        validation = DatasetSource(val_dataset, config)
        first_batch = self.epoch * config.STEPS_PER_EPOCH
        batches = training_batches(training, config, augmentation, first_batch)
        self._compile(names, learning_rate)
        log(f"Epoch {self.epoch + 1} to {epochs}, {learning_rate=}, {layers=}")
        log(f"Weights: {self.checkpoint_path}")
        Path(self.log_dir).mkdir(parents=True, exist_ok=True)
        try:
            history = self.keras_model.fit(
                batches,
                initial_epoch=self.epoch,
                epochs=epochs,
                steps_per_epoch=config.STEPS_PER_EPOCH,
                validation_data=validation_batches(validation, config),
                shuffle=False,  # the batches are
                callbacks=[
                    keras.callbacks.CSVLogger(f"{self.log_dir}/log.csv", append=True),
                    checkpoints.WriteCheckpoints(self.checkpoint_path),
                    *(custom_callbacks or ()),
                ],
            )
        except tf.errors.OpError:
            fault = training.fault or validation.fault
            if fault is None:
                raise
            raise fault from None
        finally:
            training.tell()
        self.epoch = epochs
        return history

    def detect(self, images: Sequence[Array], verbose: int = 0) -> list[dict[str, Any]]:
        """Find objects.

        Args:
            images: BATCH_SIZE arrays (H, W, 3) of values in 0-255, of any sizes that
                IMAGE_RESIZE_MODE brings to one.
            verbose: 1 prints what is detected on.

        Returns:
            For each image a dict of `rois` (N, 4) int32, (y1, x1, y2, x2) in its
            pixels; `class_ids` (N,) int32 from 1; `scores` (N,) float32, best first;
            `masks` (H, W, N) bool.

        Raises:
            ValueError: the model is for training, or the images do not fit.
        """
        if self.mode != "inference":
            raise ValueError('This model trains. Make one with mode="inference".')
        if len(images) != self.config.BATCH_SIZE:
            raise ValueError(
                f"detect takes a list of BATCH_SIZE = IMAGES_PER_GPU * GPU_COUNT = "
                f"{self.config.BATCH_SIZE} images. Received: {len(images)}"
            )
        molding = molding_of(self.config)
        pixels = [_pixels(image, number) for number, image in enumerate(images)]
        molded = [mold(image, molding) for image in pixels]
        inputs = _stacked([one.image for one in molded])
        if verbose:
            log(f"Processing {len(images)} images")
            for image in images:
                log("image", image)
            log("molded_images", inputs)
        outputs = self._model_for(inputs.shape[1:3]).predict_on_batch(inputs)
        outputs = {name: np.asarray(value) for name, value in outputs.items()}
        return [
            unmold(outputs, row, molded[row], image.shape[:2])
            for row, image in enumerate(pixels)
        ]

    def _compile(self, names: set[str], learning_rate: Any) -> None:
        """Choose what learns, with matterport's optimizer."""
        model, config = self.keras_model, self.config
        set_trainable(model, self._learnable, names)
        for variable in self._learnable:
            is_norm = variable.name in ("gamma", "beta")
            variable.regularizer = None if is_norm else _decay(config.WEIGHT_DECAY)
        model.compile(
            keras.optimizers.SGD(
                learning_rate,
                momentum=config.LEARNING_MOMENTUM,
                global_clipnorm=config.GRADIENT_CLIP_NORM or None,
            ),
            loss_weights=loss_weights(config),
        )

    def _model_for(self, size: tuple[int, int]) -> keras.Model:
        """Return the model for images of a size, with the weights of `keras_model`."""
        if size == self.keras_model.image_size:
            return self.keras_model
        if size not in self._resized:
            if len(self._resized) == _KEPT_SIZES:
                self._resized.pop(next(iter(self._resized)))
            self._resized[size] = with_image_size(self.keras_model, size)
        model = self._resized[size]
        model.set_weights(self.keras_model.get_weights())
        return model


def _decay(factor: float) -> Any:
    """Return matterport's penalty: divided by the size of the weight, next to none."""
    return lambda weight: factor * keras.ops.mean(keras.ops.square(weight))


def _pixels(image: Any, number: int) -> Array:
    image = np.asarray(image)
    is_number = image.dtype.kind in "uif" and image.size
    if image.ndim != 3 or image.shape[2] != 3 or not is_number:
        raise ValueError(
            "images must be (height, width, 3) arrays. Received: image "
            f"{number} of shape {image.shape} and {image.dtype}"
        )
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 255):  # also where a value is not a number
        raise ValueError(
            f"images must have values in 0-255. Received: image {number} from {low} to "
            f"{high}. detect subtracts MEAN_PIXEL itself: give it no mold_image(image)."
        )
    return np.rint(image).astype(np.uint8)


def _stacked(images: list[Array]) -> Array:
    sizes = [image.shape[:2] for image in images]
    if len(set(sizes)) > 1:
        raise ValueError(
            "The images of a batch must come to one size. Received: "
            f'{sizes}. Use IMAGE_RESIZE_MODE = "square", or batches of one image.'
        )
    if any(side % 64 for side in sizes[0]):
        raise ValueError(
            "Images must come to multiples of 64 pixels. Received: (height, width) = "
            f'{sizes[0]}. Use IMAGE_RESIZE_MODE = "pad64" or "square".'
        )
    return np.stack(images)
