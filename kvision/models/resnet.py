"""ResNet-50 and ResNet-101 in torchvision's layout, as backbones: C2 to C5."""

from dataclasses import dataclass
from typing import Any

import keras

from kvision.layers.normalization import FrozenBatchNormalization

__all__ = ["VARIANTS", "resnet"]

# Blocks of each stage. He et al. 2016, Deep Residual Learning, Table 1.
VARIANTS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


def resnet(
    variant: str,
    image_size: tuple[int | None, int | None] = (None, None),
    num_channels: int = 3,
    freeze_batch_norm: bool = False,
    batch_norm_epsilon: float = 1e-5,
    dtype: Any = None,
    *,
    stride_in_1x1: bool = False,
    pool_padding: str = "symmetric",
) -> keras.Model:
    """Build a ResNet without its classifier.

    The stride of a stage is in its 3x3 convolution and every strided layer is padded
    symmetrically, so that torchvision's weights compute what they compute there.
    Older ones, among them detectron2's and matterport's, need the last arguments.

    Args:
        variant: "resnet50" or "resnet101".
        image_size: (height, width) in pixels; None for any.
        num_channels: channels of the input.
        freeze_batch_norm: whether normalisation uses constants instead of batches.
        batch_norm_epsilon: added to the variance; torchvision's COCO_V1 detectors were
            trained with 0.
        dtype: dtype policy; None for the global one.
        stride_in_1x1: whether the stride of a stage is in its first convolution.
        pool_padding: "symmetric", or "same" for TensorFlow's padding of the pooling,
            which is at the end alone if the size is even.

    Returns:
        Model from normalised images (B, H, W, num_channels) to {"C2": (B, H/4, W/4,
        256), "C3": (..., 512), "C4": (..., 1024), "C5": (B, H/32, W/32, 2048)}.

    Raises:
        ValueError: for an unknown variant.

    Source: torchvision `models/resnet.py` ("ResNet v1.5").
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"variant must be one of {sorted(VARIANTS)}. Received: variant={variant!r}"
        )
    if pool_padding not in ("symmetric", "same"):
        raise ValueError(
            'pool_padding must be "symmetric" or "same". Received: '
            f"pool_padding={pool_padding!r}"
        )

    make = _LayerMaker(freeze_batch_norm, batch_norm_epsilon, dtype, stride_in_1x1)
    images = keras.Input((*image_size, num_channels), name="images")
    x = make.relu(make.convolution(images, 64, 7, 2, "conv1", "bn1"), "relu")
    if pool_padding == "symmetric":
        x = keras.layers.ZeroPadding2D(1, dtype=dtype, name="maxpool_pad")(x)
    padding = "valid" if pool_padding == "symmetric" else "same"
    x = keras.layers.MaxPooling2D(3, 2, padding, dtype=dtype, name="maxpool")(x)
    features = {}
    for stage, blocks in enumerate(VARIANTS[variant], start=1):
        for block in range(blocks):
            strides = 2 if stage > 1 and block == 0 else 1
            name = f"layer{stage}_{block}"
            x = make.bottleneck(x, 64 * 2 ** (stage - 1), strides, name)
        features[f"C{stage + 1}"] = x
    return keras.Model(images, features, name=variant)


@dataclass(frozen=True)
class _LayerMaker:
    """Make the pieces of a residual network with the same options everywhere."""

    freeze_batch_norm: bool
    batch_norm_epsilon: float
    dtype: Any
    stride_in_1x1: bool

    def normalization(self, name: str) -> keras.layers.Layer:
        """Make a batch normalisation, or the frozen form of it."""
        if self.freeze_batch_norm:
            return FrozenBatchNormalization(
                self.batch_norm_epsilon, dtype=self.dtype, name=name
            )
        return keras.layers.BatchNormalization(
            momentum=0.9, epsilon=self.batch_norm_epsilon, dtype=self.dtype, name=name
        )

    def convolution(
        self, x: Any, filters: int, kernel_size: int, strides: int, conv: str, norm: str
    ) -> Any:
        """Apply a convolution, padded symmetrically, and its normalisation."""
        padding = "same"
        if strides > 1 and kernel_size > 1:
            x = keras.layers.ZeroPadding2D(
                kernel_size // 2, dtype=self.dtype, name=f"{conv}_pad"
            )(x)
            padding = "valid"
        x = keras.layers.Conv2D(
            filters,
            kernel_size,
            strides,
            padding,
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out"),
            dtype=self.dtype,
            name=conv,
        )(x)
        return self.normalization(norm)(x)

    def relu(self, x: Any, name: str) -> Any:
        """Apply a rectifier."""
        return keras.layers.ReLU(dtype=self.dtype, name=name)(x)

    def bottleneck(self, x: Any, filters: int, strides: int, name: str) -> Any:
        """Apply a block of three convolutions and a shortcut."""
        first, second = (strides, 1) if self.stride_in_1x1 else (1, strides)
        shortcut = x
        if strides > 1 or x.shape[-1] != 4 * filters:
            shortcut = self.convolution(
                x,
                4 * filters,
                1,
                strides,
                f"{name}_downsample_0",
                f"{name}_downsample_1",
            )
        x = self.convolution(x, filters, 1, first, f"{name}_conv1", f"{name}_bn1")
        x = self.relu(x, f"{name}_relu1")
        x = self.convolution(x, filters, 3, second, f"{name}_conv2", f"{name}_bn2")
        x = self.relu(x, f"{name}_relu2")
        x = self.convolution(x, 4 * filters, 1, 1, f"{name}_conv3", f"{name}_bn3")
        x = keras.layers.Add(dtype=self.dtype, name=f"{name}_add")([x, shortcut])
        return self.relu(x, f"{name}_relu3")
