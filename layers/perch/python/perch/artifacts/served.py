"""Rules that every signature keeps, whichever format it was read from: what can be sent, answered and kept."""

from __future__ import annotations

from collections.abc import Collection

from .errors import ArtifactRefused
from .signature import DATATYPES, NUMBERS, Signature, Tensor

MAX_TENSORS, MAX_NAME = 1_000, 256
"""Inputs and outputs together, and characters of a name."""


def check_served(signature: Signature, way_out: str, answers: Collection[str] = ()) -> None:
    """Make sure that a model of this signature can be asked and can answer.

    Args:
        signature: as it was read from the file.
        way_out: how its author makes a dimension variable, for the sentence of a refusal.
        answers: types that an output may have besides those that can be sent.

    Raises:
        ArtifactRefused: it has no input, too many tensors, types that cannot be sent, an input of no shape, or rows
            without a number.
    """
    both = (*signature.inputs, *signature.outputs)
    if not signature.inputs or not signature.outputs:
        raise ArtifactRefused("the model has no input or no output; such a model predicts nothing")
    if len(both) > MAX_TENSORS:
        raise ArtifactRefused(
            f"the model has {len(signature.inputs):,} inputs and {len(signature.outputs):,} outputs; together at most "
            f"{MAX_TENSORS} are served: put columns of one type into one matrix"
        )
    for tensor in both:
        if len(tensor.name) > MAX_NAME:
            raise ArtifactRefused(
                f"the name {tensor.name[:40]!r}… has {len(tensor.name):,} characters; at most {MAX_NAME} are taken"
            )
        if tensor.datatype not in DATATYPES and (tensor in signature.inputs or tensor.datatype not in answers):
            raise ArtifactRefused(
                f"{tensor.name!r} is of type {tensor.datatype}, which cannot be sent; served are "
                f"{', '.join(sorted(DATATYPES))}"
            )
    if undeclared := next((tensor.name for tensor in signature.inputs if tensor.shape is None), None):
        raise ArtifactRefused(f"input {undeclared!r} has an undeclared shape; {way_out}")
    for side in (signature.inputs, signature.outputs):
        if len({tensor.name for tensor in side}) != len(side):
            raise ArtifactRefused("the model gives one name to two of its inputs or outputs")
    if len(signature.inputs) == 1:
        _check_rows(signature.inputs[0], way_out)


def _check_rows(wanted: Tensor, way_out: str) -> None:
    """A lone matrix of numbers is rows of features, and then both sides of it have to say so."""
    if wanted.datatype not in NUMBERS or wanted.shape is None or len(wanted.shape) != 2:
        return
    batch, features = wanted.shape
    if batch != -1:
        raise ArtifactRefused(f"input {wanted.name!r} has a fixed batch of {batch}; {way_out}")
    if features < 1:
        raise ArtifactRefused(
            f"input {wanted.name!r} does not declare its number of features; export it with a fixed one"
        )
