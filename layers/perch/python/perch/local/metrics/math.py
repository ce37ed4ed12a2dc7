"""CloudWatch metric math: expressions over metrics, parsed by hand and never run as code.

    text ─► tokens ─► a node, by precedence climbing ─► evaluated over a window of periods

Values and operators are in `math_values`, the functions in `math_functions`.

Supported: `+ - * / ^`, unary minus, parentheses, `< <= > >= == !=`, `AND OR` (also `&& ||`), `IF`, `FILL` (a number,
`REPEAT`, `LINEAR`), `METRICS()` and `METRICS("part of an id")`, `SUM AVG MAX MIN STDDEV METRIC_COUNT DATAPOINT_COUNT
FIRST LAST ABS CEIL FLOOR LOG LOG10 RUNNING_SUM RATE DIFF DIFF_TIME PERIOD TIME_SERIES`. `SUM AVG MAX MIN STDDEV` of one
series give a number, of an array a series. Anything else is a `MathError` in words (`SEARCH`, `SELECT`, anomaly
detection, sorting, time-of-day functions).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from perch.local.metrics import math_functions
from perch.local.metrics.math_functions import FUNCTIONS
from perch.local.metrics.math_values import OPERATORS, Env, MathError, Value, Window, combine, mapped, members

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<text>\"[^\"]*\"|'[^']*')|(?P<sign><=|>=|==|!=|&&|\|\||[-+*/^()<>,\[\]]))"
)
_STRENGTH = {
    "OR": 1,
    "||": 1,
    "AND": 2,
    "&&": 2,
    "<": 3,
    "<=": 3,
    ">": 3,
    ">=": 3,
    "==": 3,
    "!=": 3,
    "+": 4,
    "-": 4,
    "*": 5,
    "/": 5,
    "^": 7,
}  # fmt: skip - one line for each strength
_UNARY = 6

Node = Callable[[Env], Value]


@dataclass(frozen=True)
class Expression:
    """A parsed expression; `names` are the ids it refers to."""

    text: str
    names: frozenset[str]
    _node: Node

    def evaluate(self, values: Mapping[str, Value], window: Window) -> Value:
        """Compute it. `values` maps ids to series. Raises `MathError` for an id that is not there."""
        return self._node(Env(window, values))


def parse(text: str) -> Expression:
    """Parse an expression. Raises `MathError`."""
    parser = _Parser(text)
    node = parser.expression(0)
    parser.expect_end()
    return Expression(text, frozenset(parser.names), node)


class _Parser:
    """Precedence climbing over a list of tokens."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        self._tokens = list(_tokens(text))
        self._next = 0

    def expression(self, least: int) -> Node:
        left = self._operand()
        while (sign := self._peek().upper()) in _STRENGTH and _STRENGTH[sign] >= least:
            self._take()
            strength = _STRENGTH[sign]
            right = self.expression(strength if sign == "^" else strength + 1)
            left = _binary(OPERATORS[sign], left, right)
        return left

    def expect_end(self) -> None:
        if self._peek():
            raise self._error(f"did not expect {self._peek()!r}")

    def _operand(self) -> Node:
        token = self._take()
        if token == "-":  # noqa: S105 - a minus sign, no password
            inner = self.expression(_UNARY)
            return lambda env: mapped(operator.neg, inner(env))
        if token == "(":  # noqa: S105 - a bracket, no password
            inner = self.expression(0)
            self._expect(")")
            return inner
        if token == "[":  # noqa: S105 - a bracket, no password
            items = self._arguments("]")
            return lambda env: [series for item in items for series in members(item(env))]
        if token[:1].isdigit() or token[:1] == ".":
            number = float(token)
            return lambda _: number
        if token[:1].isalpha() or token[:1] == "_":
            return self._function(token) if self._peek() == "(" else self._id(token)
        raise self._error(f"did not expect {token!r}" if token else "the expression ends too soon")

    def _id(self, name: str) -> Node:
        self.names.add(name)

        def read(env: Env) -> Value:
            if name not in env.values:
                raise MathError(f"{self.text}: there is no metric with the id {name!r}")
            return env.values[name]

        return read

    def _function(self, name: str) -> Node:
        upper = name.upper()
        self._take()
        if upper == "METRICS":
            return self._metrics()
        if upper == "FILL":
            return self._fill()
        if upper not in FUNCTIONS:
            known = ", ".join(sorted([*FUNCTIONS, "FILL", "METRICS"]))
            raise self._error(f"the function {name} is not supported; supported are {known}")
        arguments = self._arguments(")")
        count, function = FUNCTIONS[upper]
        if len(arguments) != count:
            raise self._error(f"{upper} takes {count} argument{'s' * (count != 1)}, not {len(arguments)}")
        return lambda env: function(env, *(argument(env) for argument in arguments))

    def _metrics(self) -> Node:
        part = ""
        if self._peek() != ")":
            part = self._take()
            if part[:1] not in ("'", '"'):
                raise self._error("METRICS takes a part of an id in quotes, or nothing")
        self._expect(")")
        part = part[1:-1]
        return lambda env: [value for name, value in env.values.items() if part in name and isinstance(value, Mapping)]

    def _fill(self) -> Node:
        source = self.expression(0)
        self._expect(",")
        mode = self._peek().upper()
        if mode in ("REPEAT", "LINEAR"):
            self._take()
            filler: Node | None = None
        else:
            filler = self.expression(0)
        self._expect(")")
        return lambda env: math_functions.fill(env, source(env), filler(env) if filler else mode)

    def _arguments(self, closing: str) -> list[Node]:
        found: list[Node] = []
        if self._peek() == closing:
            self._take()
            return found
        while True:
            found.append(self.expression(0))
            token = self._take()
            if token == closing:
                return found
            if token != ",":  # noqa: S105 - a comma, no password
                raise self._error(f"expected , or {closing} and found {token or 'the end'!r}")

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._next += 1
        return token

    def _expect(self, wanted: str) -> None:
        token = self._take()
        if token != wanted:
            raise self._error(f"expected {wanted!r} and found {token or 'the end'!r}")

    def _error(self, what: str) -> MathError:
        return MathError(f"{self.text}: {what}")


def _tokens(text: str) -> Iterable[str]:
    at = 0
    text = text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise MathError(f"{text}: did not expect {text[at:].lstrip()[:1]!r}")
        yield found[0].strip()
        at = found.end()


def _binary(function: Callable[[float, float], float], left: Node, right: Node) -> Node:
    return lambda env: combine(function, left(env), right(env))
