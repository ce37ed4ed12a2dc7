"""What goes wrong with artifacts, as a branch of the tree in `perch.domain.errors`.

    PerchError
    └── Refused
        └── ArtifactRefused           the file will not be registered; `reason` is a sentence for its author
            └── ArchitectureRefused   the list of layers of a safetensors file is at fault

A refusal is an answer, not an accident: it is written into the registry and announced, so every reason says what is
wrong and, where there is one, the way out.
"""

from __future__ import annotations

from perch.domain.errors import Refused
from perch.domain.printable import printable


class ArtifactRefused(Refused):
    """The artifact is not accepted.

    Attributes:
        reason: one or two plain sentences, without the file's name, fit for a log, an event and a terminal, whatever
            the names in the file are.
    """

    def __init__(self, reason: str) -> None:
        self.reason = printable(reason)
        super().__init__(self.reason)


class ArchitectureRefused(ArtifactRefused):
    """The declared architecture names something unknown, too large, or layers that do not fit together."""
