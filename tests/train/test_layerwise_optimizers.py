"""Learning rates by layer and LAMB: equal to PyTorch's, under all that Keras adds."""

import contextlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvision.train.averaging import averaged_weights
from kvision.train.layer_decay import rate_scales
from kvision.train.optimizers import LAMB, LayerwiseAdamW, make_optimizer

GOLDEN = Path(__file__).parents[1] / "golden" / "torch_optimizers.npz"
RATES = (0.01, 0.02, 0.015, 0.005)
DECAY, WEIGHT_DECAY = 0.6, 0.1

# timm's names -> ours; timm keeps kernels transposed, which is no matter here.
PATHS = {
    "pos_embed": "position_embedding/table",
    "patch_embed.proj.weight": "patch_embedding/kernel",
    "blocks.0.attn.qkv.weight": "block_0/attention/qkv/kernel",
    "blocks.0.attn.qkv.bias": "block_0/attention/qkv/bias",
    "blocks.1.norm1.weight": "block_1/norm1/gamma",
    "blocks.1.mlp.fc1.weight": "block_1/mlp/fc1/kernel",
    "norm.weight": "norm/gamma",
    "head.weight": "head/kernel",
    "head.bias": "head/bias",
}


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step: Any) -> Any:
        return keras.ops.take(keras.ops.array(RATES), keras.ops.cast(step, "int32"))


def variable(value: Any, path: str) -> keras.Variable:
    *layers, name = path.split("/")
    with contextlib.ExitStack() as scopes:
        for layer in layers:
            scopes.enter_context(keras.name_scope(layer))
        return keras.Variable(np.asarray(value, np.float32), name=name)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
@pytest.mark.parametrize("compiled", [False, True])
def test_steps_equal_those_of_torch(name: str, compiled: bool) -> None:
    golden = np.load(GOLDEN)
    weights = [variable(golden[f"{name}/0/{k}"], p) for k, p in PATHS.items()]
    assert [weight.path for weight in weights] == list(PATHS.values())
    optimizer = make_optimizer(
        name,
        Schedule(),
        weights,
        weight_decay=WEIGHT_DECAY,
        layer_decay=DECAY,
    )
    apply = lambda *gradients: optimizer.apply(list(gradients))  # noqa: E731
    if compiled:
        apply = tf.function(apply, jit_compile=True)
    for step in range(1, 5):
        apply(*[tf.constant(golden[f"gradients/{step}/{key}"]) for key in PATHS])
        for key, weight in zip(PATHS, weights, strict=True):
            np.testing.assert_allclose(
                weight.numpy(), golden[f"{name}/{step}/{key}"], atol=1e-6, err_msg=key
            )


def numpy_lamb(
    weight: Any, gradients: list[Any], rate: float, decay: float, ratio: bool = True
) -> Any:
    """Algorithm 2 of the paper in float64, with Adam's corrections of bias."""
    weight = np.asarray(weight, np.float64)
    mean = square = np.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        update = (mean / (1 - 0.9**step)) / (
            np.sqrt(square / (1 - 0.999**step)) + 1e-6
        ) + decay * weight
        trust = np.linalg.norm(weight) / np.linalg.norm(update) if ratio else 1.0
        weight = weight - rate * trust * update
    return weight


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_lamb_equals_numpy(decay: float) -> None:
    rng = np.random.default_rng(0)
    start = {"head/kernel": rng.normal(size=(3, 4)), "head/bias": rng.normal(size=4)}
    weights = [variable(value, path) for path, value in start.items()]
    optimizer = make_optimizer("lamb", 0.1, weights, weight_decay=decay)
    gradients = [[rng.normal(size=w.shape) for w in weights] for _ in range(5)]
    for step in gradients:
        optimizer.apply([tf.constant(g, tf.float32) for g in step])
    kernels, biases = zip(*gradients, strict=True)
    kernel = numpy_lamb(start["head/kernel"], kernels, 0.1, decay)
    bias = numpy_lamb(start["head/bias"], biases, 0.1, 0.0, ratio=False)
    np.testing.assert_allclose(weights[0].numpy(), kernel, rtol=2e-5)
    np.testing.assert_allclose(weights[1].numpy(), bias, rtol=2e-5)


def test_where_keras_lamb_differs() -> None:
    # Without weight decay, on a kernel, the two are equal.
    rng = np.random.default_rng(1)
    start, gradient = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    stock, ours = (variable(start, "head/kernel") for _ in range(2))
    optimizers = [
        keras.optimizers.Lamb(0.1, epsilon=1e-6),
        make_optimizer("lamb", 0.1, [ours]),
    ]
    for optimizer, weight in zip(optimizers, (stock, ours), strict=True):
        optimizer.build([weight])
        optimizer.apply([tf.constant(gradient, tf.float32)])
    expected = numpy_lamb(start, [gradient], 0.1, 0.0)
    np.testing.assert_allclose(stock.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-5)
    # With it, Keras decays beside the trust ratio.
    stock = variable(start, "head/kernel")
    optimizer = keras.optimizers.Lamb(0.1, epsilon=1e-6, weight_decay=0.3)
    optimizer.build([stock])
    optimizer.apply([tf.constant(gradient, tf.float32)])
    decayed = start * (1 - 0.1 * 0.3)
    np.testing.assert_allclose(
        stock.numpy(), numpy_lamb(decayed, [gradient], 0.1, 0.0), rtol=1e-5
    )
    # Weights of zero have no trust ratio.
    zeros = variable(np.zeros((3, 4)), "head/kernel")
    make_optimizer("lamb", 0.1, [zeros]).apply([tf.constant(gradient, tf.float32)])
    np.testing.assert_allclose(zeros.numpy(), -0.1 * np.sign(gradient), rtol=1e-3)


def test_one_step_of_sgd_and_adamw_by_hand() -> None:
    paths = ["patch_embedding/kernel", "block_0/mlp/kernel", "block_0/mlp/bias"]
    paths += ["head/kernel"]
    scales = [0.25, 0.5, 0.5, 1.0]
    decayed = [1, 1, 0, 1]
    for name in ("sgd", "adamw"):
        weights = [variable(np.full((2, 2), 2.0), path) for path in paths]
        optimizer = make_optimizer(
            name, 0.1, weights, momentum=0.9, weight_decay=0.2, layer_decay=0.5
        )
        optimizer.apply([tf.fill((2, 2), 3.0)] * 4)
        change = 3.0 if name == "sgd" else 1.0 / (1 + 1e-7 / 3)
        for weight, scale, decay in zip(weights, scales, decayed, strict=True):
            expected = 2.0 * (1 - 0.1 * scale * 0.2 * decay) - 0.1 * scale * change
            np.testing.assert_allclose(weight.numpy(), expected, atol=1e-6)


def transformer(dtype: str | None = None) -> keras.Model:
    """Something with an embedding, two blocks and a head."""
    x = inputs = keras.Input((4,))
    for name in ("patch_embedding", "block_0", "block_1"):
        x = keras.layers.Dense(4, "relu", name=name, dtype=dtype)(x)
    head = keras.layers.Dense(3, name="head", dtype="float32")
    return keras.Model(inputs, head(x))


def compiled(seed: int = 0, dtype: str | None = None, **settings: Any) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = transformer(dtype)
    arguments = {"weight_decay": 0.1, "layer_decay": 0.5, **settings}
    name = arguments.pop("name", "adamw")
    jit_compile = arguments.pop("jit_compile", False)
    optimizer = make_optimizer(name, 0.01, model.trainable_variables, **arguments)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit_compile)
    return model


def data(number: int = 32) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(number, 4)).astype("float32")
    return x, (x[:, 0] > 0).astype("int32") + (x[:, 1] > 1)


def fit(model: keras.Model, epochs: int = 1, batch_size: int = 8) -> keras.Model:
    model.fit(*data(), batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
    return model


def assert_same(ours: keras.Model, other: keras.Model, **tolerance: float) -> None:
    for a, b in zip(ours.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 0, "atol": 0, **tolerance})


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_a_saved_model_goes_on_as_if_it_had_not_been_saved(
    tmp_path: Path, name: str
) -> None:
    # Keras' own exclusions from weight decay are lost in a file.
    model = fit(compiled(name=name))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.optimizer.layer_decay == 0.5
    assert_same(fit(again), fit(model))


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_compiled_equals_not_compiled(name: str) -> None:
    pair = [fit(compiled(name=name, jit_compile=jit)) for jit in (False, True)]
    assert_same(*pair, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_accumulated_steps_equal_one_of_the_whole_batch(name: str) -> None:
    parts = compiled(name=name, accumulate=4, clipnorm=0.1)
    whole = compiled(name=name, clipnorm=0.1)
    # 8 steps of 8 are 2 changes, as 2 of 32 are: the mean of means of equal batches.
    assert_same(fit(parts, 2, 8), fit(whole, 2, 32), atol=2e-6)
    assert int(parts.optimizer.iterations) == int(whole.optimizer.iterations) == 2


def test_the_average_is_one_a_change_of_the_weights() -> None:
    parts, whole = compiled(accumulate=4, ema=0.5), compiled(ema=0.5)
    x, y = data()
    for _ in range(3):
        # Not with `fit`, which ends by putting the averages into the model.
        for part in range(4):
            rows = slice(8 * part, 8 * part + 8)
            parts.train_on_batch(x[rows], y[rows])
        whole.train_on_batch(x, y)
    last = [np.array(v) for v in parts.trainable_variables]
    # Keras averages at every step: three quarters of the last change are to come.
    share = 0.5**0.75
    with averaged_weights(parts), averaged_weights(whole):
        for own, expected, weight in zip(
            parts.get_weights(), whole.get_weights(), last, strict=True
        ):
            found = share * own + (1 - share) * weight
            np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_norm_of_all_gradients_is_clipped() -> None:
    weights = [variable(np.ones((1, 1)), p) for p in ("block_0/kernel", "head/kernel")]
    optimizer = make_optimizer(
        "sgd", 1.0, weights, momentum=0.0, layer_decay=0.5, clipnorm=1.0
    )
    optimizer.apply([tf.constant([[3.0]]), tf.constant([[4.0]])])
    # Clipped to (0.6, 0.8) before the rates 0.5 and 1.
    np.testing.assert_allclose([float(w.numpy()[0, 0]) for w in weights], [0.7, 0.2])


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(dtype: str) -> None:
    half, full = fit(compiled(dtype=dtype)), fit(compiled())
    assert half.trainable_variables[0].dtype == "float32"
    assert_same(half, full, atol=0.03)


REPLICAS = """
    import json, sys
    import numpy as np
    import tensorflow as tf
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    from tests.train.test_layerwise_optimizers import compiled, data
    for name in ("adamw", "lamb"):
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            two = compiled(name=name, ema=0.9)
        one = compiled(name=name, ema=0.9)
        for model in (one, two):
            dataset = tf.data.Dataset.from_tensor_slices(data()).batch(8)
            model.fit(dataset, epochs=2, verbose=0)
        pairs = zip(one.get_weights(), two.get_weights())
        print(json.dumps(max(float(np.abs(a - b).max()) for a, b in pairs)))
"""


@pytest.mark.slow
def test_two_replicas_equal_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(REPLICAS)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    differences = [json.loads(line) for line in done.stdout.split()]
    assert len(differences) == 2
    assert max(differences) < 1e-5


def test_config_round_trip() -> None:
    for kind in (LAMB, LayerwiseAdamW):
        optimizer = kind(0.1, layer_decay=0.7, weight_decay=0.2, global_clipnorm=1.0)
        config = keras.saving.serialize_keras_object(optimizer)
        again = keras.saving.deserialize_keras_object(config)
        assert type(again) is kind
        assert again.get_config() == optimizer.get_config()
        assert again.layer_decay == 0.7


def test_layers_that_are_not_there_are_named() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="only")])
    with pytest.raises(ValueError, match="this one has sequential"):
        make_optimizer("adamw", 0.1, model.trainable_variables, layer_decay=0.5)
    assert rate_scales(["block_0/a"], 1.0) == [1.0]
