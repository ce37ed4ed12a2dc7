"""Operators of torch that trust the shapes they are given, behind a look at those shapes.

Torch's public functions check their arguments and then call these, which read as far as they are told: in a program
that was taken apart (`run_decompositions`) they stand alone, and a crafted one would see memory that is not its own.

    a step that names one of `GUARDS` ─► its guard ─► torch's operator
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

Operator = Callable[..., Any]


def _batch_norm(operator: Operator) -> Operator:
    def call(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, *rest: Any) -> Any:
        if any(one is not None and one.shape != x.shape[1:2] for one in (weight, bias, mean, variance)):
            raise ValueError("a batch norm has not one number for each channel")
        return operator(x, weight, bias, mean, variance, *rest)

    return call


def _attention(operator: Operator) -> Operator:
    def call(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> Any:
        own, other = query.shape, key.shape
        if len(own) != 4 or other != value.shape or own[:2] != other[:2] or own[3] != other[3]:
            raise ValueError("the query, key and value of an attention do not fit together")
        return operator(query, key, value, *rest, **more)

    return call


GUARDS: Mapping[str, Callable[[Operator], Operator]] = {
    "aten._native_batch_norm_legit_no_training.default": _batch_norm,
    "aten._scaled_dot_product_flash_attention_for_cpu.default": _attention,
}


def operator_of(name: str) -> Operator:
    """Return torch's operator of a name such as `aten.add.Tensor`, guarded if it needs that."""
    _, packet, overload = name.split(".")
    found: Operator = getattr(getattr(torch.ops.aten, packet), overload)
    return GUARDS[name](found) if name in GUARDS else found
