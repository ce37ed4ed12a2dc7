"""What the predictor says no to.

PerchError
├── ModelUnavailable      this revision cannot predict; every request is answered 503 with the reason
├── ArtifactUnreachable   S3 did not answer at init; raised, so that Lambda begins again with a fresh environment
├── RequestRefused        the client's request is at fault; it has a 4xx status
├── UnusableAnswer        the model ran and what it gave is no answer (500)
└── PredictionFailed      the model raised or gave no answer; what the client is told of it (500)
"""

from __future__ import annotations

from perch.domain.errors import PerchError


class ModelUnavailable(PerchError):
    """This revision has no model that it may run; the message says why."""


class ArtifactUnreachable(PerchError):
    """The store could not be read now, which says nothing about the model."""


class UnusableAnswer(PerchError):
    """The model gave NaN, or a number of answers that is not the number of rows."""


class PredictionFailed(PerchError):
    """The model did not answer `rows` rows; the message is a sentence for the client."""

    def __init__(self, sentence: str, rows: int) -> None:
        super().__init__(sentence)
        self.rows = rows


class RequestRefused(PerchError):
    """The request cannot be answered; `status` is 4xx and the message a sentence for the client.

    `allow` is the method that the path takes, for a 405.
    """

    def __init__(self, status: int, sentence: str, *, allow: str | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.allow = allow
