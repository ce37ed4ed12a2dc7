"""The words of a `.pt2` program's JSON: names, lists, and the arguments of its nodes.

Torch writes an argument as {"as_<kind>": value}. Of its thirty kinds those are read that are a tensor by its name, a
number, a truth value, one of a few texts, or a list of these; there is no reader for graphs, objects and operators as
arguments, so they cannot be served by mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from .errors import ArtifactRefused
from .pt2_operators import TEXTS

MAX_LIST = 4_096
MAX_NAME = 512

DTYPES = {
    1: "U8", 2: "I8", 3: "I16", 4: "I32", 5: "I64", 6: "F16", 7: "F32", 8: "F64", 12: "BOOL", 13: "BF16", 28: "U16",
    34: "U32", 35: "U64",
}  # fmt: skip
"""Element types, by torch.export's numbers; not served are complex, quantised and 8-bit floats."""

_MEMORY_FORMATS = {1: "contiguous_format", 2: "channels_last", 3: "channels_last_3d", 4: "preserve_format"}
STRIDED = 7
_EQUATION = re.compile(r"[A-Za-z.,> -]{1,200}")
_FLOATS = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}


@dataclass(frozen=True)
class Value:
    """Whatever a step gave, or an input is: by its name in the graph."""

    name: str


@dataclass(frozen=True)
class Word:
    """A constant of torch's own: of kind `dtype`, `memory_format`, `device` or `layout`."""

    kind: str
    text: str


Argument: TypeAlias = "bool | int | float | str | Value | Word | tuple[Argument, ...] | None"


def read_argument(argument: Any, operator: str, known: Mapping[str, bool]) -> Argument:
    """Return one argument of a node, whose values are all known by now. Raises `ArtifactRefused`."""
    if not isinstance(argument, dict) or len(argument) != 1:
        unreadable(operator, argument)
    [(kind, value)] = argument.items()
    try:
        return _READERS[kind](value, known)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        unreadable(operator, argument)


def unreadable(operator: str, argument: Any) -> NoReturn:
    """Raise `ArtifactRefused` for an argument or a result of another kind."""
    raise ArtifactRefused(
        f"{operator} has an argument that is not served or not readable: {str(argument)[:120]}; "
        "tensors, numbers and a few texts are"
    )


def _value(name: Any, known: Mapping[str, bool]) -> Value:
    if name not in known:
        raise ValueError("used before it is made")
    return Value(name)


def _tensor(value: Any, known: Mapping[str, bool]) -> Value:
    return _value(value["name"], known)


Reader: TypeAlias = Callable[[Any, Mapping[str, bool]], Argument]


def _number(kind: type[int | float]) -> Reader:
    def read(value: Any, _: Mapping[str, bool]) -> Any:
        if kind is float and isinstance(value, str):
            return _FLOATS[value]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError("another kind of number")
        if kind is int and not -(2**63) <= value < 2**63:
            raise ValueError("not a number of 64 bits")
        return kind(value)

    return read


def _symbol(value: Any, known: Mapping[str, bool]) -> Argument:
    [(kind, inner)] = value.items()
    return _value(inner, known) if kind == "as_name" else _number(int)({"as_int": inner}[kind], known)


def _many(read: Reader) -> Reader:
    def read_all(values: Any, known: Mapping[str, bool]) -> tuple[Argument, ...]:
        if not isinstance(values, list) or len(values) > MAX_LIST:
            raise ValueError("no list, or too long")
        return tuple(read(value, known) for value in values)

    return read_all


def _optional(value: Any, known: Mapping[str, bool]) -> Value | None:
    [(kind, inner)] = value.items()
    return _tensor({"as_tensor": inner}[kind], known) if kind != "as_none" else None


def _text(value: Any, _: Mapping[str, bool]) -> str:
    if value not in TEXTS and not _EQUATION.fullmatch(value):
        raise ValueError("not a text that an operator takes")
    return str(value)


def _device(value: Any, _: Mapping[str, bool]) -> Word:
    cpu(value)
    return Word("device", "cpu")


def _layout(value: Any, _: Mapping[str, bool]) -> Word:
    return Word("layout", {STRIDED: "strided"}[value])


_READERS: Mapping[str, Reader] = {
    "as_none": lambda *_: None,
    "as_tensor": _tensor,
    "as_tensors": _many(_tensor),
    "as_optional_tensor": _optional,
    "as_optional_tensors": _many(_optional),
    "as_int": _number(int),
    "as_ints": _many(_number(int)),
    "as_float": _number(float),
    "as_floats": _many(_number(float)),
    "as_bool": _number(bool),
    "as_bools": _many(_number(bool)),
    "as_sym_int": _symbol,
    "as_sym_ints": _many(_symbol),
    "as_string": _text,
    "as_scalar_type": lambda value, _: Word("dtype", DTYPES[value]),
    "as_memory_format": lambda value, _: Word("memory_format", _MEMORY_FORMATS[value]),
    "as_layout": _layout,
    "as_device": _device,
}


def names_in(arguments: Iterable[Argument]) -> set[str]:
    """Return the names of all values among arguments, also in lists."""
    found = set()
    for argument in arguments:
        if isinstance(argument, Value):
            found.add(argument.name)
        elif isinstance(argument, tuple):
            found |= names_in(argument)
    return found


def an_object(value: Any, what: str) -> Mapping[str, Any]:
    """Return a JSON object. Raises `ArtifactRefused` for anything else."""
    if not isinstance(value, dict):
        raise ArtifactRefused(f"the program's JSON has a {what} that is no object")
    return value


def a_list(value: Any, what: str, *, most: int = MAX_LIST) -> list[Any]:
    """Return a JSON list of at most `most` entries. Raises `ArtifactRefused` for anything else."""
    if not isinstance(value, list) or len(value) > most:
        raise ArtifactRefused(f"the program's JSON has {what} that are no list, or more than {most:,}")
    return value


def a_name(value: Any, what: str) -> str:
    """Return a name. Raises `ArtifactRefused` if it is none."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME:
        raise ArtifactRefused(f"the program's JSON has a {what} without a name")
    return value


def tensor_name(entry: Any, what: str) -> str:
    """Return the name in {"as_tensor": {"name": …}}. Raises `ArtifactRefused` if it is something else."""
    inner = entry.get("as_tensor") if isinstance(entry, dict) and len(entry) == 1 else None
    if not isinstance(inner, dict):
        raise ArtifactRefused(f"the graph has an {what} that is no tensor: {str(entry)[:80]}")
    return a_name(inner.get("name"), what)


def cpu(device: Any) -> None:
    """Raises `ArtifactRefused` unless it is the CPU."""
    if not isinstance(device, dict) or device.get("type") != "cpu":
        raise ArtifactRefused(f"the program was exported on {str(device)[:60]}; export it on the CPU (module.cpu())")
