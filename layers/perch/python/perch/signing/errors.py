"""What goes wrong with signatures, as a branch of the tree in `perch.domain.errors`."""

from __future__ import annotations

from perch.domain.errors import Invalid, Refused


class SignatureRefused(Refused):
    """A signature does not hold for these files and these keys; the message is a sentence for their author."""


class BadKey(Invalid):
    """A file is not a key that signatures can be made or checked with."""
