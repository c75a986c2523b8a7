"""The same model for images of another size."""

import keras

from kvision.models.detector import Detector

__all__ = ["with_image_size"]


def with_image_size(model: keras.Model, image_size: tuple[int, int]) -> keras.Model:
    """Build the model anew for another input size and carry its weights over.

    Learned positions are resampled to the new grid, each layer by its own rule.

    Args:
        model: a model of `kvision.models`.
        image_size: (height, width) of the new input in pixels.

    Returns:
        New, uncompiled model; `model` stays as it is.

    Raises:
        ValueError: if the weights of the model depend on its size.
    """
    if not isinstance(model, Detector):
        return _resized(model, image_size)
    backbone = model.get_config()["backbone"]
    if isinstance(backbone, dict):  # a model object
        backbone = keras.saving.deserialize_keras_object(backbone)
        backbone = _with_input_size(backbone, image_size)
    return model.rebuilt(image_size=image_size, backbone=backbone)


def _resized(model: keras.Model, image_size: tuple[int, int]) -> keras.Model:
    resized = _cloned(model, image_size)
    for new, old in zip(resized.layers, model.layers, strict=True):
        if hasattr(new, "carry_over"):
            new.carry_over(old)
        else:
            _carry_over(new, old)
        new.trainable = old.trainable
    return resized


def _carry_over(new: keras.layers.Layer, old: keras.layers.Layer) -> None:
    try:
        new.set_weights(old.get_weights())
    except ValueError as error:
        raise ValueError(
            f"The weights of layer {old.name!r} ({type(old).__name__}) depend on the "
            "size of the images and it does not say how to bring them to another one"
        ) from error


def _with_input_size(model: keras.Model, image_size: tuple[int, int]) -> keras.Model:
    if model.inputs[0].shape[1:3] in ((None, None), tuple(image_size)):
        return model
    return _cloned(model, image_size)


def _cloned(model: keras.Model, image_size: tuple[int, int]) -> keras.Model:
    """Build a Functional model again, on images of another size, weights anew."""

    def renewed(old: keras.KerasTensor) -> keras.KerasTensor:
        is_image = len(old.shape) == 4  # others are, for example, boxes
        shape = (*image_size, old.shape[-1]) if is_image else old.shape[1:]
        return keras.Input(shape, dtype=old.dtype, name=old.name)

    inputs = keras.tree.map_structure(renewed, model.input)
    return keras.models.clone_model(model, input_tensors=inputs)
