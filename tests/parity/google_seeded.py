"""Google's checkpoints from a few numbers: names, shapes and seeded values.

Names and shapes are those of google-research/vision_transformer and big_vision, written
down here once more; the layout that kvision reads is not asked.
"""

import math

import numpy as np

from tests.parity.seeded import uniform

Shape = tuple[int, ...]
Weights = dict[str, np.ndarray]

# Names of attention, second normalisation and MLP of a block.
OLD = ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
NEW = ("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")


def transformer(
    width: int, depth: int, num_heads: int, mlp_dim: int, parts: tuple[str, str, str]
) -> dict[str, Shape]:
    """List the tensors of the blocks and the last normalisation."""
    shapes = norm("Transformer/encoder_norm", width)
    attend, second, mlp_name = parts
    for number in range(depth):
        name = f"Transformer/encoderblock_{number}"
        shapes |= norm(f"{name}/LayerNorm_0", width) | norm(f"{name}/{second}", width)
        shapes |= attention(f"{name}/{attend}", width, num_heads)
        shapes |= mlp(f"{name}/{mlp_name}", width, mlp_dim)
    return shapes


def embedding(patch_size: int, channels: int, width: int) -> dict[str, Shape]:
    return {
        "embedding/kernel": (patch_size, patch_size, channels, width),
        "embedding/bias": (width,),
    }


def pooling(width: int, num_heads: int, mlp_dim: int) -> dict[str, Shape]:
    return {
        "MAPHead_0/probe": (1, 1, width),
        **attention("MAPHead_0/MultiHeadDotProductAttention_0", width, num_heads),
        **norm("MAPHead_0/LayerNorm_0", width),
        **mlp("MAPHead_0/MlpBlock_0", width, mlp_dim),
    }


def resnet(stages: tuple[int, ...]) -> dict[str, Shape]:
    """List the tensors of the ResNet before a hybrid, as they were published."""
    shapes = {"conv_root/kernel": (7, 7, 3, 64), **group_norm("gn_root", 64)}
    inputs = 64
    for stage, depth in enumerate(stages):
        width = 64 << stage
        for unit in range(depth):
            name = f"block{stage + 1}/unit{unit + 1}"
            sizes = {
                1: (1, inputs, width),
                2: (3, width, width),
                3: (1, width, 4 * width),
            }
            for number, (side, *io) in sizes.items():
                shapes[f"{name}/conv{number}/kernel"] = (side, side, *io)
                shapes |= group_norm(f"{name}/gn{number}", io[1])
            if not unit:
                shapes[f"{name}/conv_proj/kernel"] = (1, 1, inputs, 4 * width)
                shapes |= group_norm(f"{name}/gn_proj", 4 * width)
            inputs = 4 * width
    return shapes


def dense(name: str, inputs: int, outputs: int) -> dict[str, Shape]:
    return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}


def mlp(name: str, width: int, mlp_dim: int) -> dict[str, Shape]:
    return {
        **dense(f"{name}/Dense_0", width, mlp_dim),
        **dense(f"{name}/Dense_1", mlp_dim, width),
    }


def norm(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}/scale": (width,), f"{name}/bias": (width,)}


def group_norm(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}/{kind}": (1, 1, 1, width) for kind in ("scale", "bias")}


def attention(name: str, width: int, num_heads: int) -> dict[str, Shape]:
    heads = (num_heads, width // num_heads)
    shapes: dict[str, Shape] = {
        f"{name}/out/kernel": (*heads, width),
        f"{name}/out/bias": (width,),
    }
    for part in ("query", "key", "value"):
        shapes[f"{name}/{part}/kernel"] = (width, *heads)
        shapes[f"{name}/{part}/bias"] = heads
    return shapes


def weights_of(shapes: dict[str, Shape]) -> Weights:
    """Make all tensors from their names."""
    return {name: weights_for(name, shape) for name, shape in shapes.items()}


def weights_for(name: str, shape: Shape) -> np.ndarray:
    """Make one tensor.

    Args:
        name: Google's, without optional prefixes.
        shape: as in the file.

    Returns:
        float32 array of that shape.
    """
    kind = name.rpartition("/")[2]
    if kind in ("cls", "pos_embedding", "probe"):
        return uniform(name, shape, -1, 1)
    if kind == "scale":
        return uniform(name, shape, 0.7, 1.3)
    if kind == "bias":
        return uniform(name, shape, -0.2, 0.2)
    # Inputs of a product come first, but for "out", which has two axes of them.
    is_out = name.endswith("/out/kernel")
    is_convolution = len(shape) == 4
    fan_in = math.prod(shape[:-1]) if is_out or is_convolution else shape[0]
    gain = 1.7 if "/query/" in name or "/key/" in name else 1.0
    limit = gain * math.sqrt(3.0 / fan_in)
    return uniform(name, shape, -limit, limit)


def stacked(weights: Weights) -> Weights:
    """Stack the blocks as big_vision does when it scans over them."""
    prefix = "Transformer/encoderblock_"
    first = [name for name in weights if name.startswith(f"{prefix}0/")]
    depth = sum(
        name.endswith("LayerNorm_0/scale") for name in weights if prefix in name
    )
    found = {name: x for name, x in weights.items() if prefix not in name}
    for name in first:
        rest = name.removeprefix(f"{prefix}0/")
        blocks = [weights[f"{prefix}{number}/{rest}"] for number in range(depth)]
        found[f"Transformer/encoderblock/{rest}"] = np.stack(blocks)
    return found
