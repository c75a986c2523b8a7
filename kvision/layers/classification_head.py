"""The last layer of a classifier, which knows the names of the classes."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

__all__ = ["ClassificationHead", "MeanLogits"]

Tensor = Any


@keras.saving.register_keras_serializable("kvision")
class ClassificationHead(keras.layers.Layer):
    """Compute the logits of classes, in float32 under any policy.

    Args:
        num_classes: K.
        class_names: K names, or None.
        kernel_initializer: of the kernel; zeros let a new head start undecided.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: if there are not K different names.
    """

    def __init__(
        self,
        num_classes: int,
        class_names: Sequence[str] | None = None,
        kernel_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_classes < 1:
            raise ValueError(f"num_classes must be 1 or more. Received: {num_classes}")
        names = None if class_names is None else [str(name) for name in class_names]
        if names is not None and len(set(names)) != num_classes:
            raise ValueError(
                f"class_names must be {num_classes} different names. Received "
                f"{len(names)}, {len(set(names))} of them different"
            )
        self.num_classes = num_classes
        self.class_names = names
        self.kernel_initializer = kernel_initializer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create kernel and bias."""
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.num_classes),
            initializer=self.kernel_initializer,
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.num_classes,), initializer="zeros", name="bias"
        )

    def call(self, features: Tensor) -> Tensor:
        """Map features (B, D) to logits (B, K) float32."""
        logits = ops.matmul(features, ops.cast(self.kernel, features.dtype))
        return ops.cast(logits, "float32") + ops.cast(self.bias, "float32")

    def compute_output_spec(self, features: Tensor) -> keras.KerasTensor:
        """Promise float32 under any policy."""
        return keras.KerasTensor((*features.shape[:-1], self.num_classes), "float32")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        initializer = self.kernel_initializer
        if not isinstance(initializer, str):
            initializer = keras.initializers.serialize(initializer)
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "class_names": self.class_names,
            "kernel_initializer": initializer,
        }


@keras.saving.register_keras_serializable("kvision")
class MeanLogits(keras.layers.Layer):
    """Average the logits of two heads, in float32 under any policy.

    Args:
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(self, first: Tensor, second: Tensor) -> Tensor:
        """Map two tensors (B, K) to their mean."""
        return (first + second) * 0.5

    def compute_output_shape(self, first_shape: Any, second_shape: Any) -> Any:
        """Keep the shape."""
        return first_shape
