"""What a `.pt2` program takes and gives, from its own tables: names, types, and which sizes vary.

A variable size is a name in the table (`s77`); the same name is the same size. Whatever else stands there is an
expression that torch would evaluate: for an input it is refused, for an output it only says that the size varies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from .errors import ArtifactRefused
from .pt2_arguments import DTYPES, MAX_NAME, STRIDED, a_list, an_object, cpu
from .served import check_served
from .signature import Signature, Tensor
from .stored_tensor import DATATYPES

_SYMBOL = re.compile(r"Symbol\('([A-Za-z]\w{0,30})'(?:, (?:positive|integer|negative|nonnegative)=(?:True|False))*\)")
_EXPRESSION = re.compile(
    rf"(?:{_SYMBOL.pattern}|(?:Integer|Rational|Add|Mul|Pow|Max|Min|FloorDiv|CleanDiv|Mod|PythonMod|ModularIndexing)(?=\()"
    r"|int_oo|oo|\d{1,20}|[-+*/(), ])++"
)
"""Sums and products of sizes, as an export writes them. They are not needed here, and torch would run them as code."""


def check_expressions(document: Any) -> None:
    """Make sure that no expression of a program's JSON is anything but arithmetic. Raises `ArtifactRefused`."""
    left = [document]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left.extend(value)
        elif isinstance(value, dict):
            left.extend(value.values())
            text = value.get("expr_str", "0")
            if not isinstance(text, str) or len(text) > 2_000 or not _EXPRESSION.fullmatch(text):
                raise ArtifactRefused(
                    f"a size in it is an expression that is no arithmetic: {str(text)[:80]!r}; torch would run it"
                )


def read_signature(
    metas: Mapping[str, Any], inputs: tuple[str, ...], outputs: tuple[str, ...], names: tuple[str, ...]
) -> tuple[Signature, dict[str, tuple[str | None, ...]]]:
    """Return the signature, and the names of each input's variable dimensions.

    Args:
        metas: the program's table of tensors.
        inputs: names in the graph, which are those of the arguments of `forward`.
        outputs: names in the graph.
        names: what the outputs are called.

    Raises:
        ArtifactRefused: a type, a size or a device that cannot be served.
    """
    taken, axes = [], {}
    for name in inputs:
        dtype, shape = read_meta(an_object(metas.get(name), "tensor"), name)
        axes[name] = tuple(size if isinstance(size, str) else None for size in shape)
        taken.append(_tensor(name, dtype, shape))
    given = []
    for name, value in zip(names, outputs, strict=True):
        given.append(_tensor(name, *read_meta(an_object(metas.get(value), "tensor"), value, exact=False)))
    signature = Signature(inputs=tuple(taken), outputs=tuple(given))
    check_served(signature, "export with dynamic_shapes, for example {0: torch.export.Dim('batch')}")
    return signature, axes


def _tensor(name: str, dtype: str, shape: list[int | str]) -> Tensor:
    sizes = tuple(-1 if isinstance(size, str) else size for size in shape)
    return Tensor(name=name, datatype=DATATYPES.get(dtype, dtype), shape=sizes)


def read_meta(meta: Mapping[str, Any], name: str, *, exact: bool = True) -> tuple[str, list[Any]]:
    """Return type and sizes of a tensor; a size is a whole number, or the name of a variable one.

    `exact` is False for outputs, whose variable sizes may be expressions: they are not read, only known to vary.
    Raises `ArtifactRefused`.
    """
    dtype = DTYPES.get(meta.get("dtype", 0)) if isinstance(meta.get("dtype"), int) else None
    if dtype is None or meta.get("layout") != STRIDED:
        raise ArtifactRefused(
            f"tensor {name[:80]!r} is of a type or layout that is not served (type {meta.get('dtype')!r})"
        )
    cpu(meta.get("device"))
    sizes: list[int | str] = []
    for size in a_list(meta.get("sizes"), "sizes", most=16):
        expression = size.get("as_expr") if isinstance(size, dict) else None
        if expression is None:
            sizes.append(whole(size))
            continue
        text = an_object(expression, "size").get("expr_str")
        symbol = _SYMBOL.fullmatch(text[:200]) if isinstance(text, str) else None
        if symbol is None and exact:
            raise ArtifactRefused(
                f"a size of {name[:80]!r} is the expression {str(text)[:80]!r}; a number or one name is served"
            )
        sizes.append(symbol[1] if symbol else "?")
    return dtype, sizes


def whole(size: Any) -> int:
    """Return the size in {"as_int": size}. Raises `ArtifactRefused` if it is anything else."""
    value = size.get("as_int") if isinstance(size, dict) and len(size) == 1 else None
    if type(value) is not int or not 0 <= value < 2**48:
        raise ArtifactRefused(f"the program has a size that is not a whole number: {str(size)[:80]}")
    return value


def read_sizes(constraints: Mapping[str, Any]) -> dict[str, tuple[int, int | None]]:
    """Return from where to where each variable size goes; None is no end. Raises `ArtifactRefused`."""
    found = {}
    for name, bounds in constraints.items():
        low, high = (an_object(bounds, "range").get(word) for word in ("min_val", "max_val"))
        if any(bound is not None and type(bound) is not int for bound in (low, high)):
            raise ArtifactRefused(f"the range of {name[:40]!r} is not two whole numbers")
        # An export counts from 2 when it knows nothing better: 0 and 1 are sizes that it may not tell apart.
        found[name] = (0 if low is None or low <= 2 else low, high)
    return found


def output_names(module: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Return the keys of the dict that the module gives; otherwise `output`, or `output_0`, `output_1` and so on."""
    plain = ("output",) if count == 1 else tuple(f"output_{i}" for i in range(count))
    try:
        spec = json.loads(module["module_call_graph"][0]["signature"]["out_spec"])[1]
        keys = json.loads(spec["context"]) if spec["type"] == "builtins.dict" else None
    except (LookupError, TypeError, ValueError, RecursionError):
        return plain
    if not isinstance(keys, list) or len(keys) != count:
        return plain
    names = tuple(key for key in keys if isinstance(key, str) and 0 < len(key) <= MAX_NAME)
    return names if len(set(names)) == count else plain
