"""Print the costs of timm's models for `kvision/models/published.py`.

python tests/parity/record_costs.py     # needs timm
"""

import timm
import timm.layers
import torch
from torch.utils.flop_counter import FlopCounterMode

NAMES = """
vit_tiny_patch16_224 vit_small_patch16_224 vit_small_patch32_224 vit_base_patch16_224
vit_base_patch16_384 vit_base_patch32_224 vit_large_patch16_224 vit_large_patch32_224
vit_huge_patch14_224 vit_giant_patch14_224 vit_tiny_r_s16_p8_224 vit_small_r26_s32_224
vit_base_r50_s16_224 vit_large_r50_s32_224 deit_tiny_patch16_224 deit_small_patch16_224
deit_base_patch16_224 deit_tiny_distilled_patch16_224 deit_small_distilled_patch16_224
deit_base_distilled_patch16_224 deit3_small_patch16_224 deit3_medium_patch16_224
deit3_base_patch16_224 deit3_large_patch16_224 deit3_huge_patch14_224 twins_svt_small
twins_svt_base twins_svt_large twins_pcpvt_small twins_pcpvt_base twins_pcpvt_large
"""


def main() -> None:
    timm.layers.set_fused_attn(False)  # the counter would miss the fused op
    for name in NAMES.split():
        with (
            torch.device("meta"),
            torch.no_grad(),
            FlopCounterMode(display=False) as counter,
        ):
            model = timm.create_model(name, num_classes=1000).eval()
            model(torch.zeros(1, *model.default_cfg["input_size"]))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(name, parameters, counter.get_total_flops() // 2)


if __name__ == "__main__":
    main()
