"""EventBridge event patterns: does this event match that pattern?

A pattern has the shape of the events it selects: objects are conditions that must all hold, and a leaf is an array of
alternatives of which one must hold. An alternative is a value (matched exactly) or an operator: `prefix`, `suffix`,
`equals-ignore-case`, `wildcard`, `anything-but`, `numeric`, `exists`, `cidr`. `$or` gives alternatives among fields.

Rules that are easy to get wrong, as documented or as the service's published matcher does it:

- An array in the event matches when any of its elements does; the fields of objects in an array, within one of them.
- `exists` sees leaves only: to it, an object under the name, or an empty array, does not exist.
- `anything-but` needs the field to be there.
- Exact numbers match by how they are written (300 and 300.0 differ); `numeric` and `anything-but` compare by value.
- `$or` is an operator only as an array of two or more objects that name no operator; otherwise it is a plain field.

Left out: numbers that differ only in notation (300.0 and 3.0e2) match exactly here, because JSON is already parsed;
the service's limit on how complex wildcards may get.
"""

from __future__ import annotations

import ipaddress
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_ABSENT = object()
_NUMERIC_LIMIT = 5_000_000_000
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    ">=": operator.ge,
    ">": operator.gt,
}
_OPERATORS = frozenset(
    {"prefix", "suffix", "equals-ignore-case", "wildcard", "anything-but", "numeric", "exists", "cidr", "exactly"}
)

Test = Callable[[Any], bool]


class InvalidPatternError(ValueError):
    """The event pattern is not valid; the message says where and why."""


@dataclass(frozen=True)
class EventPattern:
    """A checked pattern. `matches` is pure; equal patterns match the same events."""

    value: Mapping[str, Any]
    _test: Test = field(repr=False, compare=False)

    @classmethod
    def parse(cls, pattern: str | Mapping[str, Any]) -> EventPattern:
        """Check a pattern (JSON text or an object). Raises `InvalidPatternError`."""
        if isinstance(pattern, str):
            try:
                pattern = json.loads(pattern)
            except ValueError as error:
                raise InvalidPatternError(f"the event pattern is not JSON: {error}") from error
        if not isinstance(pattern, Mapping):
            raise InvalidPatternError("an event pattern must be a JSON object")
        return cls(pattern, _compile_object(pattern, ""))

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Tell whether an event (parsed JSON) matches."""
        return self._test(event)


# -- structure -------------------------------------------------------------------------------------------------------


def _compile_object(pattern: Mapping[str, Any], where: str) -> Test:
    if not pattern:
        raise InvalidPatternError(f"empty objects are not allowed{_at(where)}")
    tests: list[Test] = []
    for name, value in pattern.items():
        here = f"{where}.{name}" if where else name
        if name == "$or" and _is_or(value):
            tests.append(_any_of([_compile_object(option, where) for option in value]))
        elif isinstance(value, Mapping):
            tests.append(_descend(name, _compile_object(value, here)))
        elif isinstance(value, list):
            tests.append(_at_leaf(name, _compile_leaf(value, here)))
        else:
            raise InvalidPatternError(f"'{here}' must be an object or an array")
    return tests[0] if len(tests) == 1 else lambda event: all(test(event) for test in tests)


def _is_or(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(option, Mapping) and not _OPERATORS & option.keys() for option in value)
    )


def _any_of(tests: list[Test]) -> Test:
    return lambda event: any(test(event) for test in tests)


def _descend(name: str, inner: Test) -> Test:
    """An object of the pattern under `name`: the event's object there, or any one object of an array there."""

    def test(event: Any) -> bool:
        value = event.get(name, _ABSENT) if isinstance(event, Mapping) else _ABSENT
        if isinstance(value, list):
            objects = [element for element in _flat(value) if isinstance(element, Mapping)]
            return any(inner(element) for element in objects) if objects else inner({})
        return inner(value if isinstance(value, Mapping) else {})

    return test


def _at_leaf(name: str, alternatives: list[Test]) -> Test:
    def test(event: Any) -> bool:
        value = event.get(name, _ABSENT) if isinstance(event, Mapping) else _ABSENT
        if isinstance(value, list):
            leaves = [element for element in _flat(value) if not isinstance(element, Mapping)]
        else:
            leaves = [] if isinstance(value, Mapping) or value is _ABSENT else [value]
        return any(alternative(leaf) for alternative in alternatives for leaf in leaves or [_ABSENT])

    return test


def _flat(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value


# -- leaves ----------------------------------------------------------------------------------------------------------


def _compile_leaf(alternatives: list[Any], where: str) -> list[Test]:
    if not alternatives:
        raise InvalidPatternError(f"empty arrays are not allowed{_at(where)}")
    return [_compile_alternative(alternative, where) for alternative in alternatives]


def _compile_alternative(alternative: Any, where: str) -> Test:
    if isinstance(alternative, list):
        raise InvalidPatternError(f"an array may not hold an array{_at(where)}")
    if not isinstance(alternative, Mapping):
        return _exactly(alternative)
    if len(alternative) != 1:
        raise InvalidPatternError(f"a match expression must have exactly one key{_at(where)}")
    [(name, argument)] = alternative.items()
    match name:
        case "exists":
            if not isinstance(argument, bool):
                raise InvalidPatternError(f"exists must be true or false{_at(where)}")
            return lambda value: (value is not _ABSENT) == argument
        case "numeric":
            return _numeric(argument, where)
        case "cidr":
            return _cidr(argument, where)
        case "anything-but":
            return _anything_but(argument, where)
        case "prefix" | "suffix" | "wildcard" | "equals-ignore-case":
            return _text(name, argument, where)
        case _:
            raise InvalidPatternError(f"unrecognised match type '{name}'{_at(where)}")


def _exactly(wanted: Any) -> Test:
    return lambda value: value is not _ABSENT and type(value) is type(wanted) and value == wanted


def _text(name: str, argument: Any, where: str) -> Test:
    """The operators on strings; anything that is not a string does not match."""
    if isinstance(argument, Mapping) and name in ("prefix", "suffix") and list(argument) == ["equals-ignore-case"]:
        wanted, fold = argument["equals-ignore-case"], True
    else:
        wanted, fold = argument, name == "equals-ignore-case"
    if not isinstance(wanted, str):
        raise InvalidPatternError(f"{name} must be a string{_at(where)}")
    wanted = wanted.lower() if fold else wanted
    check: Callable[[str], bool]
    match name:
        case "prefix":
            check = lambda text: text.startswith(wanted)  # noqa: E731 - one small function for each case
        case "suffix":
            check = lambda text: text.endswith(wanted)  # noqa: E731 - as above
        case "wildcard":
            expression = _wildcard(wanted, where)
            check = lambda text: expression.fullmatch(text) is not None  # noqa: E731 - as above
        case _:
            check = lambda text: text == wanted  # noqa: E731 - as above
    return lambda value: isinstance(value, str) and check(value.lower() if fold else value)


def _wildcard(text: str, where: str) -> re.Pattern[str]:
    parts: list[str] = []
    characters = iter(text)
    for character in characters:
        if character == "\\":
            escaped = next(characters, "")
            if escaped not in ("*", "\\"):
                raise InvalidPatternError(f"a backslash in a wildcard may only escape * or a backslash{_at(where)}")
            parts.append(re.escape(escaped))
        elif character == "*":
            if parts and parts[-1] == ".*":
                raise InvalidPatternError(f"a wildcard may not hold two asterisks in a row{_at(where)}")
            parts.append(".*")
        else:
            parts.append(re.escape(character))
    return re.compile("".join(parts), re.DOTALL)


def _anything_but(argument: Any, where: str) -> Test:
    """Holds for a field that is there and is none of these."""
    refused: list[Test]
    if isinstance(argument, Mapping):
        if len(argument) != 1 or next(iter(argument)) not in ("prefix", "suffix", "wildcard", "equals-ignore-case"):
            raise InvalidPatternError(
                f"anything-but takes values, or one of prefix, suffix, wildcard, equals-ignore-case{_at(where)}"
            )
        [(name, inner)] = argument.items()
        refused = [_text(name, one, where) for one in _non_empty(inner, where)]
    else:
        values = _non_empty(argument, where)
        if not (all(isinstance(one, str) for one in values) or all(_is_number(one) for one in values)):
            raise InvalidPatternError(f"anything-but takes only strings or only numbers{_at(where)}")
        refused = [_equals(one) for one in values]
    return lambda value: value is not _ABSENT and not any(test(value) for test in refused)


def _non_empty(argument: Any, where: str) -> list[Any]:
    values = argument if isinstance(argument, list) else [argument]
    if not values:
        raise InvalidPatternError(f"empty arrays are not allowed{_at(where)}")
    return values


def _equals(wanted: str | float) -> Test:
    if isinstance(wanted, str):
        return lambda value: isinstance(value, str) and value == wanted
    return lambda value: _is_number(value) and value == wanted


def _numeric(argument: Any, where: str) -> Test:
    """`["=", n]`, one bound, or a lower bound followed by an upper bound."""
    terms = list(zip(argument[::2], argument[1::2], strict=False)) if isinstance(argument, list) else []
    names = [name for name, _ in terms]
    if len(terms) * 2 != (len(argument) if isinstance(argument, list) else -1) or not terms:
        raise InvalidPatternError(f"numeric takes pairs of an operator and a number{_at(where)}")
    for name, bound in terms:
        if name not in _COMPARE:
            raise InvalidPatternError(f"unrecognised numeric range operator {name!r}{_at(where)}")
        if not _is_number(bound) or abs(bound) > _NUMERIC_LIMIT:
            raise InvalidPatternError(
                f"a numeric bound must be a number within ±{_NUMERIC_LIMIT}, not {bound!r}{_at(where)}"
            )
    if len(terms) > 1 and not (len(terms) == 2 and names[0] in (">", ">=") and names[1] in ("<", "<=")):
        raise InvalidPatternError(f"a numeric range is a lower bound and then an upper bound{_at(where)}")
    if len(terms) == 2 and terms[0][1] >= terms[1][1]:
        raise InvalidPatternError(f"the lower bound of a numeric range must be below the upper{_at(where)}")
    return lambda value: _is_number(value) and all(_COMPARE[name](value, bound) for name, bound in terms)


def _cidr(argument: Any, where: str) -> Test:
    try:
        network = ipaddress.ip_network(argument, strict=False)
    except (TypeError, ValueError) as error:
        raise InvalidPatternError(f"cidr must be an address block such as 10.0.0.0/24{_at(where)}") from error

    def test(value: Any) -> bool:
        try:
            return isinstance(value, str) and ipaddress.ip_address(value) in network
        except ValueError:
            return False

    return test


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _at(where: str) -> str:
    return f" (at '{where}')" if where else ""
