"""The float32 twin of a model: what is exported and compared with."""

from typing import Any

__all__ = ["in_float32"]


def in_float32(model: Any) -> Any:
    """Return a model, or its twin that computes in float32.

    Half precision is for training: rounded activations move boxes by pixels from one
    graph optimiser to the next, and TFLite has no bfloat16.

    Args:
        model: a detector of `kvision.models`, or a Functional model.

    Returns:
        The same model if all of it is float32; otherwise a new one with its weights.
    """
    config = model.get_config()
    # A Functional model has no policy of its own: its layers have.
    whole = {"dtype": "float32"} if "dtype" in config else {}
    twin_config = _with_float32_policies({**config, **whole})
    if twin_config == config:
        return model
    twin = type(model).from_config(twin_config)
    twin.set_weights(model.get_weights())
    return twin


def _with_float32_policies(config: Any) -> Any:
    """Replace the dtype policies in a config: a backbone object brings its own."""
    if isinstance(config, list | tuple):
        return type(config)(_with_float32_policies(value) for value in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {**config["config"], "name": "float32"}}
    return {key: _with_float32_policies(value) for key, value in config.items()}
