"""COCO photos as batches of 640 px, or their decoding and resizing alone."""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

import kvision as kv
from benchmarks.turns import take_turns

_SIZE = (640, 640)
_BATCHES = 8


def pipeline(arguments: argparse.Namespace) -> Iterator:
    """Iterate over batches that are mirrored and scaled at random, with targets."""
    transforms = [
        kv.data.transforms.HorizontalFlip(),
        kv.data.transforms.LargeScaleJitter(0.5, 1.5),
    ]
    if arguments.colour:
        transforms.append(kv.data.transforms.Photometric())
    return iter(
        kv.data.coco(
            arguments.annotations,
            arguments.images,
            image_size=_SIZE,
            batch_size=arguments.batch,
            augment=transforms,
            first_epoch=0,
        )
    )


def decoding(arguments: argparse.Namespace) -> Iterator:
    """Iterate over batches that TensorFlow decodes, scales at random and pads."""
    content = json.loads(Path(arguments.annotations).read_text())
    paths = [str(Path(arguments.images, i["file_name"])) for i in content["images"]]

    def load(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        scale = tf.reduce_min(_SIZE / size) * tf.random.uniform([], 0.5, 1.5)
        # What of the photo is seen, and the size at which it is.
        part = tf.cast(tf.minimum(size, _SIZE / scale), tf.int32)
        seen = tf.cast(tf.cast(part, tf.float32) * scale, tf.int32)
        image = tf.cond(
            scale < 1.0,
            lambda: tf.image.resize(image[: part[0], : part[1]], seen, antialias=True),
            lambda: tf.image.resize(image[: part[0], : part[1]], seen),
        )
        rest = _SIZE - seen
        image = tf.cast(tf.round(image), tf.uint8)
        return tf.pad(image, [[0, rest[0]], [0, rest[1]], [0, 0]])

    dataset = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths)).repeat()
    dataset = dataset.map(load, tf.data.AUTOTUNE)
    return iter(dataset.batch(arguments.batch).prefetch(tf.data.AUTOTUNE))


def prepare(arguments: argparse.Namespace) -> Callable[[], object]:
    """Return a function that takes eight batches."""
    batches = (decoding if arguments.decoding else pipeline)(arguments)
    return lambda: [next(batches) for _ in range(_BATCHES)]


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("annotations")
    parser.add_argument("images")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--colour", action="store_true")
    parser.add_argument("--decoding", action="store_true")
    arguments = parser.parse_args()
    take_turns(lambda: prepare(arguments), "tensorflow", "keras")


if __name__ == "__main__":
    main()
