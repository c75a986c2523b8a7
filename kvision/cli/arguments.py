"""What MODEL and DATA mean on the command line."""

import zipfile
from pathlib import Path
from typing import Any

import keras

from kvision.data import arrays, find_coco, find_splits, folders
from kvision.export.classifier import Classifier, is_classifier
from kvision.models import Detector

__all__ = [
    "DataSet",
    "choose_data_set",
    "find_data_sets",
    "labelled_images",
    "load_detector",
    "load_model",
]

# Name, annotations json, image folder.
DataSet = tuple[str, Path, Path]

# In a run folder: the weights of the best epoch, or else of the last.
_OF_A_RUN = ("best.keras", "last.keras")


def load_model(path: Path) -> Any:
    """Load a detector or a classifier that kvision saved, in Keras' safe mode.

    Args:
        path: a `.keras` file, or the folder of a training run.

    Returns:
        The model.

    Raises:
        ValueError: if there is no such model at `path`; the message says what is.
    """
    file = _file_of_run(path) if path.is_dir() else path
    if file.suffix != ".keras":
        raise ValueError(
            f"{file}: expected a .keras file (model.save writes one) or the folder of "
            "a training run"
        )
    if not zipfile.is_zipfile(file):
        raise ValueError(
            f"{file} is damaged or no Keras model: it is no zip archive "
            f"({file.stat().st_size} bytes). Was it copied in full?"
        )
    model = keras.models.load_model(file, safe_mode=True)
    if not isinstance(model, Detector) and not is_classifier(model):
        raise ValueError(
            f"{file} holds a {type(model).__name__}, not a detector of "
            "kvision.models.faster_rcnn or mask_rcnn and no classifier (it has no "
            'layers "preprocessing" and "head")'
        )
    return model


def load_detector(path: Path) -> Detector:
    """Load a detector, as `load_model` does.

    Args:
        path: a `.keras` file, or the folder of a training run.

    Returns:
        The model.

    Raises:
        ValueError: if there is no detector at `path`.
    """
    model = load_model(path)
    if not isinstance(model, Detector):
        raise ValueError(f"{path} holds a classifier, not a detector")
    return model


def labelled_images(
    model: Any,
    data: Path,
    images: Path | None = None,
    set_name: str | None = None,
    batch_size: int = 32,
) -> Any:
    """Open the labelled images that DATA names, prepared as a classifier wants them.

    Args:
        model: the classifier.
        data: a folder of class folders or of sets of them, a CSV or TSV table, or an
            .npz file.
        images: folder of the files that a table lists.
        set_name: which set; by default "val", else "test", of those there are.
        batch_size: images in a batch.

    Returns:
        Dataset of (images, labels) with its attributes `class_names`, `num_images`.

    Raises:
        ValueError: there is no such data, or it has other classes.
    """
    import tensorflow as tf

    from kvision.export.preprocessing import grey

    seen = Classifier(model)
    settings: dict[str, Any] = {
        "image_size": seen.image_size,
        "batch_size": batch_size,
        "class_names": seen.class_names,
        "resize": seen.resize,
        "crop_fraction": seen.crop_fraction,
        "interpolation": seen.interpolation,
    }
    if data.suffix.lower() == ".npz":
        settings["channels"] = seen.num_channels
        return arrays(data, split=set_name or "test", **settings)
    sets = find_splits(data)
    split = set_name or next((name for name in ("val", "test") if name in sets), None)
    dataset: Any = folders(data, split=split, images=images, **settings)
    if seen.num_channels == 1:
        weighed = dataset.map(
            lambda batch, labels: (
                tf.map_fn(grey, batch, fn_output_signature=tf.uint8),
                labels,
            )
        )
        weighed.class_names, weighed.num_images = (
            dataset.class_names,
            dataset.num_images,
        )
        return weighed
    return dataset


def _file_of_run(folder: Path) -> Path:
    for name in _OF_A_RUN:
        if (folder / name).exists():
            return folder / name
    raise ValueError(
        f"{folder} is not the folder of a training run: it has no {_OF_A_RUN[0]} or "
        f"{_OF_A_RUN[1]}"
    )


def find_data_sets(data: Path, images: Path | None) -> list[DataSet]:
    """Find the COCO data sets that DATA and --images name.

    Args:
        data: a folder with json files and images, or one json file.
        images: image folder of a json file; None looks beside the file.

    Returns:
        A name, a json file and an image folder for each.

    Raises:
        ValueError: if there is none, or no image folder is found.
    """
    if images is None:
        return find_coco(data)
    if data.is_dir():
        raise ValueError(
            f"--images belongs to a json file, and {data} is a folder: name the json "
            "file as DATA"
        )
    return [(data.stem, data, images)]


def choose_data_set(data: Path, images: Path | None, name: str | None) -> DataSet:
    """Choose one of the data sets that DATA names.

    Args:
        data: as in `find_data_sets`.
        images: as in `find_data_sets`.
        name: of the set; None is the only one, or else "val".

    Returns:
        Its name, json file and image folder.

    Raises:
        ValueError: if there is no such set.
    """
    sets = find_data_sets(data, images)
    wanted = [one for one in sets if one[0] == (name or "val")]
    if name is None and len(sets) == 1:
        return sets[0]
    if len(wanted) != 1:
        names = ", ".join(one[0] for one in sets)
        raise ValueError(
            f"{data} has the sets {names}: choose one with --set, or name its json "
            f"file as DATA. Received: --set {name}"
        )
    return wanted[0]
