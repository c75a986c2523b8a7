"""The model of a run as a `.keras` file for use, not for going on with training."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import keras

from kvision.weights.replacing import replacing

__all__ = ["load_weights", "save_model"]


def save_model(model: keras.Model, path: Path) -> None:
    """Write a model without its optimizer, whose variables would double the file.

    `Model.save` writes in place; here a kill leaves the old file as it was.

    Args:
        model: the model, compiled or not.
        path: file name ending in `.keras`; its folder exists.
    """
    with replacing(path) as unfinished, _uncompiled(model):
        model.save(unfinished)


def load_weights(model: keras.Model, path: Path) -> None:
    """Put the weights of a file of `save_model` into the model it was made of.

    Args:
        model: the model, compiled or not.
        path: the file.
    """
    with _uncompiled(model):
        model.load_weights(path)


@contextlib.contextmanager
def _uncompiled(model: keras.Model) -> Iterator[None]:
    if not model.compiled:
        yield
        return
    optimizer, model.optimizer, model.compiled = model.optimizer, None, False
    try:
        yield
    finally:
        model.optimizer, model.compiled = optimizer, True
