"""Distillation: the loss by hand, what is trained, what is not, sizes, modes."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kvision.train.distillation import distill, student_of

CLASSES = 3


def classifier(
    heads: tuple[str, ...] = ("head",),
    size: int = 8,
    width: int = 6,
    dtype: str | None = None,
    **last: Any,
) -> keras.Model:
    images = keras.Input((size, size, 3), name="images")
    scaled = keras.layers.Rescaling(1 / 255, name="preprocessing", dtype=dtype)(images)
    x = keras.layers.Conv2D(width, 3, 2, activation="relu", dtype=dtype)(scaled)
    x = keras.layers.GlobalAveragePooling2D(dtype=dtype)(x)
    logits = [
        keras.layers.Dense(CLASSES, name=name, dtype="float32", **last)(x)
        for name in heads
    ]
    output = logits[0] if len(logits) == 1 else keras.layers.Average()(logits)
    return keras.Model(images, output)


def batch(number: int = 4, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (number, size, size, 3), dtype=np.uint8)
    return images, rng.integers(0, CLASSES, number)


def loss() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def expected_loss(
    label_logits: Any, own: Any, teacher: Any, labels: Any, hard: bool, t: float, w: Any
) -> float:
    rows = np.arange(len(labels))
    total = -log_softmax(label_logits)[rows, labels].mean()
    if hard:
        extra = -log_softmax(own)[rows, teacher.argmax(axis=1)].mean()
    else:
        p, q = log_softmax(teacher / t), log_softmax(own / t)
        extra = t * t * (np.exp(p) * (p - q)).sum(axis=1).mean()
    return float(total + w * extra)


def outputs_of(model: keras.Model, name: str, images: np.ndarray) -> np.ndarray:
    part = keras.Model(model.input, model.get_layer(name).output)
    return np.asarray(part(images))


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("heads", [("head",), ("head", "head_dist")])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_loss_by_hand(hard: bool, heads: tuple[str, ...], jit_compile: bool) -> None:
    keras.utils.set_random_seed(1)
    student, teacher = classifier(heads), classifier(width=9)
    model = distill(student, teacher, hard, temperature=2.5, weight=0.7)
    model.compile(keras.optimizers.SGD(0.0), loss(), jit_compile=jit_compile)
    images, labels = batch()
    values = [outputs_of(student, name, images) for name in (heads[0], heads[-1])]
    answer = np.asarray(student(images))
    expected = expected_loss(
        *values, np.asarray(teacher(images)), labels, hard, 2.5, 0.7
    )
    assert model.train_on_batch(images, labels) == pytest.approx(expected, abs=1e-6)
    # Without training: the student's answer, and the loss of the labels alone.
    np.testing.assert_allclose(model(images), answer, atol=1e-6)
    alone = -log_softmax(answer)[np.arange(4), labels].mean()
    assert model.test_on_batch(images, labels) == pytest.approx(alone, abs=1e-6)


def test_the_student_learns_the_teacher_and_only_the_student(tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    student, teacher = classifier(("head", "head_dist")), classifier()
    before = [np.array(w) for w in teacher.get_weights()]
    model = distill(student, teacher)
    assert model.count_params() == student.count_params()
    assert teacher.trainable
    assert student_of(model) is student
    assert student_of(student) is student
    start = [np.array(w) for w in student.get_weights()]
    model.compile(keras.optimizers.Adam(0.02), loss())
    images, labels = batch(32)
    losses = model.fit(images, labels, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    for now, then in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    changed = [
        np.abs(now - then).max() > 0
        for now, then in zip(student.get_weights(), start, strict=True)
    ]
    assert all(changed)  # those of the second head by the teacher alone
    student.save(tmp_path / "student.keras")
    again = keras.models.load_model(tmp_path / "student.keras")
    np.testing.assert_allclose(again(images), model(images), atol=1e-6)
    with pytest.raises(NotImplementedError, match=r"Save the student"):
        model.get_layer("distillation").get_config()


@pytest.mark.parametrize("size", [12, 5])
def test_a_teacher_of_another_size(size: int) -> None:
    keras.utils.set_random_seed(3)
    student, teacher = classifier(), classifier(size=size)
    model = distill(student, teacher)
    model.compile(keras.optimizers.SGD(0.0), loss(), jit_compile=True)
    images, labels = batch()
    resized = keras.ops.image.resize(images.astype("float32"), (size, size))
    own = np.asarray(student(images))
    expected = expected_loss(
        own, own, np.asarray(teacher(resized)), labels, True, 1.0, 1.0
    )
    assert model.train_on_batch(images, labels) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(dtype: str) -> None:
    keras.utils.set_random_seed(4)
    student, teacher = classifier(dtype=dtype), classifier()
    model = distill(student, teacher, hard=False)
    optimizer = keras.optimizers.SGD(0.1)
    if dtype == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, loss())
    images, labels = batch()
    own = np.asarray(student(images))
    expected = expected_loss(
        own, own, np.asarray(teacher(images)), labels, False, 3.0, 1.0
    )
    assert model.output.dtype == "float32"
    assert model.train_on_batch(images, labels) == pytest.approx(expected, abs=2e-3)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r'layer named "head".*is \'other\''):
        distill(classifier(("other",)), classifier())
    wrong = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match=r"same classes. Received: \(None, 3\)"):
        distill(classifier(), wrong)
    soft = classifier(activation="softmax")
    with pytest.raises(ValueError, match="classifier_activation=None"):
        distill(classifier(), soft, hard=False)
    distill(classifier(), soft, hard=True)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        distill(classifier(), classifier(), temperature=0.0)
