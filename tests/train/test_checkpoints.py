"""Checkpoints on disk: whole or not there, whatever happens meanwhile."""

import json
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from kvision.train import checkpoints
from kvision.train.checkpoints import CheckpointError, read_newest, write

ARRAYS = {"model/00000 kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}


def write_three(folder: Path) -> None:
    for step in (1, 2, 3):
        arrays = {name: array + step for name, array in ARRAYS.items()}
        write(folder, arrays, {"epoch": 0, "step": step})


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_reads_what_was_written(tmp_path: Path) -> None:
    state = {"epoch": 2, "step": 5, "best": None, "wait": [1, 2.5, "x"]}
    assert write(tmp_path / "new", ARRAYS, state) == 1
    found = read_newest(tmp_path / "new")
    assert found.number == 1
    assert found.state == state
    assert found.damaged == ()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype


def test_keeps_the_newest_two(tmp_path: Path) -> None:
    write_three(tmp_path)
    stems = ("000002", "000003")
    assert names(tmp_path) == [
        f"{s}.{e}" for s in stems for e in ("json", "safetensors")
    ]
    assert read_newest(tmp_path).state["step"] == 3


def test_leftovers_of_a_killed_write_are_removed(tmp_path: Path) -> None:
    write(tmp_path, ARRAYS, {})
    (tmp_path / ".000002.77.safetensors").write_bytes(b"half")
    # Arrays without a manifest: killed between the two.
    (tmp_path / "000002.safetensors").write_bytes(b"whole, but no manifest")
    assert read_newest(tmp_path).number == 1
    write_three(tmp_path)
    assert [n for n in names(tmp_path) if n.startswith(".")] == []
    assert read_newest(tmp_path).number == 4


# With Keras' BackupAndRestore a truncated manifest stops the run (also with its
# double_checkpoint), and a missing one restarts the count of epochs.
def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) - 7] ^= 0x04
    path.write_bytes(bytes(content))


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("harm", [truncate, empty, flip_a_byte, remove])
def test_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, suffix: str, harm: object
) -> None:
    write_three(tmp_path)
    harm(tmp_path / f"000003.{suffix}")
    found = read_newest(tmp_path)
    assert (found.number, found.state["step"]) == (2, 2)
    np.testing.assert_array_equal(found.arrays["model/00000 kernel"][0], [2, 3, 4])
    if harm is remove and suffix == "json":
        # As if it had never been finished.
        assert found.damaged == ()
    else:
        assert len(found.damaged) == 1
        assert "000003" in found.damaged[0]


def test_every_flipped_byte_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, ARRAYS, {"epoch": 3, "step": 14})
    path = tmp_path / "000001.json"
    original = path.read_bytes()
    rng = random.Random(0)
    unnoticed = 0
    for position in range(len(original)):
        changed = bytearray(original)
        changed[position] ^= 1 << rng.randrange(7)
        path.write_bytes(bytes(changed))
        try:
            state = read_newest(tmp_path).state
        except CheckpointError:
            continue
        # Only white space may change without notice.
        assert state == {"epoch": 3, "step": 14}
        unnoticed += 1
    assert unnoticed < 60


def test_no_whole_checkpoint_names_all_damage(tmp_path: Path) -> None:
    write_three(tmp_path)
    truncate(tmp_path / "000003.safetensors")
    empty(tmp_path / "000002.json")
    with pytest.raises(CheckpointError, match=r"000003.*000002"):
        read_newest(tmp_path)


@pytest.mark.parametrize("name", ["", "missing"])
def test_no_checkpoint_at_all(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        read_newest(tmp_path / name)


def test_a_newer_format_is_not_guessed_at(tmp_path: Path) -> None:
    write(tmp_path, ARRAYS, {})
    path = tmp_path / "000001.json"
    manifest = json.loads(path.read_text())["manifest"] | {"format": 2}
    checksum = checkpoints._checksum(manifest)
    path.write_text(json.dumps({"checksum": checksum, "manifest": manifest}))
    with pytest.raises(CheckpointError, match="format 2, this version"):
        read_newest(tmp_path)


def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, ARRAYS, {"step": 1})

    def fail(arrays: object, path: Path) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, ARRAYS, {"step": 2})
    assert names(tmp_path) == ["000001.json", "000001.safetensors"]
    assert read_newest(tmp_path).state == {"step": 1}


WRITE_FOR_EVER = """
    import importlib.util, itertools, pathlib, sys, types

    # The modules by their paths: no TensorFlow, so that the test is quick.
    for name in ("kvision", "kvision.train", "kvision.weights"):
        sys.modules[name] = types.ModuleType(name)
    for name in ("weights.replacing", "train.files", "train.checkpoints"):
        path = pathlib.Path(sys.argv[1]) / f"{name.replace('.', '/')}.py"
        spec = importlib.util.spec_from_file_location(f"kvision.{name}", path)
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)

    import numpy as np

    arrays = {str(i): np.random.rand(64, 1024) for i in range(20)}
    for step in itertools.count():
        arrays["step"] = np.array(step)
        module.write(pathlib.Path(sys.argv[2]), arrays, {"step": step})
        print(step, flush=True)
"""


def test_kill_9_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    rng = random.Random(1)
    code = textwrap.dedent(WRITE_FOR_EVER)
    source = str(Path(checkpoints.__file__).parent.parent)
    last = -1
    for _ in range(6):
        command = [sys.executable, "-c", code, source, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "0\n", "the child wrote nothing"
            time.sleep(rng.uniform(0.0, 0.3))
            process.kill()
            printed = process.stdout.read().split()
        found = read_newest(tmp_path)
        # What the child reported as written is there, or something newer.
        assert found.state["step"] >= int(printed[-1] if printed else 0)
        assert found.arrays["step"] == found.state["step"]
        assert found.damaged == ()
        assert found.number > last
        last = found.number
