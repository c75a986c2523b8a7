"""A matrix product in torch: 2048 x 2048 x 2048."""

import sys
from collections.abc import Callable

import torch

from benchmarks.turns import take_turns


def prepare() -> Callable[[], object]:
    """Return a function that multiplies two matrices."""
    matrix = torch.randn(2048, 2048).to(getattr(torch, sys.argv[1]))
    return lambda: matrix @ matrix


take_turns(prepare)
