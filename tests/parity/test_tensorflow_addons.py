"""What took the place of tensorflow-addons, against its own recorded numbers.

Equal is 1e-5 of the largest value. Where the place of today computes something else,
the difference that docs/from_tensorflow_addons.md states is asserted.
"""

import re
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvision as kv
from kvision.layers import DropPath
from kvision.ops import boxes as box_ops
from kvision.ops import losses
from kvision.train.averaging import averaged_weights
from kvision.train.optimizers import LayerwiseSGD, make_optimizer
from kvision.train.schedules import WarmupSteps
from tests.ops.modes import to_numpy
from tests.parity.compare import GOLDEN, assert_equal, difference, section

PAGE = Path(__file__).parents[2] / "docs" / "from_tensorflow_addons.md"
TOLERANCE = 1e-5
Arrays = dict[str, np.ndarray]


def recorded(name: str) -> Arrays:
    with np.load(GOLDEN / "tensorflow_addons.npz") as file:
        return section(dict(file), name)


def focal_loss(**settings: Any) -> keras.losses.Loss:
    return keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=True, from_logits=True, **settings
    )


def test_focal_loss_is_averaged_over_the_classes() -> None:
    """That of tensorflow-addons is summed."""
    r = recorded("focal")
    num_classes = r["logits"].shape[-1]
    ours = to_numpy(focal_loss(reduction=None)(r["targets"], r["logits"]))
    assert_equal(num_classes * ours, r["loss"], "focal loss", TOLERANCE)


def test_focal_loss_has_a_gradient_where_scores_saturate() -> None:
    """Keras takes the logits from before its sigmoid, as tensorflow-addons does."""
    logits, targets = tf.Variable([[30.0]]), tf.constant([[0.0]])
    with tf.GradientTape() as tape:
        loss = focal_loss()(targets, logits)
    assert float(loss) == pytest.approx(0.75 * 30)
    assert float(tape.gradient(loss, logits)[0, 0]) == pytest.approx(0.75)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [1, 0, 3, 2]], ids=["yxyx", "xyxy"])
def test_giou_and_iou_losses(order: list[int]) -> None:
    r = recorded("giou")
    true, pred = r["true"][:, order], r["pred"][:, order]
    assert r["giou"].max() > 1 > r["giou"].min()
    ours = to_numpy(losses.giou(pred, true))
    assert_equal(ours, r["giou"], "1 - GIoU", TOLERANCE)
    overlaps = np.diag(to_numpy(box_ops.iou(pred, true)))
    assert_equal(1 - overlaps, r["iou"], "1 - IoU", TOLERANCE)


def weights() -> list[keras.Variable]:
    """A layer's kernel and bias, with paths like a model's."""
    r = recorded("opt")
    with keras.name_scope("head"):
        return [keras.Variable(r[name], name=name) for name in ("kernel", "bias")]


def steps(optimizer: Any, variables: list[keras.Variable], count: int = 5) -> None:
    r = recorded("opt")
    for pair in list(zip(r["kernel_grads"], r["bias_grads"], strict=True))[:count]:
        optimizer.apply([tf.constant(g) for g in pair], variables)


def trained(make: Callable[[list[keras.Variable]], Any]) -> tuple[Any, Any]:
    variables = weights()
    optimizer = make(variables)
    if not optimizer.built:
        optimizer.build(variables)
    steps(optimizer, variables)
    kernel, bias = variables
    return to_numpy(kernel), to_numpy(bias)


def test_lamb() -> None:
    r = section(recorded("opt"), "lamb")
    kernel, bias = trained(lambda v: make_optimizer("lamb", 1e-2, v, weight_decay=0.01))
    assert_equal(kernel, r["kernel"], "kernel", TOLERANCE)
    assert_equal(bias, r["bias"], "bias", TOLERANCE)


def test_lamb_of_keras_is_another_algorithm() -> None:
    """It scales the steps of biases too."""
    r = section(recorded("opt"), "lamb")
    lamb = keras.optimizers.Lamb(1e-2, weight_decay=0.01, epsilon=1e-6)
    _, bias = trained(lambda v: lamb)
    assert difference(bias, r["bias"]) > 1e-3


def test_adamw_decays_by_the_learning_rate_times_its_weight_decay() -> None:
    """tensorflow-addons subtracts `weight_decay * w` whatever the learning rate is."""
    r = section(recorded("opt"), "adamw")
    rate, decay = 1e-2, 1e-3
    adamw = keras.optimizers.AdamW
    kernel, bias = trained(lambda v: adamw(rate, weight_decay=decay / rate))
    assert_equal(kernel, r["kernel"], "kernel", TOLERANCE)
    assert_equal(bias, r["bias"], "bias", TOLERANCE)
    kernel, _ = trained(lambda v: adamw(rate, weight_decay=decay))
    assert difference(kernel, r["kernel"]) > 1e-3


def test_adamw_of_recipes_leaves_biases_alone() -> None:
    r = section(recorded("opt"), "adamw")
    kernel, bias = trained(lambda v: make_optimizer("adamw", 1e-2, v, weight_decay=0.1))
    assert_equal(kernel, r["kernel"], "kernel", TOLERANCE)
    assert difference(bias, r["bias"]) > 1e-3
    _, undecayed = trained(lambda v: keras.optimizers.Adam(1e-2))
    assert_equal(bias, undecayed, "bias", TOLERANCE)


def test_rectified_adam_begins_as_momentum_where_a_warm_up_begins_at_rest() -> None:
    r = recorded("opt")
    mean, expected = np.zeros((7, 3)), r["kernel"].astype("float64")
    for step, gradient in enumerate(r["kernel_grads"], start=1):
        mean = 0.9 * mean + 0.1 * gradient
        expected = expected - 1e-2 * mean / (1 - 0.9**step)
    assert_equal(expected, r["radam/kernel"], "momentum alone", TOLERANCE)

    warmup = WarmupSteps(1e-2, warmup_steps=2000)
    kernel, _ = trained(lambda v: make_optimizer("adamw", warmup, v))
    theirs = np.abs(r["radam/kernel"] - r["kernel"]).max()
    ours = np.abs(kernel - r["kernel"]).max()
    print(f"moved by {ours:.1e} against {theirs:.1e}")
    assert theirs > 1e-2
    assert 0 < ours < 5 * 1e-2 / 100


def test_moving_average_begins_after_the_first_step() -> None:
    """That of tensorflow-addons begins with the weights before it."""
    r = recorded("opt")
    inputs = keras.Input((7,))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(inputs))
    model.set_weights([r["kernel"], r["bias"]])
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer)
    optimizer.build(model.trainable_variables)
    steps(optimizer, model.trainable_variables)
    with averaged_weights(model):
        ours = model.get_weights()
    for value, name in zip(ours, ("kernel", "bias"), strict=True):
        # The weights before the first step, minus those after it.
        first_change = 0.1 * r[f"{name}_grads"][0]
        theirs = r[f"moving_average/averaged_{name}"]
        assert difference(value, theirs) > 1e-3
        assert_equal(value + 0.9**5 * first_change, theirs, name, TOLERANCE)


def test_stochastic_depth_scales_in_training_and_not_at_inference() -> None:
    """With 0.8 in the branch's last weights, both of its modes come out."""
    r = recorded("stochastic_depth")
    shortcut, residual = r["shortcut"], r["residual"]
    layer = DropPath(0.2, seed=0)
    inference = shortcut + to_numpy(layer(0.8 * residual, training=False))
    assert_equal(inference, r["inference_survival_0.8"], "inference, scaled", TOLERANCE)
    unscaled = shortcut + to_numpy(layer(residual, training=False))
    assert_equal(unscaled, shortcut + residual, "inference", TOLERANCE)

    rows = np.repeat(residual, 200, axis=0)
    branch = to_numpy(layer(0.8 * rows, training=True))
    is_kept = branch.any(1)
    assert_equal(branch[is_kept], rows[is_kept], "training, scaled", TOLERANCE)
    assert 0.75 < is_kept.mean() < 0.85


def test_learning_rates_by_layer() -> None:
    r = recorded("multi_optimizer")
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(3, use_bias=False, name="block_0")(inputs)
    outputs = keras.layers.Dense(1, use_bias=False, name="head")(hidden)
    model = keras.Model(inputs, outputs)
    model.set_weights([r["w0"], r["w1"]])
    model.compile(LayerwiseSGD(0.1, layer_decay=0.1), "mse", run_eagerly=True)
    for _ in range(2):
        model.train_on_batch(r["x"], r["y"])
    first, last = model.get_weights()
    assert_equal(first, r["w0_after"], "first layer, 1e-2", TOLERANCE)
    assert_equal(last, r["w1_after"], "last layer, 1e-1", TOLERANCE)


def test_names_on_the_page_exist() -> None:
    names = re.findall(r"`((?:keras|kv|tf)\.[\w.]+)", PAGE.read_text())
    assert len(names) > 20
    for name in names:
        first, *rest = name.rstrip(".").split(".")
        reduce(getattr, rest, {"keras": keras, "kv": kv, "tf": tf}[first])
