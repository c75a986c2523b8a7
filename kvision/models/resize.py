"""The same model for images of another size."""

import keras

__all__ = ["with_image_size"]


def with_image_size(model: keras.Model, image_size: tuple[int, int]) -> keras.Model:
    """Build the model anew for another input size and carry its weights over.

    Args:
        model: a model of `kvision.models`.
        image_size: (height, width) of the new input in pixels.

    Returns:
        New, uncompiled model; `model` stays as it is.

    Raises:
        ValueError: if the weights of the model depend on its size.
    """
    resized = type(model).from_config({**model.get_config(), "image_size": image_size})
    resized.set_weights(model.get_weights())
    return resized
