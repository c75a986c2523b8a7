"""Record what tensorflow-addons 0.23 (TF 2.15.1, Keras 2.15) computes.

It cannot be imported beside Keras 3; run this in an environment of its own:

    python3.11 -m venv classic
    classic/bin/pip install tensorflow-cpu==2.15.1 tensorflow-addons==0.23.0 "numpy<2"
    classic/bin/python tests/parity/record_tensorflow_addons.py

Writes tests/golden/tensorflow_addons.npz. Random numbers are drawn in the order of
`main`, so a new section belongs at its end.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

GOLDEN = Path(__file__).parents[1] / "golden" / "tensorflow_addons.npz"


def normal(rng, shape, scale=1.0):
    return rng.normal(0, scale, shape).astype("float32")


def focal(rng):
    """A loss an example: the sum over the last axis."""
    targets = rng.integers(0, 2, (16, 5)).astype("float32")
    logits = normal(rng, (16, 5), 3)
    loss = tfa.losses.SigmoidFocalCrossEntropy(
        from_logits=True, alpha=0.25, gamma=2.0, reduction="none"
    )
    return {"targets": targets, "logits": logits, "loss": loss(targets, logits)}


def boxes(rng, count):
    """Boxes (ymin, xmin, ymax, xmax)."""
    low = rng.uniform(0, 50, (count, 2))
    high = low + rng.uniform(1, 50, (count, 2))
    return np.concatenate([low, high], 1).astype("float32")


def giou(rng):
    true, pred = boxes(rng, 32), boxes(rng, 32)
    arrays = {"true": true, "pred": pred}
    for mode in ("giou", "iou"):
        arrays[mode] = tfa.losses.GIoULoss(mode=mode, reduction="none")(true, pred)
    return arrays


def optimizers():
    sgd = tf.keras.optimizers.legacy.SGD(1e-1)
    return {
        "lamb": tfa.optimizers.LAMB(
            learning_rate=1e-2, weight_decay=0.01, exclude_from_weight_decay=["bias"]
        ),
        "adamw": tfa.optimizers.AdamW(learning_rate=1e-2, weight_decay=1e-3),
        "radam": tfa.optimizers.RectifiedAdam(learning_rate=1e-2),
        "moving_average": tfa.optimizers.MovingAverage(sgd, average_decay=0.9),
    }


def five_steps(rng):
    """Each optimizer on the same gradients."""
    kernel, bias = normal(rng, (7, 3)), normal(rng, (3,))
    grads = [(normal(rng, (7, 3)), normal(rng, (3,))) for _ in range(5)]
    arrays = {
        "kernel": kernel,
        "bias": bias,
        "kernel_grads": np.stack([pair[0] for pair in grads]),
        "bias_grads": np.stack([pair[1] for pair in grads]),
    }
    for name, optimizer in optimizers().items():
        k, b = tf.Variable(kernel, name="kernel"), tf.Variable(bias, name="bias")
        for of_kernel, of_bias in grads:
            optimizer.apply_gradients([(of_kernel, k), (of_bias, b)])
        arrays |= {f"{name}/kernel": k, f"{name}/bias": b}
        if name == "moving_average":
            # The variables are read when the file is written: these two are the
            # averages as well, under both names.
            optimizer.assign_average_vars([k, b])
            arrays |= {f"{name}/averaged_kernel": k, f"{name}/averaged_bias": b}
    return arrays


def stochastic_depth(rng):
    """At inference: shortcut + survival_probability * residual."""
    shortcut, residual = normal(rng, (4, 6)), normal(rng, (4, 6))
    layer = tfa.layers.StochasticDepth(0.8)
    return {
        "shortcut": shortcut,
        "residual": residual,
        "inference_survival_0.8": layer([shortcut, residual], training=False),
    }


def multi_optimizer(rng):
    """Layer 0 at 1e-2, layer 1 at 1e-1: two steps of SGD on a mean squared error."""
    x, y = normal(rng, (8, 4)), normal(rng, (8, 1))
    w0, w1 = normal(rng, (4, 3)), normal(rng, (3, 1))
    first = tf.keras.layers.Dense(3, use_bias=False, input_shape=(4,))
    second = tf.keras.layers.Dense(1, use_bias=False)
    model = tf.keras.Sequential([first, second])
    model.set_weights([w0, w1])
    sgd = tf.keras.optimizers.SGD
    pairs = [(sgd(1e-2), first), (sgd(1e-1), second)]
    model.compile(tfa.optimizers.MultiOptimizer(pairs), "mse")
    for _ in range(2):
        model.train_on_batch(x, y)
    after = model.get_weights()
    return {
        "x": x,
        "y": y,
        "w0": w0,
        "w1": w1,
        "w0_after": after[0],
        "w1_after": after[1],
    }


def main():
    rng = np.random.default_rng(0)
    sections = {
        "focal": focal(rng),
        "giou": giou(rng),
        "opt": five_steps(rng),
        "stochastic_depth": stochastic_depth(rng),
        "multi_optimizer": multi_optimizer(rng),
    }
    arrays = {
        f"{section}/{name}": np.asarray(value)
        for section, values in sections.items()
        for name, value in values.items()
    }
    np.savez(GOLDEN, **arrays)
    print(GOLDEN.name, len(arrays), "arrays")


if __name__ == "__main__":
    main()
