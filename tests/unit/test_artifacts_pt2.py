"""`.pt2` programs, read in plain Python: what is allowed, what is said of it, and no JSON that breaks the reader."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perch.artifacts import ArtifactRefused, inspect
from perch.artifacts.pt2_file import read_program
from perch.artifacts.pt2_operators import ASSERTIONS, IN_PLACE, OPERATORS, PINNED, TEXTS, VIEWS
from tests.hostile.made import members, zipped
from tests.hostile.torch_files import MODEL, WEIGHTS, Change, program, reprogrammed

SEEDED = {
    "aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default",
    "aten.feature_alpha_dropout.default", "aten.dropout_.default", "aten.feature_dropout_.default",
    "aten.alpha_dropout_.default", "aten.feature_alpha_dropout_.default", "aten.lstm.input",
    "aten.gru.input", "aten.rnn_relu.input", "aten.rnn_tanh.input", "aten.scaled_dot_product_attention.default",
    "aten._scaled_dot_product_flash_attention_for_cpu.default",
}  # fmt: skip
"""Draw random numbers only when `train` is true or `dropout_p` is not 0, and a graph that says so is refused."""

TEXT_ARGUMENTS = {"approximate", "padding", "rounding_mode", "mode", "indexing", "equation", "side"}


def operator(name: str) -> Any:
    """Torch's operator of a name of the list."""
    _, packet, overload = name.split(".")
    return getattr(getattr(torch.ops.aten, packet), overload)


def refusal(data: bytes) -> str:
    """The reason why a program is refused."""
    with pytest.raises(ArtifactRefused) as refused:
        inspect("model.pt2", data)
    return refused.value.reason


def changed(change: Change) -> str:
    """The reason why a program with a change to its JSON is refused."""
    return refusal(reprogrammed(change))


def test_a_program_is_read() -> None:
    """Signature from the graph, details for people; proved harmless."""
    found = inspect("model.pt2", program())
    assert (found.format, found.runtimes, found.code) == ("pt2", ("torch",), "")
    assert [tensor.to_json() for tensor in found.signature.inputs] == [
        {"name": "input", "datatype": "FP32", "shape": [-1, 3]}
    ]
    assert found.signature.outputs[0].shape == (-1, 2)
    assert found.details["output"] == "logits"
    assert found.details["parameters"] == 12 + 4 + 4 * 4 + 1 + 8 + 2
    assert "aten.linear.default" in found.details["operators"]


def test_every_operator_on_the_list_is_torchs_and_writes_only_if_it_says_so() -> None:
    """Asked of torch's own schemas, so that no name on the list is more than it seems."""
    for name in OPERATORS | ASSERTIONS:
        schema = operator(name)._schema
        assert schema.is_mutable == (name in IN_PLACE), name
        if name in IN_PLACE:
            assert [argument.is_write for argument in schema.arguments].index(True) == 0, name
            assert sum(argument.is_write for argument in schema.arguments) == 1, name


def test_every_operator_that_gives_the_memory_of_its_input_is_known_as_a_view() -> None:
    """Or one in place could reach a weight through it."""
    for name in OPERATORS - IN_PLACE:
        if any(given.alias_info is not None for given in operator(name)._schema.returns):
            assert name in VIEWS, name


def test_no_operator_on_the_list_draws_random_numbers_or_takes_a_path() -> None:
    """Texts are of arguments that we know; those that draw are refused in training mode."""
    for name in OPERATORS:
        found = operator(name)
        assert (torch.Tag.nondeterministic_seeded in found.tags) == (name in SEEDED), name
        texts = {
            argument.name for argument in found._schema.arguments if str(argument.type) in ("str", "Optional[str]")
        }
        assert texts <= TEXT_ARGUMENTS, name
        assert not any("Storage" in str(argument.type) for argument in found._schema.arguments), name


def test_every_argument_that_makes_an_operator_another_is_pinned_at_its_place() -> None:
    """Torch goes by places, so names of a file mean nothing; what is left out has a default that is harmless."""
    telling = {"train", "training", "use_input_stats", "dropout_p", "interpolation_mode", "padding_mode"}
    for name in OPERATORS:
        schema = operator(name)._schema
        assert not any("Generator" in str(argument.type) for argument in schema.arguments), name
        found = {place: one for place, one in enumerate(schema.arguments) if one.name in telling}
        assert {place: one.name for place, one in found.items()} == {
            place: said for place, (said, *_) in PINNED.get(name, {}).items()
        }, name
        for place, one in found.items():
            assert not one.has_default_value() or one.default_value in PINNED[name][place][1], name
    assert PINNED.keys() <= OPERATORS
    assert "trunc" not in TEXTS


def test_a_dimension_that_varies_is_known_by_its_name_and_its_range() -> None:
    """Equal names are equal sizes; 0 to 2 at the lower end is what an export assumes of every size."""
    found = read_program(program())
    [(name, axes)] = found.axes.items()
    assert name == "input"
    assert axes[0] is not None
    assert axes[1] is None
    assert found.sizes[axes[0]] == (0, None)


def _input(document: dict[str, Any]) -> dict[str, Any]:
    graph = document["graph_module"]["graph"]
    found: dict[str, Any] = graph["tensor_values"][graph["inputs"][-1]["as_tensor"]["name"]]
    return found


def _specs(document: dict[str, Any], side: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document["graph_module"]["signature"][f"{side}_specs"]
    return found


def _last(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["graph_module"]["graph"]["nodes"][-1]
    return found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: _input(d)["sizes"].__setitem__(0, {"as_int": 2}), "a fixed batch of 2; export with dynamic_shapes"),
        (lambda d: _input(d).update(dtype=9), "of a type or layout that is not served"),
        (lambda d: _input(d).update(dtype=13), "'input' is of type BF16, which cannot be sent"),
        (lambda d: _input(d).update(layout=1), "of a type or layout that is not served"),
        (lambda d: _input(d).update(device={"type": "cuda"}), "export it on the CPU"),
        (lambda d: d.update(schema_version={"major": 9}), "the program's schema is"),
        (lambda d: d.update(opset_version={"aten": 10, "mine": 1}), "needs the operators of 'mine'"),
        (lambda d: d["graph_module"]["graph"].update(custom_obj_values={"x": {}}), "holds custom objects"),
        (lambda d: _specs(d, "input").pop(), "another number of inputs"),
        (lambda d: _specs(d, "input").reverse(), "disagree about input"),
        (lambda d: _specs(d, "input").__setitem__(0, {"custom_obj": {}}), "takes a 'custom_obj', which is no tensor"),
        (lambda d: _specs(d, "input")[0]["parameter"].update(parameter_name="x"), "needs tensor 'x', which is not in"),
        (
            lambda d: _specs(d, "output").append({"buffer_mutation": {"arg": {"name": "x"}, "buffer_name": "y"}}),
            "it changes its own state",
        ),
        (lambda d: _specs(d, "output").clear(), "disagree about the outputs"),
        (lambda d: _last(d).update(outputs=[]), "gives nothing"),
        (lambda d: _last(d).update(inputs=[{"name": "x"}]), "an argument that is not served"),
        (lambda d: _last(d)["inputs"][0].update(kind=3), "has no name or is out of order"),
        (lambda d: _last(d).update(target=5), "names no operator"),
        (lambda d: d["graph_module"]["graph"]["nodes"].append(_last(d)), "gives the name 'linear_1' twice"),
        (lambda d: d["graph_module"]["graph"]["nodes"].pop(), "gives 'linear_1', which no step makes"),
        (lambda d: d["graph_module"]["graph"].update(nodes={}), "nodes that are no list"),
        (lambda d: d.update(graph_module=[]), "a graph module that is no object"),
    ],
)  # fmt: skip
def test_a_program_that_cannot_be_served_is_refused_in_words(change: Change, words: str) -> None:
    """The reason names the part and what would be right."""
    assert words in changed(change)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"archive/archive_format": b"zip"}, "not a .pt2 of version 0"),
        ({"archive/archive_version": b"7"}, "not a .pt2 of version 0"),
        ({"archive/byteorder": b"big"}, "big-endian"),
        ({"archive/models/model.json": b"[]"}, "a program that is no object"),
        ({"archive/data/weights/weight_99": b"1234"}, "belongs to no tensor"),
        ({"archive/extra/perch.output": b"guesses"}, "perch.output is 'guesses'"),
        ({"archive/extra/perch.output": b"\xff"}, "is not UTF-8"),
        ({"archive/readme": b"x"}, "is not one that torch.export.save writes"),
        ({"other/readme": b"x"}, "is not one that torch.export.save writes"),
        ({"archive/data/weights/weight_0": b""}, "needs 48 bytes and its storage has 0"),
    ],
)
def test_an_archive_with_another_member_is_refused_in_words(changes: dict[str, bytes], words: str) -> None:
    """Whatever is in it has to have a meaning."""
    assert words in refusal(zipped(members(program()) | changes))


def test_a_missing_member_is_refused_in_words() -> None:
    """Only what nobody reads may be missing."""
    good = members(program())
    for name in good:
        rest = zipped({other: data for other, data in good.items() if other != name})
        if any(word in name for word in ("byteorder", ".data", "sample_inputs", "extra", ".format", ".storage")):
            inspect("model.pt2", rest)
        else:
            assert "archive" in refusal(rest)


leaves = st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=5)
junk = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


@given(st.data())
def test_no_json_leads_to_another_error(data: st.DataObject) -> None:
    """Whatever stands somewhere in the program: a model or a refusal."""
    member = data.draw(st.sampled_from([MODEL, WEIGHTS + "model_weights_config.json"]))

    def change(document: dict[str, Any]) -> None:
        place: Any = document
        for _ in range(data.draw(st.integers(1, 9))):
            key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], dict | list) or not place[key]:
                break
            place, key = place[key], key  # noqa: PLW0127 - the way down
            if data.draw(st.booleans()):
                break
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        if keys:
            place[data.draw(st.sampled_from(keys))] = data.draw(junk)

    with suppress(ArtifactRefused):
        inspect("model.pt2", reprogrammed(change, member))


def test_honest_expressions_and_guards_are_taken() -> None:
    """Products of sizes and comparisons of them, as exports of two inputs have them."""

    def change(document: dict[str, Any]) -> None:
        document["guards_code"] = ["L['x'].size()[0] == L['y'].size()[0]", "(L['x'].size()[0] % 2) != 0"]
        value = next(iter(document["graph_module"]["graph"]["tensor_values"].values()))
        value["sizes"] = [{"as_expr": {"expr_str": "Mul(Integer(2), Symbol('s23', positive=True, integer=True))"}}]

    inspect("model.pt2", reprogrammed(change))


def test_outputs_are_named_as_the_module_names_them() -> None:
    """A dict has keys; all else is counted."""

    def change(spec: Any) -> Change:
        def apply(document: dict[str, Any]) -> None:
            document["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps([1, spec])

        return apply

    for spec, name in (
        ({"type": "builtins.dict", "context": '["scores"]'}, "scores"),
        ({"type": "builtins.dict", "context": '["a", "b"]'}, "output"),
        ({"type": "builtins.dict", "context": "[7]"}, "output"),
        ({"type": "os.system", "context": "["}, "output"),
        (None, "output"),
    ):
        assert read_program(reprogrammed(change(spec))).signature.outputs[0].name == name
