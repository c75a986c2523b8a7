"""What every layer of the package must be able to do, in one function."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tests.ops.modes import in_every_mode, to_numpy

# Arrays whose first dimension is this are batches: their symbolic form is (None, ...).
BATCH = 3

# Relative to the largest output. bfloat16 has 8 bits of mantissa, float16 has 11; a
# few layers in a row add up their roundings.
HALF_TOLERANCES = {"mixed_bfloat16": 4e-2, "mixed_float16": 6e-3}


def check_layer(
    layer_class: type[keras.layers.Layer],
    arguments: dict[str, Any],
    inputs: tuple[Any, ...],
    *,
    folder: Path,
    always_float32: bool = False,
    gradients_to: tuple[int, ...] = (),
    no_gradients_to: tuple[int, ...] = (),
    tolerance: float = 1e-5,
    comparable: Callable[[Any], Any] = lambda outputs: outputs,
) -> keras.layers.Layer:
    """Check one layer in every way that does not need to know what it computes.

    Args:
        layer_class: the layer.
        arguments: a value for every argument of the constructor, none its default.
        inputs: positional inputs of the call: numpy arrays or dicts of them.
        folder: where to save a model.
        always_float32: whether the layer computes in float32 under any policy.
        gradients_to: positions of inputs that must receive a gradient.
        no_gradients_to: positions of inputs that must not receive one.
        tolerance: between eager mode, graph and XLA, relative to the largest output.
        comparable: brings outputs to a form in which runs can be compared.

    Returns:
        The built float32 layer.
    """
    _check_arguments(layer_class, arguments)
    layer = layer_class(**arguments)
    outputs = to_numpy(layer(*inputs))
    assert layer.built
    _check_config(layer, arguments)
    _check_symbolic(layer, inputs, outputs)
    _check_modes(layer, inputs, tolerance, comparable)
    _check_gradients(layer, inputs, gradients_to, no_gradients_to)
    for policy, half_tolerance in HALF_TOLERANCES.items():
        half = _with_policy(layer, arguments, inputs, policy)
        assert half.compute_dtype == ("float32" if always_float32 else policy[6:])
        assert all(w.dtype == "float32" for w in half.weights if "float" in w.dtype)
        half_outputs = to_numpy(half(*inputs))
        _check_symbolic(half, inputs, half_outputs)
        # Nothing is rounded in a layer that stays in float32.
        limit = 0.0 if always_float32 else half_tolerance
        assert_close(comparable(half_outputs), comparable(outputs), limit, policy)
        if always_float32:
            _check_half_inputs(half, inputs, policy[6:])
        _check_bias_gradients(half, inputs)
    _check_saved(layer, inputs, outputs, comparable, folder / "model.keras")
    return layer


def assert_close(got: Any, expected: Any, tolerance: float, message: str) -> None:
    """Compare nested arrays; floats within `tolerance` of the largest expected one."""
    pairs = zip(keras.tree.flatten(got), keras.tree.flatten(expected), strict=True)
    for a, b in pairs:
        a, b = np.asarray(a), np.asarray(b)
        if b.dtype.kind in "biu":
            np.testing.assert_array_equal(a, b, err_msg=message)
            continue
        a, b = a.astype(np.float32), b.astype(np.float32)
        assert np.isfinite(a).all(), f"not finite: {message}"
        limit = tolerance * max(np.abs(b).max(initial=0.0), 1e-6)
        np.testing.assert_allclose(a, b, rtol=0, atol=limit, err_msg=message)


def _plain(value: Any) -> Any:
    """Bring a value to the form in which JSON gives it back."""
    return json.loads(json.dumps(value, default=keras.saving.serialize_keras_object))


def constructor_arguments(layer_class: type) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(layer_class.__init__).parameters)
    return {
        name: parameter
        for name, parameter in parameters.items()
        if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
    }


def _check_arguments(layer_class: type, arguments: dict[str, Any]) -> None:
    parameters = constructor_arguments(layer_class)
    assert set(arguments) == set(parameters), "every argument must be given"
    for name, parameter in parameters.items():
        default = parameter.default
        if default is not parameter.empty:
            assert _plain(arguments[name]) != _plain(default), f"{name} is its default"


def _check_config(layer: keras.layers.Layer, arguments: dict[str, Any]) -> None:
    config = layer.get_config()
    for name, value in arguments.items():
        # Against what was given, not only against itself: a wrong value that is saved
        # and restored faithfully is still wrong.
        assert _plain(config[name]) == _plain(value), f"get_config()[{name!r}]"
        assert _plain(getattr(layer, name)) == _plain(value), f"attribute {name!r}"
    serialised = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    name = f"kvision>{type(layer).__name__}"
    assert serialised["registered_name"] == name, "not registered"
    for copy in (
        type(layer).from_config(config),
        type(layer).from_config(_plain(config)),
        keras.saving.deserialize_keras_object(serialised),
    ):
        assert type(copy) is type(layer)
        assert _plain(copy.get_config()) == _plain(config)
    renamed = type(layer)(**arguments, name="another_name", trainable=False)
    assert renamed.name == "another_name"
    assert not renamed.trainable
    copy = type(layer).from_config(renamed.get_config())
    assert (copy.name, copy.trainable) == ("another_name", False), "trainable is lost"


def _symbolic(inputs: tuple[Any, ...]) -> list[Any]:
    def make(array: np.ndarray) -> Any:
        batched = array.ndim > 0 and array.shape[0] == BATCH
        shape = (None, *array.shape[1:]) if batched else array.shape
        return keras.Input(batch_shape=shape, dtype=array.dtype.name)

    return keras.tree.map_structure(make, list(inputs))


def _check_symbolic(
    layer: keras.layers.Layer, inputs: tuple[Any, ...], outputs: Any
) -> None:
    symbolic = layer(*_symbolic(inputs))
    keras.tree.assert_same_structure(symbolic, outputs)
    pairs = zip(keras.tree.flatten(symbolic), keras.tree.flatten(outputs), strict=True)
    for promised, output in pairs:
        message = f"promised dtype {promised.dtype}, got {output.dtype}"
        assert promised.dtype == output.dtype.name, message
        message = f"promised shape {promised.shape}, got {output.shape}"
        assert len(promised.shape) == output.ndim, message
        for expected, size in zip(promised.shape, output.shape, strict=True):
            assert expected in (None, size), message


def _check_modes(
    layer: keras.layers.Layer,
    inputs: tuple[Any, ...],
    tolerance: float,
    comparable: Callable[[Any], Any],
) -> None:
    results = in_every_mode(layer, *inputs)
    for mode in ("graph", "xla"):
        expected, got = comparable(results["eager"]), comparable(results[mode])
        assert_close(got, expected, tolerance, f"{mode} against eager")


def _check_gradients(
    layer: keras.layers.Layer,
    inputs: tuple[Any, ...],
    gradients_to: tuple[int, ...],
    no_gradients_to: tuple[int, ...],
) -> None:
    """Every trainable weight must move a random sum of the outputs."""
    inputs = keras.tree.map_structure(tf.convert_to_tensor, inputs)
    rng = np.random.default_rng(0)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = keras.tree.flatten(layer(*inputs))
        total = sum(
            tf.reduce_sum(tf.cast(output, "float32") * rng.normal(size=output.shape))
            for output in outputs
            if output.dtype.is_floating
        )
    weights = {w.path: w.value for w in layer.trainable_variables}
    of_weights, of_inputs = tape.gradient(total, (weights, inputs))
    for path, gradient in of_weights.items():
        assert _moves(gradient), f"no gradient reaches {path}"
    for position in gradients_to:
        assert all(map(_moves, keras.tree.flatten(of_inputs[position])))
    for position in no_gradients_to:
        assert not any(map(_moves, keras.tree.flatten(of_inputs[position])))


def _check_bias_gradients(layer: keras.layers.Layer, inputs: tuple[Any, ...]) -> None:
    """TensorFlow adds up gradients of biases in bfloat16, except in convolutions."""
    sublayers = list(layer._flatten_layers())
    if not any(isinstance(one, keras.layers.Dense) for one in sublayers):
        return
    convolutions = [one for one in sublayers if hasattr(one, "kernel_size")]
    arguments = {"training": True} if layer._call_has_training_arg else {}

    @tf.function
    def gradients() -> Any:
        with tf.GradientTape() as tape:
            outputs = keras.tree.flatten(layer(*inputs, **arguments))
            total = sum(tf.reduce_sum(tf.cast(one, "float32")) for one in outputs)
        return tape.gradient(total, [w.value for w in layer.trainable_variables])

    graph = gradients.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    sums = [node.name for node in nodes if node.op == "BiasAddGrad"]
    assert len(sums) <= sum(one.use_bias for one in convolutions), sums


def _moves(gradient: Any) -> bool:
    """Tell whether there is a gradient other than 0; it must be finite."""
    if gradient is None:
        return False
    # Keras' optimizers square and clip the rows of a sparse gradient one by one.
    assert not isinstance(gradient, tf.IndexedSlices), "a sparse gradient"
    gradient = ops.convert_to_numpy(gradient)
    assert np.isfinite(gradient).all()
    return bool(np.any(gradient))


def _with_policy(
    layer: keras.layers.Layer,
    arguments: dict[str, Any],
    inputs: tuple[Any, ...],
    policy: str,
) -> keras.layers.Layer:
    config = {**layer.get_config(), **arguments}
    half = type(layer).from_config(_with_dtype(_plain(config), policy))
    half(*inputs)
    half.set_weights(layer.get_weights())
    return half


def _with_dtype(config: Any, policy: str) -> Any:
    """Change the policy of a layer and of the layers it holds."""
    if isinstance(config, list):
        return [_with_dtype(item, policy) for item in config]
    if not isinstance(config, dict):
        return config
    changed = {name: _with_dtype(value, policy) for name, value in config.items()}
    return {**changed, "dtype": policy} if "dtype" in config else changed


def _check_half_inputs(
    layer: keras.layers.Layer, inputs: tuple[Any, ...], dtype: str
) -> None:
    """Features of a half-precision model enter; what leaves must be float32."""

    def halve(array: np.ndarray) -> Any:
        return ops.cast(array, dtype) if array.dtype == np.float32 else array

    outputs = layer(*keras.tree.map_structure(halve, inputs))
    for output in keras.tree.flatten(outputs):
        assert not output.dtype.is_floating or output.dtype == "float32"
        assert np.isfinite(to_numpy(output)).all()


def _check_saved(
    layer: keras.layers.Layer,
    inputs: tuple[Any, ...],
    outputs: Any,
    comparable: Callable[[Any], Any],
    path: Path,
) -> None:
    """Save a Functional model around the layer and load it without custom objects."""
    symbolic = _symbolic(inputs)
    model = keras.Model(symbolic, layer(*symbolic))
    model.save(path)
    loaded = keras.models.load_model(path)
    weights = zip(model.get_weights(), loaded.get_weights(), strict=True)
    for before, after in weights:
        np.testing.assert_array_equal(before, after)
    got = to_numpy(loaded(list(inputs)))
    assert_close(comparable(got), comparable(outputs), 1e-5, "after loading")
