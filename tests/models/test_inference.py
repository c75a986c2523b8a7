"""Models that only predict: equal to the ordinary ones, and made of fused kernels."""

import gc
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

import kvision
from kvision.models import for_inference
from kvision.models.inference import traced
from kvision.ops.rows import by_rows, normalize_rows
from tests.export.classifier import region_vit, small_vit
from tests.export.detector import small_detector, textured_images
from tests.models.tiny import tiny_backbone

SIZE = {"image_size": (32, 32), "num_classes": 5}

FAMILIES = {
    "vit": lambda: small_vit(),
    "deit": lambda: kvision.models.deit("Ti/16", distilled=True, **SIZE),
    "twins_svt": lambda: kvision.models.twins_svt("S", **SIZE),
    "twins_pcpvt": lambda: kvision.models.twins_pcpvt("S", **SIZE),
    "dynamic_vit": lambda: kvision.models.dynamic_vit("Ti/8", 0.7, **SIZE),
    "conv_vit": lambda: kvision.models.conv_vit("Ti/16", **SIZE),
}


def with_random_weights(model: keras.Model) -> keras.Model:
    """Give every weight a part that is not zero or one: nothing folds away."""
    rng = np.random.default_rng(2)
    for weight in model.weights:
        if "variance" not in weight.path and weight.dtype.startswith("float"):
            weight.assign_add(rng.normal(0, 0.02, weight.shape))
    return model


def images_of(model: keras.Model, number: int = 3) -> np.ndarray:
    shape = (number, *model.input_shape[1:])
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("family", FAMILIES)
def test_classifiers_predict_the_same(family: str) -> None:
    model = with_random_weights(FAMILIES[family]())
    images = images_of(model)
    expected = model.predict_on_batch(images)
    fast = for_inference(model)
    assert type(fast) is type(model)
    found = fast.predict_on_batch(images)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=2e-5 * scale)
    # Of any number of images, from a data set, and in one of fewer bits.
    rows = fast.predict(tf.data.Dataset.from_tensor_slices(images).batch(2), verbose=0)
    np.testing.assert_allclose(rows, expected, atol=2e-5 * scale)
    half = for_inference(model, "bfloat16").predict_on_batch(images)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - found).max() < 0.1 * scale


def test_the_model_itself_stays_as_it_was() -> None:
    model = small_vit()
    fast = for_inference(model, "bfloat16")
    assert {w.dtype for w in model.weights if "kernel" in w.path} == {"float32"}
    assert model.trainable
    assert model.predict_function is None
    assert fast.trainable_variables == []
    assert {w.dtype for w in fast.weights if "qkv/kernel" in w.path} == {"bfloat16"}


def test_no_copy_in_between_stays() -> None:
    """Folding is done in float32: in bfloat16 that model is nobody's afterwards."""
    model = FAMILIES["conv_vit"]()  # has batch normalisations

    def number() -> int:
        return sum(isinstance(one, type(model)) for one in gc.get_objects())

    gc.collect()
    before = number()
    gc.disable()  # Python collects when it likes: with large models late
    try:
        fast = for_inference(model, "bfloat16")
        assert fast is not model
        assert number() == before + 1
    finally:
        gc.enable()


def test_a_quantized_model() -> None:
    model = small_vit()
    images = images_of(model)
    model.get_layer("block_0").attention.qkv.quantize("int8")
    expected = model.predict_on_batch(images)
    found = for_inference(model).predict_on_batch(images)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    with pytest.raises(ValueError, match=r"'float32' for a model with quantized.*qkv"):
        for_inference(model, "bfloat16")


def test_regions_are_a_second_input() -> None:
    model = region_vit()
    images = images_of_shape(model)
    regions = np.zeros((2, 3, 4), np.float32)
    regions[:, 0] = (4, 4, 20, 20)
    inputs = {"images": images, "regions": regions}
    expected = model.predict_on_batch(inputs)
    found = for_inference(model).predict_on_batch(inputs)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def images_of_shape(model: keras.Model) -> np.ndarray:
    shape = (2, *model.inputs[0].shape[1:])
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def test_classify_takes_it() -> None:
    model = small_vit()
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    (expected,) = kvision.classify(model, photo)
    (found,) = kvision.classify(for_inference(model), photo)
    assert list(found.names) == list(expected.names)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


@pytest.mark.parametrize("masks", [True, False])
def test_a_detector_detects_the_same(masks: bool) -> None:
    model = small_detector(masks=masks)
    images = textured_images(2)
    expected = model.predict_on_batch(images)
    found = for_inference(model).predict_on_batch(images)
    assert set(found) == set(expected)
    assert (np.asarray(expected["scores"]) > 0.05).sum() >= 10
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-3, err_msg=name)
    (one,) = kvision.detect(for_inference(model), images[0], 0.1)
    (other,) = kvision.detect(model, images[0], 0.1)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)


def test_a_detector_of_large_maps_detects_the_same() -> None:
    """Its 3 x 3 convolutions over the finest map take fewer multiplications."""
    size = (288, 288)
    model = small_detector(
        backbone=tiny_backbone(size), image_size=size, pyramid_channels=128
    )
    graph = traced(model).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("BatchMatMulV2") >= 2 * 3  # two convolutions, strips of 32 rows
    images = np.random.default_rng(0).integers(0, 256, (2, 288, 288, 3), np.uint8)
    expected = model.predict_on_batch(images)
    found = for_inference(model).predict_on_batch(images)
    assert (np.asarray(expected["scores"]) > 0.05).any()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-3, err_msg=name)


def test_batch_normalisation_is_made_of_constants() -> None:
    model = small_detector(backbone="resnet50", freeze_batch_norm=False)
    images = textured_images(1)
    expected = model.predict_on_batch(images)
    fast = for_inference(model)
    kinds = {type(layer).__name__ for layer in fast._flatten_layers()}
    assert "BatchNormalization" not in kinds
    found = fast.predict_on_batch(images)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)


def kernels(model: keras.Model, images: np.ndarray) -> list[str]:
    """Name the kernels that run a model's predictions."""
    function = convert_to_constants.convert_variables_to_constants_v2(traced(model))
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(function.graph.as_graph_def(), name="")
        options, metadata = (
            v1.RunOptions(output_partition_graphs=True),
            v1.RunMetadata(),
        )
        with v1.Session(graph=graph) as session:
            session.run(
                [tensor.name for tensor in function.outputs],
                {function.inputs[0].name: images},
                options=options,
                run_metadata=metadata,
            )
    return [node.op for part in metadata.partition_graphs for node in part.node]


def test_a_block_is_made_of_fused_kernels() -> None:
    model = with_random_weights(small_vit())
    names = kernels(model, images_of(model).astype(np.float32))
    if not any("Mkl" in name for name in names):
        pytest.skip("TensorFlow without oneDNN")
    assert names.count("_MklLayerNorm") == 5
    # qkv, projection, fc1 with its activation and fc2 of two blocks.
    assert names.count("_MklNativeFusedMatMul") >= 8
    assert not {"Erf", "Erfc", "Mean", "SquaredDifference"} & set(names)


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
def test_a_folded_normalisation_computes_the_same(
    depthwise: bool, use_bias: bool
) -> None:
    kind = keras.layers.DepthwiseConv2D if depthwise else keras.layers.Conv2D
    arguments = {"depth_multiplier": 2} if depthwise else {"filters": 6}
    convolution = kind(kernel_size=3, use_bias=use_bias, **arguments)
    norm = kvision.layers.FrozenBatchNormalization(epsilon=1e-3)
    images = keras.Input((8, 8, 3))
    model = with_random_weights(keras.Model(images, norm(convolution(images))))
    norm.moving_variance.assign(np.linspace(0.2, 3, 6))
    batch = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    expected = model(batch).numpy()
    norm.fold_into(convolution)
    np.testing.assert_allclose(model(batch), expected, atol=1e-5)
    # Also where nobody knows that it was folded: in a file.
    again = keras.Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(again(batch), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("number", [7, None])
def test_rows_are_normalised_as_keras_does(dtype: str, number: int | None) -> None:
    rng = np.random.default_rng(0)
    tokens = tf.cast(rng.normal(3, 5, (7, 4, 24)), dtype)
    gamma, beta = rng.normal(1, 0.3, 24), rng.normal(0, 0.3, 24)
    layer = keras.layers.LayerNormalization(epsilon=1e-6)
    layer.build((None, 24))
    layer.set_weights([gamma, beta])

    @tf.function(input_signature=[tf.TensorSpec((number, 4, 24), dtype)])
    def run(tokens: Any) -> Any:
        return by_rows(lambda rows: normalize_rows(rows, gamma, beta, 1e-6), tokens)

    expected = layer(tf.cast(tokens, "float32")).numpy()
    tolerance = 1e-5 if dtype == "float32" else 0.03
    found = tf.cast(run(tokens), "float32")
    np.testing.assert_allclose(found, expected, atol=tolerance)


def test_another_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"float32, bfloat16\. Received: 'int8'"):
        for_inference(small_vit(), "int8")
