"""What others wrote gives no orders to a terminal: not by a refusal, not by a command that shows a file."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from typer.testing import CliRunner

from perch.artifacts import ArtifactRefused, inspect
from perch.cli.app import app
from perch.domain.printable import printable

ORDER = "\x1b]0;owned\x07\x9b2J\u202etxt\x7f"
"""Rename the window, clear the screen, turn the direction around."""


@given(st.text())
def test_what_acts_is_written_out_and_all_else_stays(text: str) -> None:
    """Controls are gone but for ends of line and tabs, and a JSON text still says the same."""
    shown = printable(text)
    assert all(letter.isprintable() or letter.isspace() for letter in shown)
    assert not set(shown) & set("\x1b\x07\x9b\x7f\r\u202e\u2028")
    quoted = json.dumps(text, ensure_ascii=False)
    assert json.loads(printable(quoted)) == text


@pytest.mark.parametrize("text", ["", "plain", "größer als 5 µs ─► 日本語 🎉", "two\nlines\tand a tab"])
def test_plain_text_stays_as_it_is(text: str) -> None:
    """Of whatever language."""
    assert printable(text) == text


def model(kind: str, producer: str) -> bytes:
    """A model of one node."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(kind, ["x"], ["y"])], "g", values[:1], values[1:])
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    made.producer_name = producer
    return made.SerializeToString()


def test_a_refusal_repeats_a_name_and_not_its_orders() -> None:
    """Its reason goes into the registry, onto the alerts topic and to whoever lists refused uploads."""
    with pytest.raises(ArtifactRefused, match=r"Relu\\u001b\]0;owned\\u0007") as refused:
        inspect("model.onnx", model(f"Relu{ORDER}", ""))
    assert refused.value.reason.isprintable()
    assert str(refused.value) == refused.value.reason


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_file_that_is_looked_at_commands_no_terminal(tmp_path: Path, options: tuple[str, ...]) -> None:
    """`perch inspect` is what one asks about a file that one does not trust."""
    file = tmp_path / "model.onnx"
    file.write_bytes(model("Relu", ORDER))
    done = CliRunner().invoke(app, ["inspect", str(file), *options])
    assert "owned" in done.stdout
    assert not set(done.stdout) & set(ORDER) - set("]0;owned2Jtx")
