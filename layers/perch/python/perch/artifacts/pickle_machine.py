"""The machine that pickles are written for, without what makes them dangerous.

    opcodes (pickletools) ─► steps ─► a stack and a memo, on which there are plain values and words

A pickle is a program for a machine with a stack. This one puts plain values on it, gathers them into lists, tuples and
dicts, and remembers them. It imports nothing, calls nothing and sets nothing. What a name, a call and a state may be is
for its users to say, who also list the instructions that they know; the rest is refused by name.

    torch_pickle     the values of a torch.save, tensors as places in the archive
    pickle_names     the names that an estimator's pickle imports

Work and memory are in proportion to what is read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn

MARK = object()
"""What lies on the stack where a list, a tuple or a dict begins."""

Steps = Mapping[str, Callable[[Any, Any], object]]
"""Instructions by name: what each does to a machine, given its argument."""


class Machine(ABC):
    """A pickle's stack and memo."""

    steps: ClassVar[Steps]

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    # -- for users to say ---------------------------------------------------------------------------------------------

    @abstractmethod
    def unknown(self, opcode: str) -> NoReturn:
        """Refuse an instruction."""

    @abstractmethod
    def damaged(self) -> NoReturn:
        """Refuse instructions that do not fit together."""

    @abstractmethod
    def name(self, module: Any, name: Any) -> None:
        """Push a word for a name that would be imported, or refuse it."""

    @abstractmethod
    def call(self, function: Any, arguments: Any) -> None:
        """Push what stands for the answer of a call."""

    @abstractmethod
    def build(self, state: Any) -> None:
        """Take the state that what is on top would be given."""

    @abstractmethod
    def is_key(self, key: Any) -> bool:
        """Whether a dict keeps what is under this key: its hash is computed then, which of a tuple may take years."""

    # -- one instruction ----------------------------------------------------------------------------------------------

    def step(self, opcode: str, argument: Any) -> None:
        """Do what one instruction says, if it is one of those that are known."""
        step = self.steps.get(opcode)
        if step is None:
            self.unknown(opcode)
        step(self, argument)

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def top(self) -> Any:
        """The value on top."""
        if not self.stack or self.stack[-1] is MARK:
            self.damaged()
        return self.stack[-1]

    def pop(self) -> Any:
        """Take the value on top."""
        value = self.top()
        self.stack.pop()
        return value

    def popped(self, count: int) -> list[Any]:
        """Take so many values, the lowest first."""
        return [self.pop() for _ in range(count)][::-1]

    def since_mark(self) -> list[Any]:
        """Take what lies above the last mark, and the mark."""
        values: list[Any] = []
        while self.stack and self.stack[-1] is not MARK:
            values.append(self.stack.pop())
        if not self.stack:
            self.damaged()
        self.stack.pop()
        return values[::-1]

    def remember(self, place: int | None) -> None:
        """Note the value on top, in a place or in the next one."""
        self.memo[len(self.memo) if place is None else place] = self.top()

    def recall(self, place: int) -> None:
        """Push what was noted."""
        if place not in self.memo:
            self.damaged()
        self.push(self.memo[place])

    def extend(self, values: list[Any]) -> None:
        """Add to the list on top."""
        found = self.top()
        if not isinstance(found, list):
            self.damaged()
        found.extend(values)

    def put_items(self, pairs: list[Any]) -> None:
        """Add keys and values, in turns, to the dict on top."""
        found = self.top()
        if not isinstance(found, dict) or len(pairs) % 2:
            self.damaged()
        found.update({key: value for key, value in zip(pairs[::2], pairs[1::2], strict=True) if self.is_key(key)})


def literals(*opcodes: str) -> Steps:
    """Steps of instructions whose argument is the value."""
    return dict.fromkeys(opcodes, Machine.push)


PLAIN: Steps = {
    "PROTO": lambda _, __: None,
    "FRAME": lambda _, __: None,
    "STOP": lambda _, __: None,
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    **literals("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    "MARK": lambda m, _: m.push(MARK),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.push(tuple(m.popped(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.popped(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.popped(3))),
    "APPEND": lambda m, _: m.extend(m.popped(1)),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "SETITEM": lambda m, _: m.put_items(m.popped(2)),
    "SETITEMS": lambda m, _: m.put_items(m.since_mark()),
    "BINPUT": Machine.remember,
    "LONG_BINPUT": Machine.remember,
    "MEMOIZE": Machine.remember,
    "BINGET": Machine.recall,
    "LONG_BINGET": Machine.recall,
    "GLOBAL": lambda m, words: m.name(*words.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*m.popped(2)),
    "REDUCE": lambda m, _: m.call(*m.popped(2)),
    "BUILD": lambda m, _: m.build(m.pop()),
}
"""The instructions that any pickle of plain values is made of, and the three that say what is not plain."""
