"""The layout of our own files: variables by their paths.

`kvision.weights.save` writes them; checkpoints of training runs have the same names
behind "model/00012 ", and what the optimizer keeps besides.
"""

import re
from collections.abc import Iterator, Mapping, Set
from typing import Any

from kvision.weights.places import Place, Shape, plain
from kvision.weights.tokens import positions

__all__ = ["is_spare", "places", "recognises", "renamed", "variables"]

_HEADS = ("head/", "head_dist/")
_OF_A_RUN = re.compile(r"^model/\d+ ")


def recognises(names: Set[str]) -> bool:
    """Say whether a checkpoint has this layout.

    Args:
        names: of its tensors.

    Returns:
        Whether it has.
    """
    # Every model has a normalisation. Keras' own files end alike, but they repeat the
    # name of a layer: "bn_conv1/bn_conv1/gamma".
    layers = [name.split("/")[:-1] for name in names if name.endswith("/gamma")]
    return any(layer[-1] not in layer[:-1] for layer in layers)


def renamed(name: str) -> str:
    """Return the path of the variable that a tensor of a run's checkpoint is of.

    Args:
        name: in the file.

    Returns:
        The path.
    """
    return _OF_A_RUN.sub("", name)


def is_spare(name: str) -> bool:
    """Say whether a tensor is the state of a training run.

    Args:
        name: of the tensor.

    Returns:
        Whether it is.
    """
    return name.startswith(("optimizer/", "metrics/")) or "seed_generator" in name


def places(model: Any, shapes: Mapping[str, Shape]) -> Iterator[Place]:
    """List where the tensors go.

    Args:
        model: any model of `kvision.models`.
        shapes: of the tensors of the checkpoint.

    Yields:
        A place for each variable.
    """
    layers = {layer.name: layer for layer in model.layers}
    embedding: Any = layers.get("position_embedding")
    table = getattr(embedding, "table", None)
    for path, variable in variables(model).items():
        if variable is table and hasattr(embedding, "num_prefix_tokens"):
            prefix = embedding.num_prefix_tokens
            yield positions(embedding, path, prefix, embedding.interpolation)
        else:
            yield from plain(variable, path, is_head=path.startswith(_HEADS))


def variables(model: Any) -> dict[str, Any]:
    """Name the weights of a model.

    Args:
        model: a built model.

    Returns:
        Path -> Keras variable.

    Raises:
        ValueError: two of them have the same path.
    """
    found: dict[str, Any] = {}
    for variable in model.weights:
        if variable.path in found:
            raise ValueError(
                f"Two weights of {model.name!r} are called {variable.path!r}. Give its "
                "layers names of their own"
            )
        found[variable.path] = variable
    return found
