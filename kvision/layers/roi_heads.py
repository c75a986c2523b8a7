"""Heads on pooled regions: class and box of each, mask of each."""

from typing import Any

import keras
from keras import ops

from kvision.layers.hidden_convolutions import (
    apply_convolutions,
    hidden_convolutions,
)
from kvision.ops.rows import dense_by_rows

__all__ = ["BoxHead", "MaskHead"]

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvision")
class BoxHead(keras.layers.Layer):
    """Classify regions and move their boxes, for each class on its own.

    Args:
        num_classes: number of classes K without background.
        hidden_dim: width of the two fully connected layers.
        num_dense: number of fully connected layers.
        num_convs: number of 3x3 convolutions before them.
        conv_channels: width of those convolutions.
        batch_norm: whether they are followed by batch normalisations and have no bias,
            as in torchvision's v2.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: Lin et al. 2017, FPN, section 4.2; initialisation as in Fast R-CNN: normal
    with deviation 0.01 for classes and 0.001 for boxes.
    """

    def __init__(
        self,
        num_classes: int,
        hidden_dim: int = 1024,
        num_dense: int = 2,
        num_convs: int = 0,
        conv_channels: int = 256,
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.hidden_dim = hidden_dim
        self.num_dense = num_dense
        self.num_convs = num_convs
        self.conv_channels = conv_channels
        self.batch_norm = batch_norm

    def build(self, input_shape: Shape) -> None:
        """Create the hidden layers and the two outputs."""
        height, width, features = input_shape[-3:]
        self.convs, self.norms = hidden_convolutions(
            self.num_convs,
            self.conv_channels,
            (None, height, width, features),
            self.batch_norm,
            self.dtype_policy,
        )
        features = height * width * (self.conv_channels if self.convs else features)
        self.denses = []
        for i in range(self.num_dense):
            dense = self._dense(
                self.hidden_dim, f"dense_{i}", "glorot_uniform", activation="relu"
            )
            dense.build((None, features))
            features = self.hidden_dim
            self.denses.append(dense)
        normal = keras.initializers.RandomNormal
        # Background is the last class.
        self.classes = self._dense(self.num_classes + 1, "classes", normal(stddev=0.01))
        self.classes.build((None, features))
        self.deltas = self._dense(4 * self.num_classes, "deltas", normal(stddev=0.001))
        self.deltas.build((None, features))

    def _dense(
        self, units: int, name: str, initializer: Any, **kwargs: Any
    ) -> keras.layers.Dense:
        return keras.layers.Dense(
            units,
            kernel_initializer=initializer,
            dtype=self.dtype_policy,
            name=name,
            **kwargs,
        )

    def call(
        self, pooled: Tensor, training: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict for (B, R, S, S, C) pooled regions.

        Returns:
            class logits (B, R, K + 1), background last, and box deltas (B, R, K, 4).
        """
        number, *bins = pooled.shape[1:]
        hidden = ops.reshape(pooled, (-1, *bins))
        hidden = apply_convolutions(hidden, self.convs, self.norms, training)
        hidden = ops.reshape(
            hidden, (-1, hidden.shape[1] * hidden.shape[2] * hidden.shape[3])
        )
        for dense in self.denses:
            hidden = dense_by_rows(dense, hidden, training)
        class_logits, box_deltas = (
            dense_by_rows(dense, hidden, training)
            for dense in (self.classes, self.deltas)
        )
        return (
            ops.reshape(class_logits, (-1, number, self.num_classes + 1)),
            ops.reshape(box_deltas, (-1, number, self.num_classes, 4)),
        )

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, Shape]:
        """Give (B, R, K + 1) and (B, R, K, 4)."""
        regions = input_shape[:2]
        return (*regions, self.num_classes + 1), (*regions, self.num_classes, 4)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "hidden_dim": self.hidden_dim,
            "num_dense": self.num_dense,
            "num_convs": self.num_convs,
            "conv_channels": self.conv_channels,
            "batch_norm": self.batch_norm,
        }


@keras.saving.register_keras_serializable("kvision")
class MaskHead(keras.layers.Layer):
    """Predict the mask of each region for one class.

    A stack of 3x3 convolutions, an enlargement by two, and one linear map a class. The
    2x2 transposed convolution of the paper has no overlap: it is a matrix product that
    makes four cells of one, and the class's linear map can be applied before the cells
    are put in place. Only the map of the class asked for is computed.

    Args:
        num_classes: number of classes K without background.
        channels: width of the convolutions and of the enlarged map.
        num_convs: number of 3x3 convolutions.
        batch_norm: as of `BoxHead`.
        **kwargs: arguments of `keras.layers.Layer`.

    Source: He et al. 2017, Mask R-CNN, Figure 4 right.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 256,
        num_convs: int = 4,
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.channels = channels
        self.num_convs = num_convs
        self.batch_norm = batch_norm

    def build(self, pooled_shape: Shape, labels_shape: Shape | None = None) -> None:
        """Create convolutions, enlargement and the linear maps of the classes."""
        shape = (None, *pooled_shape[-3:])
        self.convs, self.norms = hidden_convolutions(
            self.num_convs, self.channels, shape, self.batch_norm, self.dtype_policy
        )
        if self.convs:
            shape = (*shape[:-1], self.channels)
        self.enlarge = keras.layers.Dense(
            4 * self.channels,
            activation="relu",
            kernel_initializer="he_normal",
            dtype=self.dtype_policy,
            name="enlarge",
        )
        self.enlarge.build(shape)
        self.class_kernel = self.add_weight(
            shape=(self.num_classes, self.channels),
            initializer=keras.initializers.RandomNormal(stddev=0.001),
            name="class_kernel",
        )
        self.class_bias = self.add_weight(
            shape=(self.num_classes,), initializer="zeros", name="class_bias"
        )

    def call(
        self, pooled: Tensor, labels: Tensor, training: bool | None = None
    ) -> Tensor:
        """Predict the logits of one mask a region.

        Args:
            pooled: (..., S, S, C) features of regions.
            labels: (...) int32 in [0, K): the class whose mask is wanted; values
                outside are clipped (padding).
            training: whether normalisations use statistics of the batch.

        Returns:
            (..., 2 S, 2 S) logits.
        """
        regions, side = pooled.shape[:-3], pooled.shape[-3]
        hidden = ops.reshape(pooled, (-1, *pooled.shape[-3:]))
        hidden = apply_convolutions(hidden, self.convs, self.norms, training)
        hidden = dense_by_rows(self.enlarge, hidden, training)
        hidden = ops.reshape(hidden, (-1, side * side * 4, self.channels))
        labels = ops.clip(ops.reshape(labels, (-1,)), 0, self.num_classes - 1)
        kernel = _rows(self.class_kernel, labels, hidden.dtype)
        bias = _rows(self.class_bias[:, None], labels, "float32")
        logits = ops.matmul(hidden, kernel[:, :, None])
        logits = ops.reshape(logits, (-1, side, side, 2, 2))
        logits = ops.transpose(logits, (0, 1, 3, 2, 4))
        logits = ops.cast(logits, "float32") + bias[:, :, None, None, None]
        leading = [-1 if size is None else size for size in regions[1:]]
        return ops.reshape(logits, (-1, *leading, 2 * side, 2 * side))

    def compute_output_spec(
        self, pooled: Tensor, labels: Tensor, training: bool | None = None
    ) -> Tensor:
        """Give (..., 2 S, 2 S) float32."""
        side = 2 * pooled.shape[-3]
        return keras.KerasTensor((*pooled.shape[:-3], side, side), "float32")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "channels": self.channels,
            "num_convs": self.num_convs,
            "batch_norm": self.batch_norm,
        }


def _rows(weight: Tensor, indices: Tensor, dtype: str) -> Tensor:
    """Gather rows of a (K, C) weight, with a dense gradient.

    The gradient of a gather along the first axis is a list of rows. Keras' optimizers
    take them for different ones, but many regions are of the same class: norms and
    squares would be wrong. Along the last axis TensorFlow adds them up.
    """
    columns = ops.take(ops.transpose(weight), indices, axis=1)
    return ops.cast(ops.transpose(columns), dtype)
