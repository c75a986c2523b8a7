"""Train on one and on two CPU replicas and print what came out, as json.

A program of its own: devices are divided before TensorFlow starts.
"""

import json
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.models.tiny import blocks, dataset, tiny_mask_rcnn


def split_cpu() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)


def trained(strategy: Any) -> dict[str, Any]:
    """Train two steps on a global batch of four whose halves are the same.

    Each replica then divides its losses by the same numbers of samples, and the samples
    are all there are: one replica and two must agree.
    """
    images, targets = blocks(2)
    twice = {name: np.concatenate([x, x]) for name, x in targets.items()}
    data = dataset(np.concatenate([images, images]), twice, batch_size=4)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = tiny_mask_rcnn(
            freeze_batch_norm=True,
            rpn_num_samples=4000,
            rpn_positive_fraction=1.0,
            box_num_samples=300,
            box_positive_fraction=1.0,
        )
        model.compile(keras.optimizers.SGD(0.05))
    before = [weight.numpy() for weight in model.trainable_weights]
    history = model.fit(data, validation_data=data, epochs=2, verbose=0).history
    moved = [
        float(np.abs(weight.numpy() - old).sum())
        for weight, old in zip(model.trainable_weights, before, strict=True)
    ]
    return {
        "replicas": strategy.num_replicas_in_sync,
        "history": history,
        "moved": moved,
    }


def error_of_a_last_batch_too_small(strategy: Any) -> str:
    with strategy.scope():
        model = tiny_mask_rcnn()
        model.compile()
    try:
        model.fit(dataset(*blocks(3), batch_size=2), verbose=0)
    except tf.errors.InvalidArgumentError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    split_cpu()
    both = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    results = {
        "one": trained(tf.distribute.get_strategy()),
        "two": trained(both),
        "error": error_of_a_last_batch_too_small(both),
    }
    json.dump(results, sys.stdout)
