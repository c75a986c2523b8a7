"""Fetch in a process of its own and print paths: `fetching_process.py ORIGIN...`.

An origin is an address, or a repository of the hub. Keras is not imported, so that many
processes start within moments of each other.
"""

import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Packages in name only: what their __init__ imports takes seconds.
for name in ("kvision", "kvision.weights"):
    package = types.ModuleType(name)
    package.__path__ = [str(ROOT.joinpath(*name.split(".")))]
    sys.modules[name] = package

from kvision.weights.fetching import HubFile, fetch  # noqa: E402

for origin in sys.argv[1:]:
    print(fetch(origin if "://" in origin else HubFile(origin)), flush=True)
