"""The published models of the family, and what they cost."""

from typing import NamedTuple

from kvision.models.costs import Costs

__all__ = ["PUBLISHED", "Published"]


class Published(NamedTuple):
    """A model that has been published.

    Attributes:
        builder: name of its function in `kvision.models`.
        variant: its first argument.
        image_size: (height, width) in pixels.
        arguments: further arguments.
        costs: parameters and multiply-adds of timm's model, 1000 classes.
    """

    builder: str
    variant: str
    image_size: tuple[int, int]
    arguments: dict[str, bool]
    costs: Costs


def _row(
    builder: str,
    variant: str,
    parameters: int,
    multiply_adds: int,
    side: int = 224,
    **arguments: bool,
) -> Published:
    costs = Costs(parameters, multiply_adds)
    return Published(builder, variant, (side, side), arguments, costs)


# Counted in timm 1.0.31 by torch.utils.flop_counter (tests/parity/record_costs.py):
# matrix products, those of attention among them, and convolutions.
PUBLISHED = (
    _row("vit", "Ti/16", 5717416, 1253683200),
    _row("vit", "S/16", 22050664, 4598882304),
    _row("vit", "S/32", 22878952, 1142909952),
    _row("vit", "B/16", 86567656, 17563828224),
    _row("vit", "B/16", 86859496, 55484350464, side=384),
    _row("vit", "B/32", 88224232, 4409186304),
    _row("vit", "L/16", 304326632, 61554712576),
    _row("vit", "L/32", 306535400, 15377539072),
    _row("vit", "H/14", 632045800, 167295109120),
    _row("vit", "g/14", 1012611432, 267031491584),
    _row("hybrid_vit", "R+Ti/16", 6337704, 433681920),
    _row("hybrid_vit", "R26+S/32", 36431912, 3463851008),
    _row("hybrid_vit", "R50+B/16", 98659112, 21535358976),
    _row("hybrid_vit", "R50+L/32", 328994856, 19413295104),
    _row("deit", "Ti/16", 5717416, 1253683200),
    _row("deit", "S/16", 22050664, 4598882304),
    _row("deit", "B/16", 86567656, 17563828224),
    _row("deit", "Ti/16", 5910800, 1261003776, distilled=True),
    _row("deit", "S/16", 22436432, 4624140288, distilled=True),
    _row("deit", "B/16", 87338192, 17656811520, distilled=True),
    _row("deit3", "S/16", 22059496, 4598882304),
    _row("deit3", "M/16", 38849512, 7990968320),
    _row("deit3", "B/16", 86585320, 17563828224),
    _row("deit3", "L/16", 304374760, 61554712576),
    _row("deit3", "H/14", 632126440, 167295109120),
    _row("twins_svt", "S", 24060776, 2927353344),
    _row("twins_svt", "B", 56070952, 8562612480),
    _row("twins_svt", "L", 99271400, 15111777280),
    _row("twins_pcpvt", "S", 24106216, 3809459968),
    _row("twins_pcpvt", "B", 43828456, 6652933888),
    _row("twins_pcpvt", "L", 60989672, 9807524096),
)
