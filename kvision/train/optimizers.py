"""Optimizers of Keras, set up as detectors and transformers are trained."""

from typing import Any

import keras
from keras import ops

from kvision.train.layer_decay import is_decayed, rate_scales

__all__ = ["LAMB", "LayerwiseAdamW", "LayerwiseSGD", "make_optimizer"]

Tensor = Any


def make_optimizer(
    name: str,
    learning_rate: Any,
    variables: list[Any],
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    layer_decay: float | None = None,
    clipnorm: float | None = None,
    ema: float | None = None,
    accumulate: int = 1,
) -> keras.optimizers.Optimizer:
    """Make and build an optimizer.

    Weight decay acts on kernels and on nothing else; see `layer_decay.is_decayed`. It
    is Keras' decoupled one, `w -= learning_rate * weight_decay * w`; PyTorch sends that
    of SGD through the momentum, so that its 1e-4 equals 1e-3 here under a momentum of
    0.9.

    Args:
        name: "sgd", "adamw" or "lamb".
        learning_rate: a number or a schedule, a function of the changes of the weights.
        variables: trainable variables of the model.
        momentum: of SGD.
        weight_decay: 0 for none.
        layer_decay: factor from each layer's learning rate to that of the layer before;
            None for one rate. See `layer_decay.layer_ids`.
        clipnorm: the largest norm of all gradients together; None for no limit.
        ema: momentum of a moving average of the weights, such as 0.99, a change of the
            weights; None for none.
        accumulate: steps whose gradients are averaged before the weights change.

    Returns:
        The optimizer, built.

    Raises:
        ValueError: for an unknown name, or layer decay where there are no layers.
    """
    settings = {
        "learning_rate": learning_rate,
        "weight_decay": weight_decay or None,
        "global_clipnorm": clipnorm,
        "use_ema": ema is not None,
        # Keras averages at every step, whether the weights have changed or not.
        "ema_momentum": 0.99 if ema is None else ema ** (1 / accumulate),
        "gradient_accumulation_steps": accumulate if accumulate > 1 else None,
    }
    if name not in ("sgd", "adamw", "lamb"):
        raise ValueError(
            f'optimizer must be "lamb", "sgd" or "adamw". Received: {name!r}'
        )
    if name == "sgd":
        settings["momentum"] = momentum
    if name == "adamw":
        # Its own defaults are 0.004 and, with an effect 30 times larger than that of
        # PyTorch's at the first step, 1e-7.
        settings |= {"weight_decay": weight_decay, "epsilon": 1e-8}
    optimizer: Any
    if name == "lamb":
        optimizer = LAMB(layer_decay=layer_decay or 1.0, epsilon=1e-6, **settings)
    elif layer_decay is None:
        stock = {"sgd": keras.optimizers.SGD, "adamw": keras.optimizers.AdamW}
        optimizer = stock[name](**settings)
    else:
        layerwise = {"sgd": LayerwiseSGD, "adamw": LayerwiseAdamW}
        optimizer = layerwise[name](layer_decay=layer_decay, **settings)
    # By identity: TensorFlow's names of the variables are not those of Keras.
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in variables if not is_decayed(v.path, len(v.shape))]
    )
    optimizer.build(variables)
    return optimizer


class _Layerwise(keras.optimizers.Optimizer):
    """Makes of an optimizer one with a learning rate for each layer.

    Keras has one rate for all variables. Here each variable's rate, that of its weight
    decay too, is multiplied by a constant that follows from its path; all else is the
    optimizer's own. The rule for weight decay is part of it as well, since Keras
    forgets exclusions when a compiled model is saved.
    """

    def __init__(self, *args: Any, layer_decay: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.layer_decay = layer_decay

    def build(self, variables: list[Any]) -> None:
        """Make the optimizer's variables, and find the layers of the model's."""
        if self.built:
            return
        super().build(variables)
        paths = [variable.path for variable in variables]
        self._rate_scales = (
            rate_scales(paths, self.layer_decay)
            if self.layer_decay != 1
            else [1.0] * len(paths)
        )
        self._decays = [is_decayed(v.path, len(v.shape)) for v in variables]

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Any) -> None:
        """Change a variable; its weight decay comes first, as in Keras."""
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self._rate_scales[index]
        if self.weight_decay and self._decays[index]:
            self.assign_sub(variable, variable * (rate * self.weight_decay))
        super().update_step(gradient, variable, rate)

    def _apply_weight_decay(self, variables: list[Any]) -> None:
        """Do nothing: `update_step` knows each variable's rate."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "layer_decay": self.layer_decay}


@keras.saving.register_keras_serializable("kvision")
class LayerwiseSGD(_Layerwise, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with a learning rate for each layer.

    Args:
        *args: as for `keras.optimizers.SGD`.
        layer_decay: factor from each layer's rate to that of the layer before.
        **kwargs: as for `keras.optimizers.SGD`.
    """


@keras.saving.register_keras_serializable("kvision")
class LayerwiseAdamW(_Layerwise, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` with a learning rate for each layer.

    Args:
        *args: as for `keras.optimizers.AdamW`.
        layer_decay: factor from each layer's rate to that of the layer before.
        **kwargs: as for `keras.optimizers.AdamW`.

    Source: Bao et al. 2022, BEiT, appendix H; huggingface/pytorch-image-models,
    timm/optim/_param_groups.py.
    """


@keras.saving.register_keras_serializable("kvision")
class LAMB(_Layerwise, keras.optimizers.Lamb):
    """LAMB as published: weight decay takes part in the trust ratio.

    `keras.optimizers.Lamb` decays weights beside the ratio, as AdamW does, and applies
    the ratio to biases and normalisation too. Here the update of a kernel is
    `ratio * rate * (m / (sqrt(v) + epsilon) + weight_decay * w)` with
    `ratio = |w| / |m / (sqrt(v) + epsilon) + weight_decay * w|`, and that of all else
    is Adam's, as in the authors' code. m and v are corrected for their bias.

    Args:
        *args: as for `keras.optimizers.Lamb`.
        layer_decay: factor from each layer's rate to that of the layer before.
        **kwargs: as for `keras.optimizers.Lamb`.

    Source: You et al. 2020, Large Batch Optimization for Deep Learning, algorithm 2,
    with phi(z) = z.
    """

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Any) -> None:
        """Change a variable."""
        index = self._get_variable_index(variable)
        dtype = variable.dtype
        rate = ops.cast(learning_rate, dtype) * self._rate_scales[index]
        gradient = ops.cast(gradient, dtype)
        step = ops.cast(self.iterations + 1, dtype)
        mean, square = self._momentums[index], self._velocities[index]
        self.assign_add(mean, (gradient - mean) * (1 - self.beta_1))
        self.assign_add(square, (ops.square(gradient) - square) * (1 - self.beta_2))
        mean_hat = mean / (1 - ops.power(ops.cast(self.beta_1, dtype), step))
        square_hat = square / (1 - ops.power(ops.cast(self.beta_2, dtype), step))
        update = mean_hat / (ops.sqrt(square_hat) + self.epsilon)
        if self._decays[index]:
            update = update + variable * (self.weight_decay or 0.0)
            rate = rate * _trust_ratio(variable, update)
        self.assign_sub(variable, rate * update)


def _trust_ratio(variable: Any, update: Tensor) -> Tensor:
    """Return |w| / |update|, or 1 where either is 0."""
    weight_norm = ops.sqrt(ops.sum(ops.square(variable)))
    update_norm = ops.sqrt(ops.sum(ops.square(update)))
    is_safe = ops.logical_and(weight_norm > 0, update_norm > 0)
    return ops.where(is_safe, weight_norm / ops.where(is_safe, update_norm, 1.0), 1.0)
