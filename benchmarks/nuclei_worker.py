"""kvision's Mask R-CNN on the batches of `benchmarks.nuclei`, as a process.

Run by `python -m benchmarks.nuclei`; prints one JSON object.
"""

import argparse
import json
import time

import keras
import numpy as np
import tensorflow as tf

import kvision as kv
from benchmarks.memory import peak_megabytes, resident_megabytes


def build(weights: str, dtype: str, positive_fraction: float) -> keras.Model:
    """Build the detector of the comparison."""
    return kv.models.mask_rcnn(
        "mobilenet_v2",
        class_names=["nucleus"],
        image_size=(256, 256),
        weights=weights,
        frozen_stages=0,
        anchor_sizes=(8, 16, 32, 64, 128),
        box_positive_fraction=positive_fraction,
        dtype=dtype,
    )


def batches_of(path: str) -> tf.data.Dataset:
    """Read the stored batches without end."""
    stored = np.load(path)
    labels = np.where(
        np.arange(stored["boxes"].shape[2]) < stored["counts"][..., None], 0, -1
    )
    targets = {
        "gt_boxes": stored["boxes"],
        "gt_labels": labels.astype("int32"),
        "gt_masks": stored["crops"],
    }
    return tf.data.Dataset.from_tensor_slices((stored["images"], targets)).repeat()


def positives_per_image(model: keras.Model, dataset: tf.data.Dataset) -> float:
    """Count the positive regions that are sampled: the mask head's work."""
    parts = model._compute_losses
    counts = []
    for images, targets in dataset.take(3):
        maps = parts.features(images)
        proposals = parts.proposals(*parts.rpn(maps), parts.anchors(maps))
        sample = parts.roi_targets(
            *proposals, targets["gt_boxes"], targets["gt_labels"], tf.constant(0)
        )
        counts.append(float(tf.reduce_sum(sample["box_weights"])) / images.shape[0])
    return float(np.mean(counts))


class StepTimes(keras.callbacks.Callback):
    """Note the time at the end of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Note the time; reading the loss waits for the step."""
        float(logs["loss"])
        self.ends.append(time.perf_counter())


def main() -> None:
    """Train for some steps with `fit` and print what they cost."""
    parser = argparse.ArgumentParser()
    parser.add_argument("batches")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--positive-fraction", type=float, default=0.25)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    half = arguments.precision == "bfloat16"
    dataset = batches_of(arguments.batches)
    number = int(dataset.element_spec[0].shape[0])
    base = resident_megabytes()
    dtype = "mixed_bfloat16" if half else "float32"
    model = build(arguments.weights, dtype, arguments.positive_fraction)
    model.compile(keras.optimizers.SGD(0.005, momentum=0.9, global_clipnorm=10.0))
    times = StepTimes()
    start = time.perf_counter()
    history = model.fit(
        dataset,
        steps_per_epoch=arguments.warmup + arguments.steps,
        callbacks=[times],
        verbose=0,
        shuffle=False,
    )
    seconds = times.ends[-1] - times.ends[arguments.warmup - 1]
    print(
        json.dumps(
            {
                "images_per_second": number * arguments.steps / seconds,
                "first_step_seconds": times.ends[0] - start,
                "positives": positives_per_image(model, dataset),
                "loss": history.history["loss"][-1],
                "peak_megabytes": peak_megabytes() - base,
                "version": f"kvision {kv.__version__}, TensorFlow {tf.__version__}, "
                f"Keras {keras.__version__}",
            }
        )
    )


if __name__ == "__main__":
    main()
