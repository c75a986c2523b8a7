"""Load the models of a folder with Keras on JAX and write what they answer.

A program of its own: Keras takes its backend when it is imported.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import kvision  # noqa: F401  (registers the layers)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    assert keras.backend.backend() == "jax"
    assert "tensorflow" not in sys.modules
    images = np.load(folder / "images.npy")
    for path in sorted(folder.glob("*.keras")):
        logits = keras.models.load_model(path)(images, training=False)
        np.save(path.with_suffix(".npy"), np.asarray(logits))
