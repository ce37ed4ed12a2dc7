"""What can go wrong, in one tree.

    PerchError
    ├── Invalid          a name, key or document that breaks a rule (fix the input)
    ├── NotFound         no such model, version, endpoint or rollout
    ├── Refused          a request that a law or a policy forbids (the message says what to do instead)
    ├── Conflict         somebody else changed the same thing first (read again and decide again)
    └── NotReady         AWS is still busy with an earlier change (come back at the next tick)

Each message says what was wrong, and ends with what to do.
"""


class PerchError(Exception):
    """Anything that Perch says no to."""


class Invalid(PerchError):
    """A name, key or document breaks a rule."""


class NotFound(PerchError):
    """There is no such model, version, endpoint or rollout."""


class Refused(PerchError):
    """A law or a policy forbids it."""


class Conflict(PerchError):
    """The state changed between reading and writing; read again."""


class NotReady(PerchError):
    """AWS has not finished an earlier change; the next tick tries again."""
