"""What is done apart comes back as an answer, also when it kills the process that does it."""

import faulthandler
import os
import signal
import time

import pytest

from perch.app.apart import DiedApart, apart
from perch.app.register import inspect_apart
from perch.artifacts import ArtifactRefused
from tests.local.tiny_models import onnx_model


def test_what_a_function_returns_comes_back_however_large_it_is():
    """More than a pipe holds at once."""
    assert apart(lambda: b"x" * 1_000_000, limit_s=30) == b"x" * 1_000_000


def test_what_a_function_raises_comes_back_as_it_is():
    """The same type and words; nothing of the parent ran."""

    def refuse():
        raise ArtifactRefused("it is no model")

    with pytest.raises(ArtifactRefused, match="it is no model"):
        apart(refuse, limit_s=30)


@pytest.mark.parametrize(
    ("death", "words"),
    [
        (lambda: (faulthandler.disable(), os.kill(os.getpid(), signal.SIGSEGV)), "SIGSEGV"),
        (lambda: (faulthandler.disable(), os.abort()), "SIGABRT"),
        (lambda: os._exit(3), "exit code 3"),
        (lambda: lambda: None, "exit code 1"),
    ],
    ids=["segmentation fault", "abort", "exit", "an answer that cannot be sent"],
)
def test_a_death_is_an_answer(death, words):
    """The parent goes on, and is told how the child ended."""
    with pytest.raises(DiedApart, match=words):
        apart(death, limit_s=30)


def test_what_never_ends_is_ended():
    """After its time."""
    with pytest.raises(DiedApart, match=r"longer than 0\.2 s"):
        apart(lambda: time.sleep(60), limit_s=0.2)


def test_an_artifact_is_inspected_apart_as_it_is_here():
    """What was found comes back whole."""
    found = inspect_apart("model.onnx", onnx_model(1))

    assert (found.format, found.signature.features) == ("onnx", 4)
