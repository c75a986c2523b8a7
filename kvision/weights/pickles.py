"""Pickles of weights, read without running them.

A pickle is a program for a small machine with a stack, and Python's own machine calls
whatever function the program names. This one has the steps that build numbers, text,
lists and dicts, and calls only the functions it was given; a weight file needs no
more. It is our own and not a subclass of `pickle.Unpickler`, whose machine in C takes
memory for any index and hashes any key that a hostile file names: either can end the
process before a `find_class` of ours is asked. `pickletools` of the standard library
decodes the steps.
"""

import abc
import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple

from kvision.weights.checkpoint import CheckpointError, Tensor

__all__ = ["CONTAINERS", "PickledTensor", "Refused", "Stateful", "unpickle"]

# Large training checkpoints take some 500 thousand; two million empty dicts take
# 130 MB and a few seconds.
_MAX_STEPS = 2_000_000
_MAX_PROTOCOL = 5

_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE"),
    *("SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    "BYTEARRAY8",
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Stateful(abc.ABC):
    """What a pickle may give a state to."""

    @abc.abstractmethod
    def set_state(self, state: Any) -> None:
        """Take the state that the pickle holds for this object."""


class PickledTensor(Stateful):
    """A tensor as a pickle describes it."""

    @abc.abstractmethod
    def tensor(self) -> Tensor:
        """Check the description, once the pickle is read, and make a tensor of it."""


class Refused(NamedTuple):
    """Stands for something that is known and not read."""

    reason: str


class _Ignored(Stateful):
    """Stands where an object was that has no weights."""

    def set_state(self, state: Any) -> None:
        """Drop it."""


def unpickle(
    stream: IO[bytes],
    admitted: Mapping[str, Any],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Read one pickle.

    Args:
        stream: where it begins; left behind its end.
        admitted: "module.name" -> what stands for it, a function or a value. Nothing
            else can be named in the pickle.
        persistent: what stands for objects that are stored outside of the pickle, by
            their id. None: there are none.

    Returns:
        What it describes, of Python's plain types and of what `admitted` makes.

    Raises:
        CheckpointError: if it names anything else, is damaged, or has more steps than
            weights need.
    """
    machine = _Machine(admitted, persistent)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count == _MAX_STEPS:
                raise CheckpointError(f"its pickle has over {_MAX_STEPS} steps")
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except CheckpointError:
        raise
    # An empty stack, a missing mark or memo, arguments of a wrong type or number, text
    # that is none, and what pickletools says of bytes that are no pickle.
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"its pickle is incomplete or damaged before byte {stream.tell()}. "
            "Download or copy the file again"
        ) from error
    raise CheckpointError("its pickle has no end: the file is incomplete")


class _Machine:
    """The stack machine; `step` does what one opcode says."""

    def __init__(
        self, admitted: Mapping[str, Any], persistent: Callable[[Any], Any] | None
    ) -> None:
        self.stack: list[Any] = []
        self._below: list[list[Any]] = []  # what lies under each mark
        self._memo: dict[int, Any] = {}
        self._admitted = admitted
        self._persistent = persistent

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            self.stack[-_TUPLES[name] :] = [tuple(self._top(_TUPLES[name]))]
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise CheckpointError(
                f"its pickle has the step {name}, which no weight file needs: refused"
            )

    def _top(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        return self.stack[-count:]

    def protocol(self, number: int) -> None:
        if number > _MAX_PROTOCOL:
            raise CheckpointError(
                f"it is a pickle of protocol {number}, up to 5 is read"
            )

    def frame(self, _: int) -> None:
        """Frames tell how much to read at once: nothing to do."""

    def mark(self, _: None) -> None:
        self._below.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        found, self.stack = self.stack, self._below.pop()
        return found

    def put(self, index: int) -> None:
        self._memo[index] = self.stack[-1]

    def memoize(self, _: None) -> None:
        self.put(len(self._memo))

    def get(self, index: int) -> None:
        self.stack.append(self._memo[index])

    def empty_list(self, _: None) -> None:
        self.stack.append([])

    def empty_dict(self, _: None) -> None:
        self.stack.append({})

    def marked_tuple(self, _: None) -> None:
        items = self._since_mark()
        self.stack.append(tuple(items))

    def marked_list(self, _: None) -> None:
        items = self._since_mark()
        self.stack.append(items)

    def marked_dict(self, _: None) -> None:
        items = self._since_mark()
        self.stack.append(_filled({}, items[::2], items[1::2]))

    def append(self, _: None) -> None:
        value = self.stack.pop()
        _expect(self.stack[-1], list).append(value)

    def appends(self, _: None) -> None:
        values = self._since_mark()
        _expect(self.stack[-1], list).extend(values)

    def set_item(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _filled(self.stack[-1], [key], [value])

    def set_items(self, _: None) -> None:
        items = self._since_mark()
        _filled(self.stack[-1], items[::2], items[1::2])

    def name(self, argument: str) -> None:
        self.stack.append(self._find(*argument.split(" ", 1)))

    def stacked_name(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self._find(_expect(module, str), _expect(name, str)))

    def _find(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if asked not in self._admitted:
            raise CheckpointError(
                f"its pickle asks for {asked[:80]!r}, which no tensor needs and which "
                "could run code: refused. If you trust the file, open it with the "
                "program that wrote it and save its tensors alone"
            )
        found = self._admitted[asked]
        if isinstance(found, Refused):
            raise CheckpointError(found.reason)
        return found

    def call(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not callable(function):
            raise TypeError("called something that is no function")
        self.stack.append(function(*_expect(arguments, tuple)))

    def set_state(self, _: None) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        # The attributes of an OrderedDict: the versions of torch modules.
        if not isinstance(target, dict):
            _expect(target, Stateful).set_state(state)

    def persistent_id(self, _: None) -> None:
        if self._persistent is None:
            raise CheckpointError("its pickle refers to objects outside of it: refused")
        self.stack.append(self._persistent(self.stack.pop()))


def _expect(value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds):
        raise TypeError(f"expected {kinds}, received {type(value).__name__}")
    return value


def _filled(target: Any, keys: list[Any], values: list[Any]) -> dict[Any, Any]:
    """Put items into a dict.

    Keys are text or numbers: the hash of nested tuples can take forever.
    """
    for key, value in zip(keys, values, strict=True):
        _expect(target, dict)[_expect(key, str, int)] = value
    return target


def _ordered_dict(items: Any = None) -> dict[Any, Any]:
    """Make a dict; Python 2 gives the items at once, as a list of pairs."""
    pairs = _expect([] if items is None else items, list)
    found = _filled({}, [key for key, _ in pairs], [value for _, value in pairs])
    # A list that a hostile file gives to a million dicts must not fill the memory.
    pairs.clear()
    return found


# An argparse.Namespace lies beside the weights of DeiT's training script.
CONTAINERS: Mapping[str, Any] = {
    "collections.OrderedDict": _ordered_dict,
    "argparse.Namespace": _Ignored,
}

_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.protocol,
    "FRAME": _Machine.frame,
    "MARK": _Machine.mark,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "EMPTY_LIST": _Machine.empty_list,
    "EMPTY_DICT": _Machine.empty_dict,
    "TUPLE": _Machine.marked_tuple,
    "LIST": _Machine.marked_list,
    "DICT": _Machine.marked_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stacked_name,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.set_state,
    "BINPERSID": _Machine.persistent_id,
}
