"""What Twins are built of, at any size, and as the backbone of a detector.

That they compute what timm's do: tests/parity/test_timm_twins.py.
"""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import kvision
from kvision.export.conversion import convert_function
from kvision.export.flatbuffer import check_builtin
from kvision.models.twins import TwinsSize, build_twins, twins_pcpvt, twins_svt
from tests.models.tiny import SMALL
from tests.ops.modes import assert_modes_agree, to_numpy

TINY = TwinsSize(
    (8, 16, 24, 32), (2, 1, 2, 1), (1, 2, 3, 4), (2, 2, 1, 1), window_size=4
)
RNG = np.random.default_rng(0)


def tiny(image_size: tuple[int, int] = (64, 96), **arguments: Any) -> keras.Model:
    model = build_twins(TINY, image_size=image_size, **{"num_classes": 5, **arguments})
    for weight in model.trainable_variables:  # heads begin at 0
        if weight.path.startswith("head"):
            weight.assign(RNG.normal(size=weight.shape))
    return model


def images(size: tuple[int, int] = (64, 96), count: int = 2) -> np.ndarray:
    return RNG.integers(0, 256, (count, *size, 3)).astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (50, 77), (4, 4)])
def test_grids_of_any_size(size: tuple[int, int]) -> None:
    outputs = tiny(size, features=True)(images(size))
    for level in range(2, 6):
        cells = tuple(-(-side // 2**level) for side in size)
        width = TINY.embed_dims[level - 2]
        assert outputs[f"C{level}"].shape == (2, *cells, width)
    names = {f"stage{s}_block_{b}" for s in range(4) for b in range(TINY.depths[s])}
    assert set(outputs) == names | {"C2", "C3", "C4", "C5", "grid"}
    for level, last in ((2, 1), (3, 0), (4, 1), (5, 0)):
        block = to_numpy(outputs[f"stage{level - 2}_block_{last}"])
        np.testing.assert_array_equal(block, to_numpy(outputs[f"C{level}"]))


def test_kinds_of_attention() -> None:
    svt, pcpvt = (
        [
            type(layer.attention).__name__
            for layer in model.layers
            if isinstance(layer, kvision.layers.TransformerBlock)
        ]
        for model in (tiny(), build_twins(TINY._replace(window_size=None)))
    )
    window, summary = "WindowAttention", "SubsampledAttention"
    assert svt == [window, summary, window, window, summary, window]
    assert pcpvt == [summary] * 6


def test_epsilons() -> None:
    """Those of normalisations after convolutions are PyTorch's, others are not."""
    found = {
        layer.epsilon: layer.path
        for layer in tiny()._flatten_layers()
        if isinstance(layer, keras.layers.LayerNormalization)
    }
    assert set(found) == {1e-5, 1e-6}
    model = tiny()
    block = model.get_layer("stage0_block_1")
    assert block.norm1.epsilon == block.norm2.epsilon == 1e-6
    assert block.attention.reduce.norm.epsilon == 1e-5
    assert model.get_layer("stage2_patch_embedding").norm.epsilon == 1e-5
    assert model.get_layer("norm").epsilon == 1e-6


def test_drop_path_grows_over_all_stages() -> None:
    rates = [
        layer.drop_path
        for layer in tiny(drop_path=0.7).layers
        if isinstance(layer, kvision.layers.TransformerBlock)
    ]
    np.testing.assert_allclose(rates, np.linspace(0, 0.7, 6))


def test_pooled_features_are_the_mean_of_the_grid() -> None:
    pooled, whole = tiny(num_classes=0), tiny(features=True)
    whole.set_weights(pooled.get_weights())
    batch = images()
    expected = to_numpy(whole(batch)["grid"]).mean((1, 2))
    np.testing.assert_allclose(to_numpy(pooled(batch)), expected, rtol=0, atol=1e-5)


def test_every_argument_reaches_its_layer() -> None:
    model = tiny(
        num_channels=1,
        normalization=(100.0, 50.0),
        resize="pad",
        crop_fraction=0.5,
        interpolation="bilinear",
        qkv_bias=False,
        activation="quick_gelu",
        layer_scale=0.1,
        epsilon=1e-4,
        dropout=0.1,
        attention_dropout=0.2,
        recompute=True,
        head_dropout=0.3,
        class_names=list("abcde"),
        dtype="mixed_bfloat16",
        name="mine",
    )
    assert (model.name, model.output.dtype) == ("mine", "float32")
    preprocessing = model.get_layer("preprocessing").get_config()
    assert preprocessing["mean"] == [100.0]
    assert preprocessing["std"] == [50.0]
    found = [preprocessing[k] for k in ("resize", "crop_fraction", "interpolation")]
    assert found == ["pad", 0.5, "bilinear"]
    for name in ("stage0_block_0", "stage0_block_1"):
        block = model.get_layer(name)
        assert (block.recompute, block.layer_scale, block.epsilon) == (True, 0.1, 1e-4)
        assert block.mlp.get_config()["activation"] == "quick_gelu"
        assert block.mlp.dropout == block.attention.dropout == 0.1
        assert block.attention.attention_dropout == 0.2
        assert not block.attention.use_bias
        assert block.compute_dtype == "bfloat16"
    assert model.get_layer("norm").epsilon == 1e-4
    assert model.get_layer("stage3_dropout").rate == 0.1
    assert model.get_layer("head_dropout").rate == 0.3
    assert model.get_layer("head").class_names == list("abcde")


@pytest.mark.parametrize("build", [twins_svt, twins_pcpvt])
def test_wrong_arguments(build: Any) -> None:
    with pytest.raises(ValueError, match="variant must be one of S, B, L"):
        build("M")
    with pytest.raises(TypeError, match="windows"):
        build("S", windows=3)


@pytest.mark.parametrize("size", [(64, 96), (50, 77)])
def test_modes_agree(size: tuple[int, int]) -> None:
    model = tiny(size)
    logits = assert_modes_agree(model, images(size), rtol=1e-4, atol=1e-5)
    assert np.ptp(logits[:, 0]) > 1e-3


@pytest.mark.parametrize("size", [(64, 96), (50, 77)])
def test_at_most_four_dimensions(size: tuple[int, int]) -> None:
    """More, and the GPU of a phone does not take the model."""
    graph = tf.function(tiny(size)).get_concrete_function(
        tf.TensorSpec((1, *size, 3), "float32")
    )
    ranks = [
        output.shape.rank
        for operation in graph.graph.get_operations()
        for output in operation.outputs
    ]
    assert max(rank for rank in ranks if rank is not None) == 4
    assert None not in ranks


def test_converts_to_tflite_with_builtin_ops_only() -> None:
    size = (50, 77)
    model = tiny(size)
    entry = tf.TensorSpec((1, *size, 3), name="images")
    content = convert_function(lambda x: {"logits": model(x, training=False)}, entry)
    check_builtin(content)
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    batch = images(size, 1).astype(np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], batch)
    interpreter.invoke()
    got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    expected = to_numpy(model(batch))
    difference = np.abs(got - expected).max() / np.abs(expected).max()
    print(f"TFLite: {difference:.1e} of the largest logit")
    assert difference < 1e-4
    for detail in interpreter.get_tensor_details():
        assert len(detail["shape"]) <= 4


def test_another_image_size_keeps_all_weights() -> None:
    small = tiny((64, 64))
    large = kvision.models.with_image_size(small, (80, 112))
    assert large.input_shape == (None, 80, 112, 3)
    for ours, theirs in zip(large.get_weights(), small.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert large(images((80, 112))).shape == (2, 5)


def test_recomputed_gradients_are_the_same() -> None:
    plain, saving = tiny(), tiny(recompute=True)
    saving.set_weights(plain.get_weights())
    batch = images().astype(np.float32)
    found = []
    for model in (plain, saving):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(batch, training=True) ** 2)
        variables = [v.value for v in model.trainable_variables]
        found.append(tape.gradient(total, variables))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(a).max())


def test_learns_four_images() -> None:
    keras.utils.set_random_seed(0)
    model = tiny((32, 32), num_classes=4, drop_path=0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # XLA would compile for longer than the fit takes.
    model.compile(
        keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"], jit_compile=False
    )
    batch, labels = images((32, 32), 4), np.arange(4)
    first = model.evaluate(batch, labels, verbose=0, return_dict=True)
    model.fit(batch, labels, epochs=40, verbose=0)
    last = model.evaluate(batch, labels, verbose=0, return_dict=True)
    print(f"loss {first['loss']:.2f} -> {last['loss']:.4f}")
    assert last["accuracy"] == 1
    assert last["loss"] < 0.1


def test_saved_and_loaded(tmp_path: Any) -> None:
    model = tiny((50, 77), class_names=list("abcde"))
    model.save(tmp_path / "twins.keras")
    loaded = keras.models.load_model(tmp_path / "twins.keras")
    assert loaded.get_layer("head").class_names == list("abcde")
    batch = images((50, 77))
    np.testing.assert_array_equal(to_numpy(loaded(batch)), to_numpy(model(batch)))


def test_backbone_of_a_detector(tmp_path: Any) -> None:
    """Mask R-CNN on an image size that no stride divides: build, a step, save."""
    size = (72, 100)
    backbone = build_twins(TINY, image_size=size, features=True, name="tiny_twins")
    model = kvision.models.mask_rcnn(
        backbone,
        normalization=None,
        class_names=list(kvision.data.shapes(1).class_names),
        image_size=size,
        **SMALL,
    )
    levels = model.get_layer("pyramid").input
    assert [x.shape[1:3] for x in levels] == [(18, 25), (9, 13), (5, 7), (3, 4)]
    before = [to_numpy(weight) for weight in model.trainable_variables]
    model.compile(keras.optimizers.SGD(1e-2), jit_compile=False)
    dataset = kvision.data.shapes(2, image_size=size, batch_size=2, max_size=40)
    history = model.fit(dataset, steps_per_epoch=1, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    moved = {
        weight.path
        for weight, old in zip(model.trainable_variables, before, strict=True)
        if np.any(to_numpy(weight) != old)
    }
    assert any("stage0_patch_embedding/kernel" in path for path in moved)
    assert any("stage3_block_0" in path for path in moved)
    batch, _ = next(iter(dataset))
    model.save(tmp_path / "detector.keras")
    loaded = keras.models.load_model(tmp_path / "detector.keras")
    a, b = to_numpy(model(batch)), to_numpy(loaded(batch))
    np.testing.assert_allclose(a["scores"], b["scores"], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_twins_svt_s_is_a_backbone_by_its_name() -> None:
    size = (128, 160)
    model = kvision.models.mask_rcnn(
        twins_svt("S", features=True, image_size=size),
        normalization=None,
        class_names=["circle"],
        image_size=size,
        recompute_backbone=True,
    )
    outputs = to_numpy(model(images(size, 1)))
    assert outputs["boxes"].shape == (1, 100, 4)
