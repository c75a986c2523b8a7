"""The twin of a model in another precision."""

from typing import Any

__all__ = ["in_float32", "in_precision", "with_weights_of"]


def in_float32(model: Any) -> Any:
    """Return a model, or its twin that computes in float32.

    Half precision is for training: rounded activations move boxes by pixels from one
    graph optimiser to the next, and TFLite has no bfloat16.

    Args:
        model: a detector of `kvision.models`, or a Functional model.

    Returns:
        The same model if all of it is float32; otherwise a new one with its weights.
    """
    return in_precision(model, "float32")


def in_precision(model: Any, dtype: str, **arguments: Any) -> Any:
    """Return a model, or its twin under another dtype policy.

    Layers that are float32 under any policy stay so.

    Args:
        model: a detector of `kvision.models`, or a Functional model.
        dtype: name of the policy.
        **arguments: of a detector's builder, instead of the model's.

    Returns:
        The same model if it is so already; otherwise a new one with its weights.
    """
    config = model.get_config()
    # A Functional model has no policy of its own: its layers have.
    whole = {"dtype": dtype} if "dtype" in config else {}
    twin_config = _with_policies({**config, **whole, **arguments}, dtype)
    if twin_config == config:
        return model
    return with_weights_of(type(model).from_config(twin_config), model)


def with_weights_of(model: Any, source: Any) -> Any:
    """Give a model the weights of another of the same layers, one by one.

    (`set_weights` of `get_weights` holds a third copy of all meanwhile.)

    Args:
        model: the model.
        source: the other; its weights may be of another dtype.

    Returns:
        The model.
    """
    for new, old in zip(model.weights, source.weights, strict=True):
        new.assign(old)
    return model


def _with_policies(config: Any, dtype: str) -> Any:
    """Replace the dtype policies in a config: a backbone object brings its own."""
    if isinstance(config, list | tuple):
        return type(config)(_with_policies(value, dtype) for value in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {**config["config"], "name": dtype}}
    return {key: _with_policies(value, dtype) for key, value in config.items()}
