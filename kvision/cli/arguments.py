"""What MODEL and DATA mean on the command line."""

import zipfile
from pathlib import Path

import keras

from kvision.data import find_coco
from kvision.models import Detector

__all__ = ["DataSet", "choose_data_set", "find_data_sets", "load_detector"]

# Name, annotations json, image folder.
DataSet = tuple[str, Path, Path]

# In a run folder: the weights of the best epoch, or else of the last.
_OF_A_RUN = ("best.keras", "last.keras")


def load_detector(path: Path) -> Detector:
    """Load a detector that kvision saved, in Keras' safe mode.

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
    if not isinstance(model, Detector):
        raise ValueError(
            f"{file} holds a {type(model).__name__}, not a detector of "
            "kvision.models.faster_rcnn or mask_rcnn"
        )
    return model


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
