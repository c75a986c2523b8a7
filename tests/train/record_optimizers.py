"""Record what torch and timm do to a few weights: run with torch, not with Keras.

    /path/to/torch/python tests/train/record_optimizers.py

Writes tests/golden/torch_optimizers.npz: for "adamw" and "lamb" weights before and
after each of 4 steps under `param_groups_layer_decay`, with the gradients; and the
learning-rate scale and weight decay of every parameter of four models of timm.
"""

import json
from pathlib import Path

import numpy as np
import timm
import torch
from timm.optim import Lamb
from timm.optim._param_groups import param_groups_layer_decay

GOLDEN = Path(__file__).parents[1] / "golden" / "torch_optimizers.npz"
MODELS = (
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "twins_svt_small",
    "twins_pcpvt_small",
)
RATES = (0.01, 0.02, 0.015, 0.005)
DECAY, WEIGHT_DECAY = 0.6, 0.1
# Parameters of a tiny transformer with 2 blocks, by timm's names.
SHAPES = {
    "pos_embed": (1, 3, 4),
    "patch_embed.proj.weight": (4, 5),
    "blocks.0.attn.qkv.weight": (4, 6),
    "blocks.0.attn.qkv.bias": (6,),
    "blocks.1.norm1.weight": (4,),
    "blocks.1.mlp.fc1.weight": (4, 4),
    "norm.weight": (4,),
    "head.weight": (4, 3),
    "head.bias": (3,),
}


class Tiny(torch.nn.Module):
    """Parameters of those names, and the groups of timm's Vision Transformer."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in SHAPES.items():
            parent = self
            *path, last = name.split(".")
            for part in path:
                if part not in parent._modules:
                    parent.add_module(part, torch.nn.Module())
                parent = parent._modules[part]
            values = torch.randn(shape, generator=generator)
            parent.register_parameter(last, torch.nn.Parameter(values))

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        return timm.create_model(MODELS[0]).group_matcher(coarse)


def steps(name: str) -> dict[str, np.ndarray]:
    model = Tiny()
    groups = param_groups_layer_decay(
        model,
        weight_decay=WEIGHT_DECAY,
        no_weight_decay_list=("pos_embed",),
        layer_decay=DECAY,
    )
    if name == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=RATES[0], betas=(0.9, 0.999), eps=1e-8)
    else:
        optimizer = Lamb(groups, lr=RATES[0], eps=1e-6, max_grad_norm=None)
    generator = torch.Generator().manual_seed(1)
    arrays = {}
    for key, parameter in model.named_parameters():
        arrays[f"{name}/0/{key}"] = parameter.detach().numpy().copy()
    for number, rate in enumerate(RATES, start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        for key, parameter in model.named_parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            arrays[f"gradients/{number}/{key}"] = parameter.grad.numpy().copy()
        optimizer.step()
        for key, parameter in model.named_parameters():
            arrays[f"{name}/{number}/{key}"] = parameter.detach().numpy().copy()
    return arrays


def groups_of(name: str) -> str:
    model = timm.create_model(name)
    groups = param_groups_layer_decay(
        model,
        weight_decay=1.0,
        no_weight_decay_list=model.no_weight_decay(),
        layer_decay=0.5,
    )
    keys = {id(p): key for key, p in model.named_parameters()}
    found = {
        keys[id(p)]: (group["lr_scale"], group["weight_decay"])
        for group in groups
        for p in group["params"]
    }
    return json.dumps(found)


if __name__ == "__main__":
    groups = {f"groups/{name}": np.array(groups_of(name)) for name in MODELS}
    np.savez_compressed(GOLDEN, **{**steps("adamw"), **steps("lamb"), **groups})
    print(GOLDEN, GOLDEN.stat().st_size, "bytes; torch", torch.__version__)
