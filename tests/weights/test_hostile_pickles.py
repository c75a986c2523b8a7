"""Pickles that would run code, or fill memory, in every container of pickles."""

import pickle

import pytest

from kvision.weights import CheckpointError, pickles, read_checkpoint
from tests.weights.bounded import bounded
from tests.weights.hostile import (
    call,
    legacy_torch,
    named,
    plain,
    plain_pickle,
    program,
    storage,
    text,
    torch_zip,
    view,
)

CONTAINERS = {"pickle": plain_pickle, "zip": torch_zip, "legacy": legacy_torch}
IN_TORCH = {name: CONTAINERS[name] for name in ("zip", "legacy")}
COMMAND = plain("touch was_run")


class Evil:
    """Pickles as a call of `eval`."""

    def __reduce__(self):
        return eval, ("open('was_run', 'w')",)


def stacked(module: str, name: str) -> bytes:
    return plain(module) + plain(name) + b"\x93"


# What each names or does -> its steps, and a word of the refusal.
RUNS_CODE = {
    "posix.system": (call("posix.system", COMMAND), "posix.system"),
    "os.system": (call("os.system", COMMAND), "os.system"),
    "eval": (call("builtins.eval", plain("1")), "builtins.eval"),
    "py2 eval": (call("__builtin__.eval", plain("1")), "__builtin__.eval"),
    "getattr": (call("builtins.getattr", plain(""), plain("x")), "builtins.getattr"),
    "popen": (call("subprocess.Popen", plain(["ls"])), "subprocess.Popen"),
    "stacked": (stacked("os", "system") + COMMAND + b"\x85R", "os.system"),
    "dotted": (stacked("numpy", "load.__globals__"), "numpy.load"),
    "import": (b"cos\nsystem\n", "os.system"),
    "load": (call("torch.storage._load_from_bytes", plain(b"")), "_load_from_bytes"),
    "torch.load": (call("torch.load", plain("x")), "torch.load"),
    "instance": (b"(" + COMMAND + b"ios\nsystem\n", "INST"),
    "object": (b"(cos\nsystem\n" + COMMAND + b"o", "os.system"),
    "new": (b"csubprocess\nPopen\n" + plain(("ls",)) + b"\x81", "subprocess.Popen"),
    "new_ex": (plain("x") + plain(()) + plain({}) + b"\x92", "NEWOBJ_EX"),
    "extension": (b"\x82\x01", "EXT1"),
    "extension2": (b"\x83\x01\x00", "EXT2"),
    "extension4": (b"\x84\x01\x00\x00\x00", "EXT4"),
    "buffer": (b"\x97", "NEXT_BUFFER"),
    "set": (b"\x8f", "EMPTY_SET"),
    "text id": (b"P0\n", "PERSID"),
    "call of text": (plain("os.system") + plain(("ls",)) + b"R", "damaged"),
    "call of a list": (b"]" + plain(()) + b"R", "damaged"),
    "state of text": (plain("x") + plain({"a": 1}) + b"b", "damaged"),
    "state of a list": (b"]" + plain({"a": 1}) + b"b", "damaged"),
    "state of a function": (
        b"ctorch._utils\n_rebuild_tensor_v2\n" + plain({"__code__": 1}) + b"b",
        "damaged",
    ),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", RUNS_CODE)
def test_code_is_refused(container, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    steps, word = RUNS_CODE[name]
    path = CONTAINERS[container](tmp_path / "file", named("weight", steps))
    with bounded(), pytest.raises(CheckpointError, match=word) as refusal:
        read_checkpoint(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("protocol", range(6))
def test_reduce_is_refused_in_every_protocol(
    container, protocol, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps({"weight": Evil()}, protocol)
    path = CONTAINERS[container](tmp_path / "file", content)
    with pytest.raises(CheckpointError, match="eval"):
        read_checkpoint(path)
    assert not (tmp_path / "was_run").exists()


def laughs(level: bytes, levels: int = 40) -> bytes:
    """Return steps where each level holds the one before, memo 0, many times."""
    return level * levels


def twice_in_a_dict() -> bytes:
    return b"}(" + b"".join(text(key) + b"h\x00" for key in "ab") + b"uq\x00"


LIST, DAMAGED, NESTED = "holds a list", "damaged", "nested too deeply"
FILLS_MEMORY = {
    "memo index": (b"]r\xff\xff\xff\xff", LIST),
    "long text": (b"X\xff\xff\xff\xff" + b"x" * 9, DAMAGED),
    "long bytes": (b"\x8e" + (2**62).to_bytes(8, "little") + b"x", DAMAGED),
    "long bytearray": (b"\x96" + (2**40).to_bytes(8, "little") + b"x", DAMAGED),
    "long frame": (b"\x95" + (2**62).to_bytes(8, "little") + b"]", LIST),
    "long number": (b"\x8b\xff\xff\xff\x7f1", DAMAGED),
    "large number": (b"\x8b\x00\x00\x10\x00" + bytes(2**20), "LONG4"),
    "many digits": (b"L" + b"9" * 10_000 + b"L\n", DAMAGED),
    "lists in lists": (b"]q\x00" + laughs(b"](" + b"h\x00" * 10 + b"eq\x00"), LIST),
    "dicts in dicts": (b"}q\x00" + laughs(twice_in_a_dict()), NESTED),
    "tuple as key": (b")q\x00" + laughs(b"h\x00h\x00\x86q\x00") + b"}h\x00Ns", DAMAGED),
    "itself": (b"}q\x00" + text("a") + b"h\x00s", NESTED),
    "deep lists": (b"]" * 20_000 + b"a" * 19_999, LIST),
    "deep tuples": (b")" + b"\x85" * 20_000, "holds a tuple"),
    "deep dicts": ((b"}" + text("a")) * 20_000 + b"N" + b"s" * 20_000, NESTED),
    "marks": (b"(" * 20_000, DAMAGED),
}


@pytest.mark.parametrize("name", FILLS_MEMORY)
def test_bombs_are_refused(name, tmp_path):
    steps, word = FILLS_MEMORY[name]
    path = plain_pickle(tmp_path / "file", program(steps))
    with bounded(), pytest.raises(CheckpointError, match=word):
        read_checkpoint(path)


def test_one_list_for_many_dicts_is_no_bomb(tmp_path):
    pairs = (
        b"(" + b"".join(b"]" + text(f"{i:04d}") + b"aNa" for i in range(2000)) + b"l"
    )
    ordered = b"ccollections\nOrderedDict\n"
    dicts = b"h\x01h\x00\x85R" * 20_000
    content = program(b"(" + pairs + b"q\x00" + ordered + b"q\x01" + dicts + b"l")
    with bounded(), pytest.raises(CheckpointError, match="holds a list"):
        read_checkpoint(plain_pickle(tmp_path / "file", content))


def test_too_many_steps(tmp_path, monkeypatch):
    path = plain_pickle(tmp_path / "file", program(b"(" + b"]" * 1000 + b"l"))
    with pytest.raises(CheckpointError, match="holds a list"):
        read_checkpoint(path)
    monkeypatch.setattr(pickles, "_MAX_STEPS", 1000)
    with pytest.raises(CheckpointError, match="over 1000 steps"):
        read_checkpoint(path)


def test_without_an_end(tmp_path):
    path = plain_pickle(tmp_path / "file", b"\x80\x02" + b"N" * 100)
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)


WRONG_IDS = {
    "text": plain("storage") + b"Q",
    "number": plain(3) + b"Q",
    "module": plain(("module", "a", "b", "c", 1)) + b"Q",
    "short": plain(("storage", "a")) + b"Q",
    "no type": plain(("storage", "torch.FloatStorage", "0", "cpu", 4)) + b"Q",
    "function as type": storage(kind="torch._utils._rebuild_tensor_v2"),
    "dtype as type": storage(kind="torch.float32"),
    "key": storage(key=0),
    "another key": storage(key="1"),
    "key outside": storage(key="../data.pkl"),
    "count": storage(count=-4),
    "huge count": storage(count=2**62),
    "huger count": storage(count=2**500),
    "wrong count": storage(count=5),
    "text count": storage(count="4"),
    "true count": storage(count=True),
}


@pytest.mark.parametrize("container", IN_TORCH)
@pytest.mark.parametrize("name", WRONG_IDS)
def test_wrong_storages_are_refused(container, name, tmp_path):
    content = named("weight", view((2, 2), (2, 1), stored=WRONG_IDS[name]))
    path = IN_TORCH[container](tmp_path / "file", content)
    with bounded(), pytest.raises(CheckpointError):
        read_checkpoint(path)


WRONG_VIEWS = {
    "too large": view((5,), (1,)),
    "beyond": view((2, 2), (2, 1), 1),
    "stride": view((2, 2), (3, 1)),
    "expanded": view((1000, 4), (0, 1)),
    "expanded to 2**62": view((2**62,), (0,)),
    "overflow": view((2**32, 2**32), (0, 0)),
    "overflow of an empty one": view((0, 2**62, 2**62), (0, 0, 0)),
    "overflow of python": view((2**500, 2**500), (0, 0)),
    "negative": view((-1,), (1,)),
    "negative twice": view((-2, -2), (2, 1)),
    "negative stride": view((2,), (-1,), 1),
    "negative offset": view((2,), (1,), -1),
    "huge stride": view((2,), (2**62,)),
    "huge offset": view((2,), (1,), 2**61),
    "fewer strides": view((2, 2), (1,)),
    "40 dimensions": view((1,) * 40, (1,) * 40),
    "text as shape": view("22", (2, 1)),
    "number as shape": view(2, (1,)),
    "float as size": view((2.0,), (1,)),
    "true as size": view((True,), (1,)),
    "nothing as strides": view((2,), None),
    "text as storage": view((2,), (1,), stored=plain("0")),
    "dict as storage": view((2,), (1,), stored=b"}"),
    "untyped": view((2,), (1,), stored=storage(16, "torch.storage.UntypedStorage")),
    "too few arguments": call("torch._utils._rebuild_tensor_v2", storage()),
}


@pytest.mark.parametrize("container", IN_TORCH)
@pytest.mark.parametrize("name", WRONG_VIEWS)
def test_wrong_views_are_refused(container, name, tmp_path):
    path = IN_TORCH[container](tmp_path / "file", named("weight", WRONG_VIEWS[name]))
    with bounded(), pytest.raises(CheckpointError):
        read_checkpoint(path)


@pytest.mark.parametrize("container", IN_TORCH)
def test_the_same_files_with_a_sound_view_are_read(container, tmp_path):
    """Without this the tests above could pass for any other reason."""
    sound = view((2, 2, 1), (1, 2, 2**61))
    path = IN_TORCH[container](tmp_path / "file", named("weight", sound))
    tensor = read_checkpoint(path)["weight"]
    assert tensor.shape == (2, 2, 1)
    assert tensor.read().tolist() == [[[0.0], [0.0]], [[0.0], [0.0]]]
