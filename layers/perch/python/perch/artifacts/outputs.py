"""How a model's author says what the numbers that it gives mean: the metadata key `perch.output`.

A classifier exported by scikit-learn gives labels beside its scores and needs no such word. A single matrix of numbers
can be anything, and then this key decides (see `perch.predictor.answer` for the rule that applies without it).
"""

from __future__ import annotations

from collections.abc import Mapping

from .errors import ArtifactRefused

OUTPUT_KEY = "perch.output"

MEANINGS = {
    "probabilities": "one column per class, each row summing to 1",
    "logits": "one column per class, to be normalised with softmax",
    "values": "numbers as they are: a regression, several targets, independent sigmoids",
}


def declared_output(metadata: Mapping[str, str]) -> str | None:
    """Return the declared meaning, or None when the artifact does not say. Raises `ArtifactRefused`."""
    meaning = metadata.get(OUTPUT_KEY)
    if meaning is not None and meaning not in MEANINGS:
        raise ArtifactRefused(f"metadata {OUTPUT_KEY} is {meaning!r}; it can be {', '.join(MEANINGS)}")
    return meaning
