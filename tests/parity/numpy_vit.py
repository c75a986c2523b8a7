"""Google's Vision Transformers in NumPy, float64, by the names of their .npz files.

An independent implementation for where flax cannot be installed: written after
google-research/vision_transformer (vit_jax/models_vit.py, models_resnet.py) and
google-research/big_vision (models/vit.py), slow and plain. It knows the names of old
files and of new ones, and shares nothing with kvision.
"""

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Array = np.ndarray
Weights = Mapping[str, Array]


class Flax:
    """How flax keeps from dividing by zero in the ResNet of a hybrid."""

    group_norm_epsilon = 1e-6

    @staticmethod
    def deviation(kernel: Array) -> Array:
        return kernel.std((0, 1, 2)) + 1e-5


class Timm(Flax):
    """How timm does, and kvision by default."""

    group_norm_epsilon = 1e-5

    @staticmethod
    def deviation(kernel: Array) -> Array:
        return np.sqrt(kernel.var((0, 1, 2)) + 1e-8)


def vit(
    weights: Weights, images: Array, num_heads: int, numerics: type[Flax] = Flax
) -> dict[str, Array]:
    """Run a model.

    Args:
        weights: by name, without optional prefixes.
        images: (B, H, W, 3) in [-1, 1].
        num_heads: of the attention.
        numerics: of the ResNet of a hybrid.

    Returns:
        "embedded" and "block_0"...: tokens (B, N, D); "pooled" (B, D); "logits".
    """
    weights = {name: np.asarray(x, np.float64) for name, x in weights.items()}
    x = images.astype(np.float64)
    if "conv_root/kernel" in weights:
        x = resnet(weights, x, numerics)
    kernel = weights["embedding/kernel"]
    x = convolution(x, kernel, kernel.shape[0], "VALID") + weights["embedding/bias"]
    x = x.reshape(len(x), -1, x.shape[-1])
    if "pos_embedding" in weights:  # big_vision: patches alone have positions
        x = with_class_token(weights, x + weights["pos_embedding"])
    else:
        x = with_class_token(weights, x)
        x = x + weights["Transformer/posembed_input/pos_embedding"]
    stages = {"embedded": x}
    for number in range(depth_of(weights)):
        x = block(weights, x, number, num_heads)
        stages[f"block_{number}"] = x
    x = norm(weights, "Transformer/encoder_norm", x)
    if "MAPHead_0/probe" in weights:
        x = attention_pooling(weights, x, num_heads)
    else:
        x = x[:, 0] if "cls" in weights else x.mean(1)
    if "pre_logits/kernel" in weights:
        x = np.tanh(dense(weights, "pre_logits", x))
    stages["pooled"] = x
    stages["logits"] = dense(weights, "head", x)
    return stages


def with_class_token(weights: Weights, x: Array) -> Array:
    if "cls" not in weights:
        return x
    token = np.broadcast_to(weights["cls"], (len(x), 1, x.shape[-1]))
    return np.concatenate([token, x], axis=1)


def depth_of(weights: Weights) -> int:
    stacked = "Transformer/encoderblock/LayerNorm_0/scale"
    if stacked in weights:
        return len(weights[stacked])
    starts = {name.split("/")[1] for name in weights if "encoderblock_" in name}
    return len(starts)


def block(weights: Weights, x: Array, number: int, num_heads: int) -> Array:
    prefix = f"Transformer/encoderblock_{number}/"
    stack = "Transformer/encoderblock/"
    own = {n[len(prefix) :]: w for n, w in weights.items() if n.startswith(prefix)}
    own |= {n[len(stack) :]: w[number] for n, w in weights.items() if stack in n}
    # Flax numbered the parts of a block together; now it numbers each kind.
    old = "MlpBlock_3/Dense_0/kernel" in own
    attend, second, mlp_name = (
        ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
        if old
        else ("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
    )
    y = norm(own, "LayerNorm_0", x)
    x = x + attention(own, attend, y, y, num_heads)
    return x + mlp(own, mlp_name, norm(own, second, x))


def attention(
    weights: Weights, name: str, queries: Array, keys: Array, num_heads: int
) -> Array:
    def heads(part: str, tokens: Array) -> Array:
        kernel = weights[f"{name}/{part}/kernel"]
        assert kernel.shape[1] == num_heads
        made = np.einsum("bnd,dhk->bhnk", tokens, kernel)
        return made + weights[f"{name}/{part}/bias"][:, None]

    q, k, v = heads("query", queries), heads("key", keys), heads("value", keys)
    logits = np.einsum("bhqk,bhnk->bhqn", q, k) / np.sqrt(q.shape[-1])
    scores = np.exp(logits - logits.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    mixed = np.einsum("bhqn,bhnk->bqhk", scores, v)
    out = np.einsum("bqhk,hkd->bqd", mixed, weights[f"{name}/out/kernel"])
    return out + weights[f"{name}/out/bias"]


def attention_pooling(weights: Weights, x: Array, num_heads: int) -> Array:
    probe = np.broadcast_to(weights["MAPHead_0/probe"], (len(x), 1, x.shape[-1]))
    name = "MAPHead_0/MultiHeadDotProductAttention_0"
    x = attention(weights, name, probe, x, num_heads)
    y = norm(weights, "MAPHead_0/LayerNorm_0", x)
    return (x + mlp(weights, "MAPHead_0/MlpBlock_0", y))[:, 0]


def mlp(weights: Weights, name: str, x: Array) -> Array:
    hidden = gelu(dense(weights, f"{name}/Dense_0", x))
    return dense(weights, f"{name}/Dense_1", hidden)


def gelu(x: Array) -> Array:
    """Flax's default is the approximation."""
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def dense(weights: Weights, name: str, x: Array) -> Array:
    return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]


def norm(weights: Weights, name: str, x: Array) -> Array:
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return x * weights[f"{name}/scale"] + weights[f"{name}/bias"]


def resnet(weights: Weights, x: Array, numerics: type[Flax]) -> Array:
    x = standardized(weights, "conv_root", x, 2, numerics)
    x = np.maximum(group_norm(weights, "gn_root", x, numerics), 0)
    padded = np.pad(x, [(0, 0), *pads(x, 3, 2), (0, 0)], constant_values=-np.inf)
    windows = sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
    x = windows.max((-1, -2))
    units = {name.rsplit("/", 2)[0] for name in weights if "/unit" in name}
    for unit in sorted(units):  # fewer than ten of each
        stride = 2 if unit.endswith("/unit1") and not unit.startswith("block1/") else 1
        x = residual_unit(weights, unit, x, stride, numerics)
    return x


def residual_unit(
    weights: Weights, name: str, x: Array, stride: int, numerics: type[Flax]
) -> Array:
    shortcut = x
    if f"{name}/conv_proj/kernel" in weights:
        shortcut = standardized(weights, f"{name}/conv_proj", x, stride, numerics)
        shortcut = group_norm(weights, f"{name}/gn_proj", shortcut, numerics)
    for number in (1, 2, 3):
        own = stride if number == 2 else 1
        x = standardized(weights, f"{name}/conv{number}", x, own, numerics)
        x = group_norm(weights, f"{name}/gn{number}", x, numerics)
        x = np.maximum(x, 0) if number < 3 else x
    return np.maximum(x + shortcut, 0)


def standardized(
    weights: Weights, name: str, x: Array, stride: int, numerics: type[Flax]
) -> Array:
    kernel = weights[f"{name}/kernel"]
    kernel = (kernel - kernel.mean((0, 1, 2))) / numerics.deviation(kernel)
    return convolution(x, kernel, stride, "SAME")


def group_norm(weights: Weights, name: str, x: Array, numerics: type[Flax]) -> Array:
    batch, height, width, channels = x.shape
    groups = x.reshape(batch, height * width, 32, channels // 32)
    groups = groups - groups.mean((1, 3), keepdims=True)
    variance = (groups**2).mean((1, 3), keepdims=True)
    groups = groups / np.sqrt(variance + numerics.group_norm_epsilon)
    scale, bias = (weights[f"{name}/{kind}"].ravel() for kind in ("scale", "bias"))
    return groups.reshape(x.shape) * scale + bias


def convolution(x: Array, kernel: Array, stride: int, padding: str) -> Array:
    side = kernel.shape[0]
    if padding == "SAME":
        x = np.pad(x, [(0, 0), *pads(x, side, stride), (0, 0)])
    windows = sliding_window_view(x, (side, side), axis=(1, 2))
    return np.einsum(
        "bhwcij,ijcd->bhwd", windows[:, ::stride, ::stride], kernel, optimize=True
    )


def pads(x: Array, side: int, stride: int) -> list[tuple[int, int]]:
    """Return XLA's padding "SAME": what is odd comes last."""
    found = []
    for size in x.shape[1:3]:
        total = max((-(-size // stride) - 1) * stride + side - size, 0)
        found.append((total // 2, total - total // 2))
    return found
