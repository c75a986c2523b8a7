"""What MODEL means on the command line."""

import zipfile
from pathlib import Path

import keras

from kvision.models import Detector

__all__ = ["load_detector"]

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
        for file in (folder / name, folder / "weights" / name):
            if file.exists():
                return file
    raise ValueError(
        f"{folder} is not the folder of a training run: it has no {_OF_A_RUN[0]} or "
        f"{_OF_A_RUN[1]}"
    )
