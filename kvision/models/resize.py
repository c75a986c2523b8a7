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
    config = {**model.get_config(), "image_size": image_size}
    if isinstance(config["backbone"], dict):  # a model object
        backbone = keras.saving.deserialize_keras_object(config["backbone"])
        config["backbone"] = _with_input_size(backbone, image_size)
    resized = type(model).from_config(config)
    resized.set_weights(model.get_weights())
    return resized


def _with_input_size(model: keras.Model, image_size: tuple[int, int]) -> keras.Model:
    shape = model.inputs[0].shape[1:]
    if shape[:2] in ((None, None), tuple(image_size)):
        return model
    images = keras.Input((*image_size, shape[-1]), name=model.inputs[0].name)
    return keras.models.clone_model(model, input_tensors=images)
