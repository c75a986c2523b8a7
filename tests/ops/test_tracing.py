"""What is said where Keras runs on another backend than TensorFlow."""

from pathlib import Path

import keras
import pytest

from kvision.export import saved_model
from kvision.ops.tracing import require_tensorflow
from tests.models.tiny import tiny_mask_rcnn


def test_tensorflow_is_there() -> None:
    require_tensorflow("Training")


def test_training_and_export_say_that_they_need_tensorflow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = tiny_mask_rcnn()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"Training needs .* on 'jax'"):
        model.compile()
    with pytest.raises(ValueError, match="Exporting a model needs Keras on TensorFlow"):
        saved_model(model, tmp_path / "1")
    assert not list(tmp_path.iterdir())
