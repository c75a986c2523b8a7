"""Optimizers of Keras, set up as detectors are trained."""

from typing import Any

import keras

__all__ = ["make_optimizer"]


def make_optimizer(
    name: str,
    learning_rate: Any,
    variables: list[Any],
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    clipnorm: float | None = None,
    ema: float | None = None,
    accumulate: int = 1,
) -> keras.optimizers.Optimizer:
    """Make and build an optimizer.

    Weight decay acts on kernels and not on biases and normalisation (all that has one
    axis). It is Keras' decoupled one, `w -= learning_rate * weight_decay * w`; PyTorch
    sends that of SGD through the momentum, so that its 1e-4 equals 1e-3 here under a
    momentum of 0.9.

    Args:
        name: "sgd" or "adamw".
        learning_rate: a number or a schedule.
        variables: trainable variables of the model.
        momentum: of SGD.
        weight_decay: 0 for none.
        clipnorm: the largest norm of all gradients together; None for no limit.
        ema: momentum of a moving average of the weights, such as 0.99; None for none.
        accumulate: steps whose gradients are averaged before the weights change.

    Returns:
        The optimizer, built.

    Raises:
        ValueError: for an unknown name.
    """
    settings = {
        "learning_rate": learning_rate,
        "weight_decay": weight_decay or None,
        "global_clipnorm": clipnorm,
        "use_ema": ema is not None,
        "ema_momentum": 0.99 if ema is None else ema,
        "gradient_accumulation_steps": accumulate if accumulate > 1 else None,
    }
    if name == "sgd":
        optimizer = keras.optimizers.SGD(momentum=momentum, **settings)
    elif name == "adamw":
        # Its own default is 0.004.
        settings["weight_decay"] = weight_decay
        optimizer = keras.optimizers.AdamW(**settings)
    else:
        raise ValueError(f'optimizer must be "sgd" or "adamw". Received: {name!r}')
    # By identity: TensorFlow's names of the variables are not those of Keras.
    optimizer.exclude_from_weight_decay(
        var_list=[variable for variable in variables if len(variable.shape) <= 1]
    )
    optimizer.build(variables)
    return optimizer
