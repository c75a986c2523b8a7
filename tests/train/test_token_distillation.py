"""Distillation of DynamicViT: each term by hand, what is trained, what is refused."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvision import layers, models
from kvision.train import distill
from kvision.train.distillation import student_of
from kvision.train.pretrained import load_pretrained
from kvision.train.token_distillation import token_loss
from tests.models.small_vit import tiny  # noqa: F401  (a fixture for every test)

SIZE = (32, 40)  # 4 x 5 patches of 8
SETTINGS: dict[str, Any] = {"num_classes": 3, "image_size": SIZE}
IMAGES = np.random.default_rng(0).integers(0, 256, (6, *SIZE, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def deit(**arguments: Any) -> keras.Model:
    return with_random_head(models.deit("tiny/8", **{**SETTINGS, **arguments}))


def dynamic_vit(**arguments: Any) -> keras.Model:
    settings = {**SETTINGS, "prune_at": (1, 2), "keep_ratio": 0.6, **arguments}
    return with_random_head(models.dynamic_vit("tiny/8", **settings))


def with_random_head(model: keras.Model) -> keras.Model:
    kernel = model.get_layer("head").kernel
    kernel.assign(np.random.default_rng(1).normal(size=kernel.shape))
    return model


def decided(student: keras.Model) -> keras.Model:
    """Judge so clearly that chance has no say: about half of the patches stay."""
    for layer in student.layers:
        if isinstance(layer, layers.TokenScorer):
            rng = np.random.default_rng(2)
            kernel = rng.normal(size=layer.out_dense3.kernel.shape)
            layer.out_dense3.kernel.assign(1e5 * kernel)
    return student


def in_training(student: keras.Model) -> tuple[np.ndarray, ...]:
    """Return logits, last tokens and what either pruning keeps."""
    parts = [student.output, student.get_layer("norm").output]
    parts += [student.get_layer(f"token_pruning_{i}").output[1] for i in (1, 2)]
    outputs = keras.Model(student.input, parts)(IMAGES, training=True)
    return tuple(np.asarray(each) for each in outputs)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_all_four_terms_by_hand(jit_compile: bool) -> None:
    keras.utils.set_random_seed(1)
    student, teacher = decided(dynamic_vit()), deit()
    logits, tokens, *keeps = in_training(student)
    features = keras.Model(
        teacher.input, [teacher.output, teacher.get_layer("norm").output]
    )
    target, target_tokens = (np.asarray(each) for each in features(IMAGES))
    own, wanted = log_softmax(logits), log_softmax(target)
    expected = -own[np.arange(6), LABELS].mean()
    for number, keep in enumerate(keeps, 1):
        # Half of the ratio loss of weight 2 for each of two prunings.
        expected += ((keep[:, 1:].mean(axis=1) - 0.6**number) ** 2).mean()
    expected += 0.5 * (np.exp(wanted) * (wanted - own)).sum(axis=1).mean()
    is_kept = keeps[-1][:, 1:] > 0.5
    assert 0.1 < is_kept.mean() < 0.9
    errors = (tokens[:, 1:] - target_tokens[:, 1:])[is_kept] ** 2
    assert errors.mean() > 0.1
    expected += 0.5 * errors.mean()

    model = distill(
        student, teacher, hard=False, temperature=1, weight=0.5, token_weight=0.5
    )
    model.compile(keras.optimizers.SGD(0.0), LOSS, jit_compile=jit_compile)
    assert model.train_on_batch(IMAGES, LABELS) == pytest.approx(expected, rel=1e-4)
    # Without training: patches are gone, and the loss is that of the labels.
    own = log_softmax(np.asarray(student(IMAGES, training=False)))
    alone = -own[np.arange(6), LABELS].mean()
    assert model.test_on_batch(IMAGES, LABELS) == pytest.approx(alone, rel=1e-4)


def test_the_product_is_the_plain_student(tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    student, teacher = dynamic_vit(), deit()
    before = [np.array(each) for each in teacher.get_weights()]
    start = [np.array(each) for each in student.trainable_weights]
    model = distill(student, teacher, token_weight=0.5)
    assert student_of(model) is student
    assert model.count_params() == student.count_params()
    model.compile(keras.optimizers.Adam(0.01), LOSS, jit_compile=False)
    losses = model.fit(IMAGES, LABELS, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    for now, then in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    for now, then in zip(student.trainable_weights, start, strict=True):
        assert np.abs(np.asarray(now) - then).max() > 0, now.path
    student.save(tmp_path / "student.keras")
    names = [layer.name for layer in student.layers]
    expected = np.asarray(model(IMAGES))
    del model, teacher, student
    loaded = keras.models.load_model(tmp_path / "student.keras")
    assert [layer.name for layer in loaded.layers] == names
    np.testing.assert_allclose(loaded(IMAGES), expected, atol=1e-5)


def test_half_precision() -> None:
    keras.utils.set_random_seed(5)
    student = decided(dynamic_vit(dtype="mixed_bfloat16"))
    _, tokens, *_ = in_training(student)
    assert tokens.dtype == "bfloat16"
    model = distill(student, deit(), token_weight=0.5)
    model(IMAGES, training=True)
    assert [loss.dtype for loss in model.losses] == 4 * ["float32"]
    assert np.isfinite(model.losses).all()


def test_only_patches_that_are_kept_count() -> None:
    rng = np.random.default_rng(3)
    tokens, target = (tf.constant(rng.normal(size=(2, 5, 4))) for _ in range(2))
    keep = tf.constant([[1.0, 1, 0, 0, 0], [1, 0, 0, 0, 0]], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch([tokens, keep])
        loss = token_loss(tokens, target, keep)
    expected = np.mean((tokens[0, 1] - target[0, 1]) ** 2)
    assert float(loss) == pytest.approx(expected)
    to_tokens, to_keep = tape.gradient(loss, [tokens, keep])
    assert to_keep is None
    is_reached = np.any(np.asarray(to_tokens), axis=-1)
    np.testing.assert_array_equal(np.argwhere(is_reached), [[0, 1]])
    assert float(token_loss(tokens, target, tf.zeros_like(keep))) == 0


def test_a_student_begins_with_its_teacher(tmp_path: Path, caplog: Any) -> None:
    keras.utils.set_random_seed(4)
    teacher, student = deit(), dynamic_vit()
    teacher.save(tmp_path / "deit.keras")
    load_pretrained(student, tmp_path / "deit.keras", lambda number: teacher)
    assert "but those of 'token_scorer_1', which begins anew" in caplog.text
    for layer in teacher.layers:
        own = student.get_layer(layer.name).get_weights()
        for ours, theirs in zip(own, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("make_student", "make_teacher", "message"),
    [
        (deit, deit, r"students that give up patches .*'deit_tiny_8'"),
        (dynamic_vit, lambda: dynamic_vit(keep_ratio=1.0), "gives up no patches"),
        (dynamic_vit, lambda: deit(distilled=True), r"\(21, 16\) and .*\(22, 16\)"),
        (dynamic_vit, lambda: deit(image_size=(40, 32)), r"and \(40, 32\), \(21, 16\)"),
    ],
)
def test_what_cannot_be_compared(
    make_student: Any, make_teacher: Any, message: str
) -> None:
    student, teacher = make_student(), make_teacher()
    distill(student, teacher)
    with pytest.raises(ValueError, match=message):
        distill(student, teacher, token_weight=0.5)


def test_a_teacher_without_tokens() -> None:
    images = keras.Input((*SIZE, 3))
    pixels = keras.layers.Flatten()(images)
    teacher = keras.Model(images, keras.layers.Dense(3)(pixels))
    with pytest.raises(ValueError, match=r"tokens: \(32, 40\), \(21, 16\)$"):
        distill(dynamic_vit(), teacher, token_weight=0.5)
