"""Weights to begin with: those of another model of the same builder."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from kvision.layers import TokenScorer
from kvision.weights import load, read_checkpoint
from kvision.weights.kvision import renamed

__all__ = ["load_model_file", "load_pretrained"]

_log = logging.getLogger("kvision.train")

_HEADS = ("head", "head_dist")


def load_model_file(path: "str | Path") -> keras.Model:
    """Load a `.keras` file in safe mode, uncompiled.

    Args:
        path: the file.

    Returns:
        The model.

    Raises:
        ValueError: it is no such file.
    """
    path = Path(path)
    if path.suffix != ".keras" or not path.is_file():
        raise ValueError(f"Expected a .keras file that exists. Received: {path}")
    return keras.models.load_model(path, compile=False, safe_mode=True)


def load_pretrained(
    model: keras.Model, path: "str | Path", build: Callable[[int], keras.Model]
) -> None:
    """Take weights from a file, except for a head of other classes.

    Learned positions are resampled where a `.keras` file is of another image size. A
    DynamicViT may begin with a model that keeps all patches: what judges them begins
    anew. What is left as it was is reported by a warning of the logger "kvision.train".

    Args:
        model: the model that receives them.
        path: `.keras` or `.weights.h5` file, or a `.safetensors` file whose names are
            paths of variables, such as a checkpoint of a run.
        build: function of a number of classes that builds `model` anew with them, for
            files that hold weights alone.

    Raises:
        ValueError: the file cannot be read, or is of another model.
    """
    source = _read(Path(path), build)
    own = {layer.name: layer for layer in source.layers if layer.weights}
    missing = [
        layer.name
        for layer in model.layers
        if layer.weights and layer.name not in own and not _may_be_new(layer)
    ]
    if missing:
        raise ValueError(
            f"{path} is of another model: it has no layer {missing[0]!r}"
            + (f", and {len(missing) - 1} more are missing" if missing[1:] else "")
        )
    for layer in model.layers:
        if layer.weights and not (_may_be_new(layer) and _is_new(layer, own, path)):
            _carry_over(layer, own[layer.name], path)


def _read(path: Path, build: Callable[[int], keras.Model]) -> keras.Model:
    if not path.is_file():
        raise ValueError(f"No such file of weights: {path}")
    if path.suffix == ".keras":
        return load_model_file(path)
    if path.name.endswith(".weights.h5"):
        source = build(_classes_in_h5(path))
        try:
            source.load_weights(path)
        except ValueError as error:
            raise _other_shapes(path, error) from error
        return source
    if path.suffix == ".safetensors":
        source = build(_num_classes(path))
        load(source, path, "kvision")
        return source
    raise ValueError(
        f"weights must be a .keras, .weights.h5 or .safetensors file. Received: {path}"
    )


def _classes_in_h5(path: Path) -> int:
    import h5py

    with h5py.File(path, "r") as file:
        # Keras calls layers by their classes there.
        bias = file.get("layers/classification_head/vars/1")
        if not isinstance(bias, h5py.Dataset):
            raise ValueError(f"{path} holds no ClassificationHead")
        return int(bias.shape[0])


def _num_classes(path: Path) -> int:
    names = {renamed(name): tensor for name, tensor in read_checkpoint(path).items()}
    if "head/bias" not in names:
        raise ValueError(
            f"{path} is no file of ours: it has no 'head/bias', but "
            f"{', '.join(list(names)[:3])} ... kvision.weights.load reads those of "
            "other projects"
        )
    return names["head/bias"].shape[0]


def _may_be_new(layer: Any) -> bool:
    return layer.name in _HEADS or isinstance(layer, TokenScorer)


def _is_new(layer: Any, source: dict[str, Any], path: "str | Path") -> bool:
    """Say whether such a layer has to be learned anew, and why."""
    other: Any = source.get(layer.name)
    names: Any = [getattr(each, "class_names", None) for each in (layer, other)]
    if other is None:
        why = "the file has none"
    elif layer.get_weights()[-1].shape != other.get_weights()[-1].shape:
        counts = [len(each.get_weights()[-1]) for each in (other, layer)]
        why = f"the file's is of {counts[0]} classes, this one of {counts[1]}"
    elif None not in names and names[0] != names[1]:
        why = f"the file's is of other classes ({', '.join(names[1][:3])}, ...)"
    else:
        return False
    _log.warning(
        "%s: all weights taken but those of %r, which begins anew: %s",
        path,
        layer.name,
        why,
    )
    return True


def _carry_over(layer: Any, source: Any, path: "str | Path") -> None:
    try:
        if hasattr(layer, "carry_over"):
            layer.carry_over(source)
        else:
            layer.set_weights(source.get_weights())
    except (ValueError, IndexError) as error:
        raise _other_shapes(path, f"layer {layer.name!r}: {error}") from error


def _other_shapes(path: "str | Path", error: Any) -> ValueError:
    return ValueError(
        f"{path} is of another model, variant or image size (only a .keras file can be "
        f"brought to another size): {error}"
    )
