"""JSON filter patterns of CloudWatch Logs: does this log line match `{ $.event = "predictor.captured" }`?

    { expression }      expression: comparisons joined by && and ||, with parentheses; && binds closer
    comparison          selector = value · != · < · <= · > · >= · IS TRUE · IS FALSE · IS NULL · NOT EXISTS
    selector            $.name, $.a.b, $.list[0], $.["a name"]
    value               a number, or text, quoted or not, in which * stands for anything

A line that is not a JSON object matches nothing. Text is compared with text and numbers with numbers. A comparison with
a property that is not there is false, also with != (the documents do not say; NOT EXISTS is how to ask for that).

Left out, and refused rather than ignored: regular expressions (%…%) and [*] in selectors.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator
from fnmatch import translate
from typing import Any

Test = Callable[[Any], bool]

_ABSENT = object()
_ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<selector>\$(?:\.(?:[\w@-]+|\[(?:"[^"]*"|'[^']*')\])|\[\d+\])+)
    | (?P<sign>&&|\|\||[()]|!=|<=|>=|=|<|>)
    | (?P<text>"(?:[^"\\]|\\.)*")
    | (?P<word>[\w.*:/@+-]+)
    )""",
    re.VERBOSE,
)
_STEP = re.compile(r"""\.(?P<name>[\w@-]+)|\.?\[(?:"(?P<quoted>[^"]*)"|'(?P<single>[^']*)'|(?P<index>\d+))\]""")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class InvalidPatternError(ValueError):
    """The filter pattern is not valid, or not one that is understood here; the message says which."""


def compile_json(pattern: str) -> Callable[[str], bool]:
    """Return the test of a JSON pattern (`{ … }`) on a log line. Raises `InvalidPatternError`."""
    tokens = _Tokens(pattern.strip()[1:-1])
    test = _any(tokens)
    if tokens.kind:
        raise InvalidPatternError(f"Invalid filter pattern: {tokens.text!r} was not expected")

    def matches(line: str) -> bool:
        try:
            document = json.loads(line)
        except ValueError:
            return False
        return isinstance(document, dict) and test(document)

    return matches


class _Tokens:
    """The tokens of an expression; `kind` and `text` are the one at hand, both empty after the last."""

    def __init__(self, source: str) -> None:
        self._rest = self._read(source.rstrip())
        self.kind, self.text = next(self._rest)

    def _read(self, source: str) -> Iterator[tuple[str, str]]:
        at = 0
        while at < len(source):
            found = _TOKEN.match(source, at)
            if found is None:
                raise InvalidPatternError(f"Invalid filter pattern: cannot read {source[at:].strip()[:40]!r}")
            yield str(found.lastgroup), found[str(found.lastgroup)]
            at = found.end()
        yield "", ""

    def take(self, kind: str = "", text: str = "") -> str:
        """Return the token at hand and go on. Raises if it is not what is asked for."""
        if (kind and self.kind != kind) or (text and self.text != text) or not self.kind:
            raise InvalidPatternError(
                f"Invalid filter pattern: expected {text or kind}, found {self.text or 'its end'}"
            )
        taken, (self.kind, self.text) = self.text, next(self._rest)
        return taken


def _any(tokens: _Tokens) -> Test:
    tests = [_all(tokens)]
    while tokens.text == "||":
        tokens.take()
        tests.append(_all(tokens))
    return tests[0] if len(tests) == 1 else lambda document: any(test(document) for test in tests)


def _all(tokens: _Tokens) -> Test:
    tests = [_one(tokens)]
    while tokens.text == "&&":
        tokens.take()
        tests.append(_one(tokens))
    return tests[0] if len(tests) == 1 else lambda document: all(test(document) for test in tests)


def _one(tokens: _Tokens) -> Test:
    if tokens.text == "(":
        tokens.take()
        test = _any(tokens)
        tokens.take("sign", ")")
        return test
    steps = _steps(tokens.take("selector"))
    if tokens.kind == "word":
        return _word_test(steps, f"{tokens.take()} {tokens.take('word')}".upper())
    return _comparison(steps, tokens.take("sign"), tokens)


def _word_test(steps: list[str | int], words: str) -> Test:
    wanted = {"IS TRUE": True, "IS FALSE": False, "IS NULL": None, "NOT EXISTS": _ABSENT}
    if words not in wanted:
        raise InvalidPatternError(f"Invalid filter pattern: {words!r} is none of {', '.join(wanted)}")
    return lambda document: _at(document, steps) is wanted[words]


def _comparison(steps: list[str | int], sign: str, tokens: _Tokens) -> Test:
    quoted = tokens.kind == "text"
    if not quoted and tokens.kind != "word":
        raise InvalidPatternError(f"Invalid filter pattern: {sign} needs a number or text, not {tokens.text!r}")
    text = json.loads(tokens.take()) if quoted else tokens.take()
    number = float(text) if not quoted and _NUMBER.fullmatch(text) else None
    if sign in _ORDER:
        if number is None:
            raise InvalidPatternError(f"Invalid filter pattern: {sign} needs a number, not {text!r}")
        compare = _ORDER[sign]
        return lambda document: _is_number(found := _at(document, steps)) and compare(found, number)
    if sign not in ("=", "!="):
        raise InvalidPatternError(f"Invalid filter pattern: {sign!r} is no comparison")
    # Only * is special: what else fnmatch knows is taken as it stands.
    like = re.compile(translate(re.sub(r"[?\[]", lambda special: f"[{special[0]}]", text)))

    def equal(found: Any) -> bool:
        if number is not None:
            return _is_number(found) and bool(found == number)
        return isinstance(found, str) and like.match(found) is not None

    if sign == "=":
        return lambda document: equal(_at(document, steps))
    return lambda document: (found := _at(document, steps)) is not _ABSENT and not equal(found)


def _steps(selector: str) -> list[str | int]:
    steps: list[str | int] = []
    for step in _STEP.finditer(selector):
        index = step["index"]
        steps.append(int(index) if index is not None else step["name"] or step["quoted"] or step["single"] or "")
    return steps


def _at(document: Any, steps: list[str | int]) -> Any:
    for step in steps:
        if isinstance(step, int):
            document = document[step] if isinstance(document, list) and step < len(document) else _ABSENT
        else:
            document = document.get(step, _ABSENT) if isinstance(document, dict) else _ABSENT
    return document


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
