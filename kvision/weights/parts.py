"""Which of the dicts in a pickle are the weights.

`torch.save` and pickle keep whatever dict a script made: names to tensors, or
`{"model": names to tensors, "optimizer": ..., "epoch": 3}`.
"""

from typing import Any

from kvision.weights.checkpoint import CheckpointError, Contents, Tensor, naming, shown
from kvision.weights.pickles import PickledTensor

__all__ = ["contents_of"]

# What published files and training scripts call it, first come first taken.
_USUAL = ("model", "state_dict", "model_state_dict", "model_ema", "state_dict_ema")
_PARALLEL = "module."  # before every name, from torch's DataParallel
_MAX_DEPTH = 8


def contents_of(tree: Any, part: str | None) -> Contents:
    """Take the tensors out of what a pickle holds.

    The part is that of `_USUAL` that comes first; without one, the whole if there are
    tensors in it, or else the only dict in it that has tensors. Dicts in the part are
    joined to names with "/", and "module." before every name is dropped.

    Args:
        tree: the content of the pickle.
        part: the key of the dict to take instead, "" for the whole.

    Returns:
        The tensors and the names of everything else.

    Raises:
        CheckpointError: if it is no dict, has no such part or several to choose from,
            or a tensor in it is damaged.
    """
    if not isinstance(tree, dict):
        raise CheckpointError(
            f"expected a dict of names to tensors, it holds a {type(tree).__name__}. "
            "Save the dict of its tensors, model.state_dict() in torch"
        )
    name = _choose(tree) if part is None else part
    found = _part(tree, name) if name else tree
    tensors, left_out = _flatten(found)
    besides = [str(key) for key in tree if name and key != name]
    return Contents(_without_prefix(tensors), name, tuple(besides + left_out))


def _choose(tree: dict[Any, Any]) -> str:
    parts = _parts(tree)
    usual = [name for name in _USUAL if name in parts]
    if usual:
        return usual[0]
    if not parts or _has_tensors(tree):
        return ""
    if len(parts) == 1:
        return parts[0]
    raise CheckpointError(
        f'it has several dicts of tensors: {_list(parts)}. Pass part="…"'
    )


def _part(tree: dict[Any, Any], name: str) -> dict[Any, Any]:
    found = tree.get(name)
    if not isinstance(found, dict):
        raise CheckpointError(
            f"it has no part {name!r}. Dicts of tensors in it: {_list(_parts(tree))}"
        )
    return found


def _parts(tree: dict[Any, Any]) -> list[str]:
    return [key for key, value in tree.items() if _is_part(key, value)]


def _is_part(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, dict) and _has_tensors(value)


def _has_tensors(tree: dict[Any, Any]) -> bool:
    return any(isinstance(value, PickledTensor) for value in tree.values())


def _list(names: list[str]) -> str:
    return ", ".join(repr(name[:40]) for name in names[:8]) or "none"


def _flatten(tree: dict[Any, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of nested dicts by path, and the paths of what is none."""
    tensors: dict[str, Tensor] = {}
    left_out: list[str] = []
    seen: set[int] = set()

    def visit(branch: dict[Any, Any], prefix: str, depth: int) -> None:
        # Through a pickle's memo a dict can be in itself, or in a thousand others.
        if depth > _MAX_DEPTH or id(branch) in seen:
            raise CheckpointError("its dicts are nested too deeply, or in each other")
        seen.add(id(branch))
        for key, value in branch.items():
            name = f"{prefix}{key}"
            if isinstance(value, dict):
                visit(value, f"{name}/", depth + 1)
            elif not isinstance(value, PickledTensor):
                left_out.append(name)
            elif name in tensors:
                raise CheckpointError(f"two tensors have the name {shown(name)!r}")
            else:
                with naming(shown(name)):
                    tensors[name] = value.tensor()

    visit(tree, "", 1)
    return tensors, left_out


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if not all(name.startswith(_PARALLEL) for name in tensors):
        return tensors
    return {name.removeprefix(_PARALLEL): tensor for name, tensor in tensors.items()}
