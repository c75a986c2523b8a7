"""A short word for all names and shapes of a checkpoint."""

import hashlib
from collections.abc import Mapping


def hash_of(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Hash the names and shapes of tensors: recorders and tests call it."""
    lines = sorted(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
