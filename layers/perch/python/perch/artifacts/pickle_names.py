"""What a pickle would import, read without unpickling: the names in it, and whether they are scikit-learn's.

    opcodes (pickletools) ─► a machine without harm (`pickle_machine`) ─► names, each compared with an allow-list

A pickle is a program that calls what it names, so it is never harmless: a list of names only keeps out what has no
business in a fitted estimator. The same list holds when a trusted one is loaded (`perch.predictor.runtimes.joblib`).

joblib lays the numbers of arrays between the opcodes, behind a `NumpyArrayWrapper` that says how many. They are
stepped over. Work and memory are in proportion to the file's length, whatever is in it.

Left out, and refused in words: compressed files, pickles before protocol 2, references to other files.
"""

from __future__ import annotations

import math
import pickletools
import re
from dataclasses import dataclass
from typing import IO, Any, ClassVar, NoReturn, cast

from .data import Data
from .errors import ArtifactRefused
from .pickle_machine import PLAIN, Machine, Steps, literals

ALLOWED = re.compile(
    r"""
    sklearn(\.(?!callback|datasets|externals|tests|conftest|_testing|estimator_checks)\w+)+\.(_{0,2}[A-Z]\w*|newObj|__pyx_unpickle_\w+)
    | sklearn\.feature_selection\.\w+\.(chi2|[fr]_classif|[fr]_regression|mutual_info_\w+)
    | numpy\.(ndarray|dtype|bool_?|u?int(8|16|32|64)|float(16|32|64)|str_|bytes_)
    | numpy\.dtypes\.\w+DType
    | numpy\._?core\.multiarray\.(_reconstruct|scalar)
    | numpy\._?core\.numeric\._frombuffer
    | numpy\.random\.(RandomState|_pickle\.\w+|_mt19937\.MT19937|_pcg64\.PCG64)
    | numpy\.random\.bit_generator\.\w+
    | scipy\.(sparse|special|stats|interpolate|spatial)(\.\w+)*\.(_{0,2}[A-Z]\w*|\w+_(matrix|array|gen|frozen)|cKDTree)
    | joblib\.numpy_pickle\.NumpyArrayWrapper
    | collections\.(OrderedDict|defaultdict)
    | (builtins|__builtin__)\.(bool|bytearray|bytes|complex|dict|float|frozenset|int|list)
    | (builtins|__builtin__)\.(object|range|set|slice|str|tuple|xrange)
    | copyreg\._reconstructor
    | copy_reg\._reconstructor
    | _codecs\.encode
    """,
    re.VERBOSE,
)
"""Names that a fitted scikit-learn estimator is made of: of scikit-learn's and SciPy's own, classes.

Not their functions, but for those that score features and those that make extension types: a helper of scikit-learn's
tests runs any program that it is given."""

_WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
_MAX_NESTED = 20
_UNREAD = "a pickle can run code when it is loaded, and this one cannot be followed"


def allowed(module: str, name: str) -> bool:
    """Whether a name may be imported for a trusted pickle. A dot in the name would lead on from there."""
    return name.isidentifier() and ALLOWED.fullmatch(f"{module}.{name}") is not None


def names_in(data: Data) -> tuple[str, ...]:
    """Return the names that a pickle imports, sorted, all of them allowed.

    Raises:
        ArtifactRefused: it imports something else, or cannot be followed.
    """
    if data[:1] != b"\x80":
        raise ArtifactRefused(
            "the file is no pickle of protocol 2 or later, or it is compressed; save it with joblib.dump(model, file)"
        )
    file = _File(memoryview(data))
    names: set[str] = set()
    _follow(file, names, _MAX_NESTED)
    if file.at != len(data):
        raise ArtifactRefused(f"{len(data) - file.at:,} bytes follow the end of the pickle")
    return tuple(sorted(names))


class _File:
    """What pickletools reads from: the bytes where they are."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def read(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        found = bytes(self.data[self.at : self.at + max(count, 0)])
        self.at += len(found)
        return found

    def readline(self) -> bytes:
        """The rest of the line."""
        match = re.compile(rb"[^\n]*\n?").match(self.data, self.at)
        return self.read(match.end() - self.at) if match else b""

    def tell(self) -> int:
        """Where the next byte is."""
        return self.at

    def skip(self, count: int) -> None:
        """Step over numbers of an array."""
        if not 0 <= count <= len(self.data) - self.at:
            raise ArtifactRefused("the pickle is cut short: it has not all the numbers of an array")
        self.at += count


_SAVED_BY = {
    "catboost": "model.save_model('model.onnx', format='onnx')",
    "lightgbm": "model.booster_.save_model('model.lgb')",
    "xgboost": "model.save_model('model.ubj')",
}
"""How models of other libraries are saved as files that are served."""


def _instead(module: str) -> str:
    library = module.partition(".")[0]
    return f"; {_SAVED_BY[library]} writes a file that holds no code" if library in _SAVED_BY else ""


@dataclass(frozen=True)
class _Name:
    text: str


@dataclass
class _Thing:
    """What a call would give: by whom, with what, and the state that it would be given."""

    maker: Any = None
    arguments: Any = None
    state: Any = None


def _follow(file: _File, names: set[str], depth: int) -> None:
    """Follow one pickle to its end; an array of objects is a pickle in the pickle."""
    if depth == 0:
        _broken("arrays of objects are nested too deep")
    machine = _Machine(names)
    try:
        for opcode, argument, _ in pickletools.genops(cast(IO[bytes], file)):
            machine.step(opcode.name, argument)
            if opcode.name == "BUILD" and isinstance(machine.stack[-1], _Thing):
                _step_over(file, machine.stack[-1], names, depth)
    except (IndexError, KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ArtifactRefused(f"{_UNREAD}: {type(error).__name__}: {str(error)[:120]}") from error


def _step_over(file: _File, thing: _Thing, names: set[str], depth: int) -> None:
    """Behind an array's wrapper come its numbers."""
    if not isinstance(thing.maker, _Name) or thing.maker.text != _WRAPPER:
        return
    state = thing.state
    if not isinstance(state, dict) or not isinstance(state.get("shape"), tuple):
        _broken("an array does not say its shape")
    kind, width = _element(state.get("dtype"))
    if kind == "O":
        _follow(file, names, depth - 1)
        return
    if not all(type(size) is int and 0 <= size < 2**48 for size in state["shape"]):
        _broken("an array has a shape of no sizes")
    if state.get("numpy_array_alignment_bytes") is not None:
        file.skip(file.read(1)[0])
    file.skip(math.prod(state["shape"]) * width)


def _element(dtype: Any) -> tuple[str, int]:
    """The kind of an array's elements, and the bytes of one."""
    code = dtype.arguments[0] if isinstance(dtype, _Thing) and isinstance(dtype.arguments, tuple) else ""
    match = re.fullmatch(r"([?a-zA-Z])([0-9]{1,6})", code) if isinstance(code, str) else None
    if match is None or not isinstance(dtype.maker, _Name) or dtype.maker.text != "numpy.dtype":
        _broken("an array does not say its type")
    kind, width = match[1], int(match[2])
    if kind == "V" and isinstance(dtype.state, tuple) and len(dtype.state) > 5:
        width = dtype.state[5]
    return kind, width * 4 if kind == "U" else width


def _broken(what: str) -> NoReturn:
    raise ArtifactRefused(f"{_UNREAD}: {what}")


class _Machine(Machine):
    """Calls make a `_Thing`; nothing is looked up, imported or hashed but texts."""

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self.names = names

    def unknown(self, opcode: str) -> NoReturn:
        _broken(f"{opcode} is not read")

    def damaged(self) -> NoReturn:
        _broken("its instructions do not fit together")

    def is_key(self, key: Any) -> bool:
        """Only texts are keys that anybody asks for."""
        return type(key) is str

    def name(self, module: Any, name: Any) -> None:
        """Push a name, if it is allowed."""
        if not isinstance(module, str) or not isinstance(name, str):
            _broken("it imports a name that is no text")
        if not allowed(module, name):
            raise ArtifactRefused(
                f"the pickle would import {module[:60]}.{name[:60]}, which no scikit-learn estimator needs; it is not "
                f"loaded, whoever signed it{_instead(module)}"
            )
        self.names.add(f"{module}.{name}")
        self.push(_Name(f"{module}.{name}"))

    def call(self, function: Any, arguments: Any) -> None:
        self.push(_Thing(function, arguments))

    def build(self, state: Any) -> None:
        if isinstance(self.top(), _Thing):
            self.top().state = state

    def extend(self, values: list[Any]) -> None:
        """What a `_Thing` holds is nobody's question; so for its items."""
        if not isinstance(self.top(), _Thing):
            super().extend(values)

    def put_items(self, pairs: list[Any]) -> None:
        if not isinstance(self.top(), _Thing):
            super().put_items(pairs)

    def new_object(self, maker: Any, *arguments: Any) -> None:
        self.call(maker, arguments)

    def new_dict(self, pairs: list[Any]) -> None:
        self.push({})
        self.put_items(pairs)

    def instance(self, words: str, arguments: list[Any]) -> None:
        self.name(*words.split(" ", 1))
        self.call(self.pop(), tuple(arguments))

    steps: ClassVar[Steps] = {
        **PLAIN,
        **literals("INT", "LONG", "LONG4", "FLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE"),
        **literals("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        "STOP": lambda m, _: m.pop(),
        "POP": lambda m, _: m.stack.pop(),
        "POP_MARK": lambda m, _: m.since_mark(),
        "DUP": lambda m, _: m.push(m.top()),
        "EMPTY_SET": lambda m, _: m.push(_Thing()),
        "FROZENSET": lambda m, _: m.push(_Thing(None, m.since_mark())),
        "ADDITEMS": lambda m, _: m.since_mark(),
        "LIST": lambda m, _: m.push(m.since_mark()),
        "DICT": lambda m, _: m.new_dict(m.since_mark()),
        "PUT": Machine.remember,
        "GET": Machine.recall,
        "INST": lambda m, words: m.instance(words, m.since_mark()),
        "OBJ": lambda m, _: m.new_object(*m.since_mark()),
        "NEWOBJ": lambda m, _: m.call(*m.popped(2)),
        "NEWOBJ_EX": lambda m, _: m.call(*m.popped(3)[:2]),
    }
