"""Law 2 in the predictor: bytes that may hold code are loaded on the word of a trusted key, or not at all."""

from __future__ import annotations

import hashlib
import json

import pytest

from perch.domain.formats import FORMATS
from perch.domain.model import Pointer
from perch.predictor.errors import ModelUnavailable
from perch.predictor.loading import load_served
from tests.aws.spells import SPELL
from tests.local.tiny_models import onnx_model

DATA = b"abracadabra"
POINTER = Pointer(
    model="digits", version="v1", key="models/digits/v1/m.spell", version_id="x", size=len(DATA), format="spell",
    sha256=hashlib.sha256(DATA).hexdigest(), signed_by="team",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _spells(monkeypatch):
    """A format that can run code is served."""
    monkeypatch.setitem(FORMATS, "spell", SPELL)


def environment(**changes) -> dict[str, str]:
    """Of a function whose pointer was changed; None takes a field away."""
    fields = json.loads(POINTER.to_json()) | changes
    return {"PERCH_POINTER": json.dumps({k: v for k, v in fields.items() if v is not None}), "PERCH_STORE": "store"}


@pytest.mark.parametrize(
    "changes",
    [
        {"signed_by": "", "harmless": False},
        {"signed_by": None, "harmless": None},  # as an older driver writes it, which knows neither
        {"signed_by": None, "harmless": None, "code": False, "trusted": True},
        {"signed_by": "", "harmless": False, "format": "unheard-of"},
    ],
)
def test_law_2_bytes_that_may_hold_code_are_not_even_fetched_without_a_trusted_key(changes):
    """Whatever else the environment says; what says nothing is trusted with nothing."""
    with pytest.raises(ModelUnavailable, match="can run code, and no trusted key signed it"):
        load_served("onnx", environment(**changes), lambda *_: pytest.fail("fetched"))


@pytest.mark.parametrize("changes", [{}, {"signed_by": "", "harmless": True}])
def test_law_2_signed_or_proved_harmless_they_are_fetched(changes):
    """The next thing that is asked is the store."""

    class Fetched(Exception):
        pass

    def fetch(*_):
        raise Fetched

    with pytest.raises(Fetched):
        load_served("onnx", environment(**changes), fetch)


def test_a_format_that_holds_no_code_needs_neither():
    """A pointer of an older release goes on being served."""
    data = onnx_model(1)
    pointer = {"format": "onnx", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    served = load_served("onnx", environment(**pointer, signed_by=None, harmless=None), lambda *_: data)

    assert served.pointer.mistrust is None


def test_a_pointer_of_this_release_is_read_by_itself():
    """What the driver writes, the predictor reads, signer and all."""
    assert Pointer.from_json(POINTER.to_json()) == POINTER


def test_a_harmless_format_cannot_be_claimed_to_run_what_is_none():
    """Naming the bytes ONNX leads to ONNX's loader, which runs nothing; it does not load them."""
    with pytest.raises(ModelUnavailable, match="does not load"):
        load_served("onnx", environment(format="onnx", signed_by=None), lambda *_: DATA)
