"""Package metadata. Tools are configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def read_version() -> str:
    """Return ``__version__`` of the package without importing it."""
    text = (HERE / "kvision" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('kvision/__init__.py has no line __version__ = "..."')
    return match.group(1)


CORE = [
    "tensorflow>=2.20",
    "keras>=3.13.2",
    "numpy>=2.0",
    "pillow>=11.3",
    "pycocotools>=2.0.8",
    "click>=8.4",
    "rich>=13.7",
    "pyyaml>=6.0",
    "safetensors>=0.5",
    # Keras and TensorFlow bring these; checkpoints are read with them.
    "h5py>=3.11",
    "ml_dtypes>=0.5",
]

# What a user may add: `pip install 'kvision[viz,litert]'`.
FEATURES = {
    "fast": ["faster-coco-eval>=1.7"],
    "viz": ["matplotlib>=3.9", "supervision>=0.30"],
    "litert": ["ai-edge-litert>=2.0"],
    "onnx": ["tf2onnx>=1.17", "onnxruntime>=1.22"],
    "video": ["av>=14.0"],
    "tensorboard": ["tensorboard>=2.19"],
    "keras-hub": ["keras-hub>=0.26"],
    "hub": ["huggingface_hub>=1.0"],
}

# Frozen since 2024 and heavy (it brings keras-core and tensorflow-datasets), so not
# in `all`; it is here for those who already have a KerasCV backbone.
KERAS_CV = {"keras-cv": ["keras-cv>=0.9"]}

# Heavy too, and without Windows wheels; only `kvision.data.tfds` needs it.
# tensorflow-datasets 4.9.10 imports importlib-resources and does not ask for it
# (tensorflow/datasets, issue 11212).
TFDS = {
    "tfds": [
        "tensorflow-datasets>=4.9.9",
        "array-record>=0.7",
        "importlib-resources>=6.0",
    ]
}

# What working on kvision itself needs.
DOCS = {"docs": ["pdoc>=15.0"]}
NOTEBOOKS = {"notebooks": ["ipykernel>=6.29", "jupytext>=1.16", "nbmake>=1.5"]}
DEV = [
    *FEATURES["fast"],
    *FEATURES["viz"],
    *FEATURES["litert"],
    *FEATURES["onnx"],
    *FEATURES["hub"],
    *NOTEBOOKS["notebooks"],
    "hypothesis>=6.100",
    "import-linter>=2.1",
    "mypy>=1.15",
    "nbstripout>=0.8",
    "pre-commit>=4.0",
    "pre-commit-hooks>=5.0",
    "pytest>=8.3",
    "pytest-xdist>=3.6",
    "ruff>=0.12",
    "types-PyYAML",
]

setup(
    name="kvision",
    version=read_version(),
    description="Detection and segmentation models for Keras 3: the R-CNN line, "
    "trained with model.fit, exported to SavedModel and TFLite.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The kvision maintainers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["kvision", "kvision.*"]),
    py_modules=["kvision_cli", "kvision_edge"],
    package_data={"kvision": ["py.typed"]},
    install_requires=CORE,
    extras_require={
        **FEATURES,
        **KERAS_CV,
        **TFDS,
        **DOCS,
        **NOTEBOOKS,
        "all": sorted({need for needs in FEATURES.values() for need in needs}),
        "dev": DEV,
    },
    entry_points={"console_scripts": ["kvision=kvision_cli:main"]},
    keywords="keras tensorflow mask-rcnn faster-rcnn instance-segmentation tflite",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
