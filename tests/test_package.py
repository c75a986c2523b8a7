"""The package as a whole: public names, docstrings, and what an import costs."""

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import kvision as kv

MODULES = sorted(m.name for m in pkgutil.walk_packages(kv.__path__, "kvision."))


def run_python(code: str) -> Any:
    """Run code in a new interpreter and return the JSON of its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", kv.__all__)
def test_public_name_can_be_used_and_is_listed(name: str) -> None:
    assert getattr(kv, name) is not None
    assert name in dir(kv)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'kvision' has no attribute 'detects'"):
        kv.detects  # noqa: B018


def own_public_objects(module: ModuleType) -> dict[str, Any]:
    """Return the functions and classes a module defines and exports."""
    names = getattr(module, "__all__", [n for n in vars(module) if n[0] != "_"])
    found = {name: getattr(module, name) for name in names}
    return {
        name: item
        for name, item in found.items()
        if inspect.isclass(item) or inspect.isfunction(item)
        if item.__module__ == module.__name__
    }


@pytest.mark.parametrize("name", MODULES)
def test_module_and_its_public_names_have_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for public, item in own_public_objects(module).items():
        # A class must not merely inherit the docstring of its Keras base.
        own = vars(item).get("__doc__") if inspect.isclass(item) else item.__doc__
        assert own, f"{name}.{public} has no docstring"


def test_package_ships_its_types_and_knows_its_version() -> None:
    from importlib import metadata

    assert Path(kv.__file__).with_name("py.typed").exists()
    assert metadata.version("kvision") == kv.__version__


IMPORT = """
import json, os, sys, time
start = time.perf_counter()
import keras
keras_seconds = time.perf_counter() - start
before, environment = set(sys.modules), dict(os.environ)
start = time.perf_counter()
import kvision
print(json.dumps({
    "keras_seconds": keras_seconds,
    "seconds": time.perf_counter() - start,
    "modules": sorted(set(sys.modules) - before),
    "same_environment": dict(os.environ) == environment,
}))
"""


def test_import_costs_little_and_changes_nothing() -> None:
    found = run_python(IMPORT)
    top_level = {name.partition(".")[0] for name in found["modules"]}
    heavy = {"matplotlib", "pycocotools", "supervision", "pandas", "ai_edge_litert"}
    assert not top_level & (heavy | {"cv2", "faster_coco_eval", "yaml"})
    late = {"data", "evaluation", "export", "predict", "train", "viz"}
    assert not {f"kvision.{name}" for name in late} & set(found["modules"])
    assert found["same_environment"]
    # Measured: 0.02 of the time of `import keras`; DESIGN allows 0.15.
    assert found["seconds"] < 0.15 * found["keras_seconds"]


def test_import_registers_every_layer() -> None:
    found = run_python(
        "import json, keras, kvision\n"
        "names = keras.saving.get_custom_objects()\n"
        "print(json.dumps([n for n in names if n.startswith('kvision>')]))"
    )
    layers = importlib.import_module("kvision.layers")
    assert {f"kvision>{name}" for name in layers.__all__} <= set(found)


def test_edge_runtime_starts_without_tensorflow_or_kvision() -> None:
    found = run_python(
        "import json, sys, kvision_edge\nprint(json.dumps(list(sys.modules)))"
    )
    top_level = {name.partition(".")[0] for name in found}
    assert "numpy" in top_level
    assert not top_level & {"kvision", "keras", "tensorflow", "pycocotools", "PIL"}
