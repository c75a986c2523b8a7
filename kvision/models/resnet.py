"""ResNet-50 and ResNet-101 in torchvision's layout, as backbones: C2 to C5."""

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
) -> keras.Model:
    """Build a ResNet without its classifier.

    The stride of a stage is in its 3x3 convolution and every strided layer is padded
    symmetrically, so that torchvision's weights compute what they compute there.

    Args:
        variant: "resnet50" or "resnet101".
        image_size: (height, width) in pixels; None for any.
        num_channels: channels of the input.
        freeze_batch_norm: whether normalisation uses constants instead of batches.
        batch_norm_epsilon: added to the variance; torchvision's COCO_V1 detectors were
            trained with 0.
        dtype: dtype policy; None for the global one.

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

    def normalization(name: str) -> keras.layers.Layer:
        if freeze_batch_norm:
            return FrozenBatchNormalization(batch_norm_epsilon, dtype=dtype, name=name)
        return keras.layers.BatchNormalization(
            momentum=0.9, epsilon=batch_norm_epsilon, dtype=dtype, name=name
        )

    def convolution(
        x: Any, filters: int, kernel_size: int, strides: int, conv: str, norm: str
    ) -> Any:
        padding = "same"
        if strides > 1 and kernel_size > 1:
            margin = kernel_size // 2
            x = keras.layers.ZeroPadding2D(margin, dtype=dtype, name=f"{conv}_pad")(x)
            padding = "valid"
        x = keras.layers.Conv2D(
            filters,
            kernel_size,
            strides,
            padding,
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out"),
            dtype=dtype,
            name=conv,
        )(x)
        return normalization(norm)(x)

    def relu(x: Any, name: str) -> Any:
        return keras.layers.ReLU(dtype=dtype, name=name)(x)

    def bottleneck(x: Any, filters: int, strides: int, name: str) -> Any:
        shortcut = x
        if strides > 1 or x.shape[-1] != 4 * filters:
            shortcut = convolution(
                x,
                4 * filters,
                1,
                strides,
                f"{name}_downsample_0",
                f"{name}_downsample_1",
            )
        x = convolution(x, filters, 1, 1, f"{name}_conv1", f"{name}_bn1")
        x = relu(x, f"{name}_relu1")
        x = convolution(x, filters, 3, strides, f"{name}_conv2", f"{name}_bn2")
        x = relu(x, f"{name}_relu2")
        x = convolution(x, 4 * filters, 1, 1, f"{name}_conv3", f"{name}_bn3")
        x = keras.layers.Add(dtype=dtype, name=f"{name}_add")([x, shortcut])
        return relu(x, f"{name}_relu3")

    images = keras.Input((*image_size, num_channels), name="images")
    x = relu(convolution(images, 64, 7, 2, "conv1", "bn1"), "relu")
    x = keras.layers.ZeroPadding2D(1, dtype=dtype, name="maxpool_pad")(x)
    x = keras.layers.MaxPooling2D(3, 2, dtype=dtype, name="maxpool")(x)
    features = {}
    for stage, blocks in enumerate(VARIANTS[variant], start=1):
        for block in range(blocks):
            strides = 2 if stage > 1 and block == 0 else 1
            name = f"layer{stage}_{block}"
            x = bottleneck(x, 64 * 2 ** (stage - 1), strides, name)
        features[f"C{stage + 1}"] = x
    return keras.Model(images, features, name=variant)
