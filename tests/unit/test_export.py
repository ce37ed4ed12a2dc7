"""Export: what comes out says the same as what went in, and is nothing but what Perch serves."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingRegressor, IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from torch import nn

from perch.artifacts import Signature, Tensor, inspect
from perch.artifacts.signature import Range, Ranges
from perch.domain.errors import Invalid, Refused
from perch.export import Exported, quantised, to_onnx
from perch.export import to_safetensors as write_safetensors
from perch.export.equivalence import Limits, compare
from perch.export.sample import Sample, make_sample, read_sample
from perch.export.torch_export import to_safetensors
from perch.export.torch_onnx import module_to_onnx
from perch.export.torch_programs import export_pt2
from tests.hostile.good import GOOD
from tests.unit.sklearn_models import FRAMED, fitted, frame, samples, saved

CHANCE = np.random.default_rng(7)
ROWS = CHANCE.normal(size=(120, 6))
CLASSES = (ROWS[:, 0] > 0).astype(int) + (ROWS[:, 1] > 1)
NUMBERS = ROWS @ np.arange(6.0) * 1000


@cache
def network() -> Exported:
    """A small trained-looking classifier with declared layers, exported from its safetensors file."""
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Linear(6, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4)
    )
    return to_onnx(module.eval(), output="logits")


# -- torch --------------------------------------------------------------------------------------------------------


def test_a_module_exports_with_a_batch_of_any_size_and_its_meaning() -> None:
    """What the author says of the numbers goes into the file; the traces of the exporter do not."""
    exported = network()
    assert exported.report.passed
    assert exported.report.rows == 256
    assert "seed 0" in exported.report.sample
    assert exported.inspected.signature.features == 6
    assert exported.inspected.details["output"] == "logits"
    assert b"stack_trace" not in exported.data
    assert str(Path(__file__).parent).encode() not in exported.data


def test_the_same_module_gives_the_same_bytes() -> None:
    """Or a version could not be told from its copy."""
    module = nn.Sequential(nn.Linear(3, 2)).eval()
    assert to_onnx(module).data == to_onnx(module).data


def test_a_safetensors_file_exports_by_its_declared_layers(tmp_path: Path) -> None:
    """The meaning that the file declares comes along, and so does the size of both files."""
    module = nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    file = tmp_path / "m.safetensors"
    file.write_bytes(to_safetensors(module, output="probabilities"))
    exported = to_onnx(file)
    assert exported.report.passed
    assert exported.inspected.details["output"] == "probabilities"
    assert exported.report.bytes_before == file.stat().st_size
    assert exported.report.bytes_after == len(exported.data)


def test_a_module_that_onnx_cannot_express_is_refused_with_the_cause() -> None:
    """Not with the exporter's page of text."""

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    signature = Signature(
        inputs=(Tensor(name="x", datatype="FP32", shape=(-1, 3)),),
        outputs=(Tensor(name="y", datatype="FP32", shape=None),),
    )
    with pytest.raises(Refused, match="torch cannot write this model as ONNX: ") as refused:
        module_to_onnx(Odd().eval(), make_sample(signature, rows=2, seed=0), signature)
    assert "\n" not in str(refused.value)


# -- scikit-learn -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression().fit(ROWS, CLASSES),
        LogisticRegression().fit(ROWS, np.array(["no", "maybe", "yes"])[CLASSES]),
        make_pipeline(StandardScaler(), SVC()).fit(ROWS, CLASSES),
        MLPClassifier((8,), max_iter=20).fit(ROWS, CLASSES),
        RandomForestClassifier(5, random_state=0).fit(ROWS, CLASSES),
        LinearRegression().fit(ROWS, NUMBERS),
        GradientBoostingRegressor(n_estimators=5).fit(ROWS, NUMBERS),
        KMeans(3, n_init=1, random_state=0).fit(ROWS),
        PCA(2).fit(ROWS),
        IsolationForest(n_estimators=5, random_state=0).fit(ROWS),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
@pytest.mark.filterwarnings("ignore")
def test_estimators_say_the_same_as_onnx(estimator: Any) -> None:
    """Classifiers with labels of numbers and texts, regressors, clusters, transformers, outliers."""
    report = to_onnx(estimator).report
    assert report.passed, report.reason
    assert not report.left_out
    assert report.bytes_before is None


def test_probabilities_are_a_matrix_and_no_map() -> None:
    """A sequence of dicts is the slowest answer that ONNX Runtime can give."""
    outputs = to_onnx(LogisticRegression().fit(ROWS, CLASSES)).inspected.signature.outputs
    assert [(tensor.name, tensor.datatype) for tensor in outputs] == [("label", "INT64"), ("probabilities", "FP32")]


@pytest.mark.parametrize("name", ["the usual", "categories that are refused", "a search"])
@pytest.mark.filterwarnings("ignore")
def test_a_pipeline_of_named_columns_exports_from_its_file_and_from_memory(tmp_path: Path, name: str) -> None:
    """By the names of its columns, with the only values that its encoders know; an empty text is a missing one."""
    model = fitted(FRAMED[name], frame(), samples()[1])
    file = tmp_path / "pipe.skops"
    file.write_bytes(saved(model))
    for source in (file, model):
        exported = to_onnx(source)
        assert exported.report.passed, exported.report.reason
        inputs = {tensor.name: tensor.datatype for tensor in exported.inspected.signature.inputs}
        assert (list(inputs), inputs["age"], inputs["plan"]) == (list(frame().columns), "FP32", "BYTES")
        ranges = exported.inspected.signature.ranges
        assert (ranges is not None) == (name == "categories that are refused")
        if ranges is not None:
            assert dict(ranges.rules)["plan"].values == ("a", "b")
            assert set(exported.sample.inputs["plan"].ravel()) == {"a", "b"}


def test_columns_of_texts_and_numbers_become_one_input_each() -> None:
    """What a ColumnTransformer encodes as text is sent as text."""
    rows = np.array([[1.0, "a"], [2.0, "b"], [3.0, "a"], [4.0, "b"]], dtype=object)
    parts = ColumnTransformer([("n", StandardScaler(), [0]), ("t", OneHotEncoder(handle_unknown="ignore"), [1])])
    exported = to_onnx(make_pipeline(parts, LogisticRegression()).fit(rows, [0, 1, 0, 1]))
    assert exported.report.passed
    assert [(t.name, t.datatype) for t in exported.inspected.signature.inputs] == [("x1", "FP32"), ("x2", "BYTES")]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (LogisticRegression(), "it is not fitted"),
        (3, "neither a file, nor a torch module, nor an estimator"),
        (nn.Sequential(nn.ReLU()), "nothing tells what the module takes"),
    ],
)
def test_what_is_no_trained_model_is_refused_in_words(model: Any, words: str) -> None:
    """Before any converter sees it."""
    with pytest.raises(Refused, match=words):
        to_onnx(model)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    """Neither here is it loaded to find out what it is."""
    file = tmp_path / "m.pkl"
    file.write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(Refused):
        to_onnx(file)


# -- the comparison -----------------------------------------------------------------------------------------------


class Fixed:
    """A model of fixed answers."""

    size = None

    def __init__(self, output: str | None = None, **outputs: Any) -> None:
        self.outputs = list(outputs)
        self.output = output
        self._given = list(outputs.values())

    def run(self, inputs: Any) -> list[Any]:
        rows = len(next(iter(inputs.values())))
        return [None if given is None else given[:rows] for given in self._given]


def judged(before: Any, after: Any, rows: int = 4, tolerance: float | None = 0.1, agree: float = 1.0) -> Any:
    sample = Sample(inputs={"x": np.zeros((rows, 1))}, origin="test")
    ticks = itertools.count()
    limits = Limits(tolerance=tolerance, min_agreement=agree)
    return compare(before, after, sample, what="test", limits=limits, clock=lambda: next(ticks))


def test_a_number_that_is_off_fails_and_is_counted() -> None:
    """One row of four, by a fifth."""
    report = judged(Fixed(y=np.ones((4, 1))), Fixed(y=np.array([[1], [1], [1.2], [1]])))
    assert not report.passed
    assert report.rows_off == 1
    assert report.outputs[0].max_abs == pytest.approx(0.2)
    assert report.outputs[0].mean_abs == pytest.approx(0.05)
    assert "1 of 4 rows are off by more than 0.1" in report.reason
    assert judged(Fixed(y=np.ones((4, 1))), Fixed(y=np.array([[1], [1], [1.2], [1]])), agree=0.75).passed


def test_large_numbers_are_compared_by_their_digits() -> None:
    """A prediction of a million need not be right to four decimals."""
    assert judged(Fixed(y=np.full((4, 1), 1e6)), Fixed(y=np.full((4, 1), 1e6 + 1)), tolerance=1e-5).passed


def test_labels_that_differ_fail_whatever_the_tolerance() -> None:
    """Half of the rows have another label."""
    labels = np.array(["a", "b", "a", "b"], dtype=object)
    report = judged(Fixed(label=labels), Fixed(label=np.array(["a", "a", "a", "a"], dtype=object)), tolerance=None)
    assert report.agreement == 0.5
    assert not report.passed


def test_probabilities_agree_by_their_highest_column() -> None:
    """As the predictor reads them."""
    before = Fixed(p=np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5], [0.2, 0.8]]))
    after = Fixed(p=np.array([[0.8, 0.2], [0.6, 0.4], [0.5, 0.5], [0.3, 0.7]]))
    report = judged(before, after, tolerance=None, agree=0.75)
    assert (report.agreement, report.agree_by, report.passed) == (0.75, "labels", True)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_nothing_that_is_no_number_passes_for_one(wrong: float) -> None:
    """Neither in one model alone nor with the other sign."""
    assert not judged(Fixed(y=np.ones((4, 1))), Fixed(y=np.full((4, 1), wrong))).passed


def test_models_without_a_common_output_fail() -> None:
    """Nothing compared is nothing proved."""
    report = judged(Fixed(a=np.ones((4, 1))), Fixed(b=np.ones((4, 1))))
    assert not report.passed
    assert report.left_out == ("a", "b")


@given(st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=8))
def test_a_model_always_agrees_with_itself(values: list[float]) -> None:
    """Whatever it answers."""
    answers = np.array(values)[:, None]
    report = judged(Fixed(y=answers), Fixed(y=answers.copy()), rows=len(values), tolerance=0.0)
    assert report.rows_off == 0
    assert report.passed


# -- quantisation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "share"), [("dynamic", 0.75), ("float16", 0.75)])
def test_a_network_is_made_smaller_and_reports_what_it_lost(how: str, share: float) -> None:
    """The file is served, its meaning stays, and rows are compared with the file before."""
    before = network()
    after = quantised(before, how, min_agreement=0.9)
    assert len(after.data) < share * len(before.data)
    assert after.report.passed, after.report.reason
    assert after.report.what == f"quantised ({how})"
    assert after.inspected.details["output"] == "logits"
    assert after.inspected.signature.inputs == before.inspected.signature.inputs


def test_a_quantised_model_that_agrees_too_little_fails() -> None:
    """Asked for more than all, nothing is enough."""
    report = quantised(network(), "dynamic", min_agreement=1.01).report
    assert not report.passed
    assert "asked for are 101.00% of the rows" in report.reason


@pytest.mark.parametrize("how", ["dynamic", "float16"])
def test_trees_have_nothing_to_quantise(how: str) -> None:
    """It is said, instead of writing the same file."""
    forest = to_onnx(RandomForestClassifier(3, random_state=0).fit(ROWS, CLASSES))
    with pytest.raises(Refused, match=r"nothing in this model can be quantised|no 16-bit form"):
        quantised(forest, how)


def test_an_unknown_method_is_refused_with_those_that_there_are() -> None:
    """As every option is."""
    with pytest.raises(Invalid, match="there are dynamic, float16"):
        quantised(network(), "int4")


# -- samples ------------------------------------------------------------------------------------------------------

MATRIX = Signature(inputs=(Tensor(name="x", datatype="FP32", shape=(-1, 2)),), outputs=())
COLUMNS = Signature(
    inputs=(
        Tensor(name="age", datatype="INT64", shape=(-1,)),
        Tensor(name="town", datatype="BYTES", shape=(-1, 1)),
    ),
    outputs=(),
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.csv", "1,2\n3,4\n"),
        ("s.csv", "a,b\n1,2\n3,4\n"),
        ("s.json", "[[1, 2], [3, 4]]"),
        ("s.json", '{"features": [[1, 2], [3, 4]]}'),
        ("s.json", '{"inputs": {"x": [[1, 2], [3, 4]]}}'),
        ("s.json", '[{"a": 1, "b": 2}, {"a": 3, "b": 4}]'),
    ],
)
def test_rows_are_read_from_what_people_have(tmp_path: Path, name: str, text: str) -> None:
    """A CSV with and without a heading, and the bodies of requests."""
    (tmp_path / name).write_text(text)
    sample = read_sample(tmp_path / name, MATRIX)
    assert sample.inputs["x"].tolist() == [[1, 2], [3, 4]]
    assert sample.inputs["x"].dtype == np.float32
    assert sample.origin == name


def test_arrays_are_read_without_unpickling(tmp_path: Path) -> None:
    """`*.npy` and `*.npz` of numbers; an array of objects is refused."""
    np.save(tmp_path / "s.npy", np.ones((3, 2)))
    np.savez(tmp_path / "s.npz", x=np.ones((3, 2)))
    np.save(tmp_path / "o.npy", np.array([[object()]]), allow_pickle=True)
    assert read_sample(tmp_path / "s.npy", MATRIX).rows == 3
    assert read_sample(tmp_path / "s.npz", MATRIX).rows == 3
    with pytest.raises(Invalid, match=r"o\.npy cannot be read"):
        read_sample(tmp_path / "o.npy", MATRIX)


def test_columns_are_read_by_their_names(tmp_path: Path) -> None:
    """Of a CSV heading and of records; each of its type and shape."""
    (tmp_path / "s.csv").write_text("town,age\nBern,4\nChur,5\n")
    (tmp_path / "s.json").write_text('{"records": [{"age": 4, "town": "Bern"}, {"age": 5, "town": "Chur"}]}')
    for name in ("s.csv", "s.json"):
        inputs = read_sample(tmp_path / name, COLUMNS).inputs
        assert inputs["age"].tolist() == [4, 5]
        assert inputs["town"].tolist() == [["Bern"], ["Chur"]]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("s.txt", "1", "sample rows come from"),
        ("s.csv", "", "cannot be read: it is empty"),
        ("s.csv", "1,2\n3\n", "cannot be read"),
        ("s.csv", "1,2,3\n", "takes any by 2"),
        ("s.csv", "a,b\nx,y\n", "takes FP32"),
        ("s.csv", "1,2\n3,nan\n", "row 1 of input 'x' holds NaN"),
        ("s.json", "[[1e999, 2]]", "row 0 of input 'x' holds NaN or infinity"),
        ("s.json", "{", "cannot be read"),
        ("s.json", "[]", "takes any by 2"),
        ("s.json", "[" * 100_000, "cannot be read"),
        ("s.npy", "nonsense", "cannot be read"),
    ],
)
def test_rows_that_do_not_fit_are_refused_in_words(tmp_path: Path, name: str, text: str, words: str) -> None:
    """The file's name, and what would fit."""
    (tmp_path / name).write_text(text)
    with pytest.raises(Invalid, match=words):
        read_sample(tmp_path / name, MATRIX)


def test_made_up_rows_keep_to_the_declared_ranges() -> None:
    """And the same seed gives the same rows."""
    ranges = Ranges(features=("a", "b"), rules=(("a", Range(min=0.0)), ("2", Range(values=(1.0, 2.0)))))
    signature = Signature(inputs=MATRIX.inputs, outputs=(), ranges=ranges)
    one, two = (make_sample(signature, rows=50, seed=5).inputs["x"] for _ in range(2))
    assert (one == two).all()
    assert (one[:, 0] >= 0).all()
    assert set(one[:, 1].tolist()) <= {1.0, 2.0}


def test_an_onnx_file_is_cleaned_and_its_ranges_stay(tmp_path: Path) -> None:
    """Exporting what is ONNX already only takes out what a server does not need."""
    node = helper.make_node("Relu", ["x"], ["y"], doc_string="/home/somebody/train.py line 3")
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", "y")]
    proto = helper.make_model(
        helper.make_graph([node], "g", tensors[:1], tensors[1:]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    proto.metadata_props.add(key="perch.ranges", value='{"inputs":{"1":{"min":0}}}')
    proto.metadata_props.add(key="team", value="blue")
    file = tmp_path / "m.onnx"
    file.write_bytes(proto.SerializeToString())
    exported = to_onnx(file, output="values")
    assert b"somebody" not in exported.data
    assert exported.report.passed
    assert exported.inspected.signature.ranges is not None
    kept = {entry.key: entry.value for entry in onnx.load_model_from_string(exported.data).metadata_props}
    assert kept["team"] == "blue"
    assert kept["perch.output"] == "values"


# -- files of other formats ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GOOD)
def test_every_format_that_is_served_exports(tmp_path: Path, kind: str) -> None:
    """Programs, state dicts, scripts, trees and estimators; what can run code only if it is trusted."""
    name, build = GOOD[kind]
    file = tmp_path / name
    file.write_bytes(build())
    if kind in ("torchscript", "joblib"):
        with pytest.raises(Refused, match=r"is not opened: .*say --trust; whatever is in it then runs as you"):
            to_onnx(file)
    report = to_onnx(file, trust=True).report
    assert report.passed, report.reason
    assert not report.left_out
    assert report.bytes_before == file.stat().st_size


def test_trees_are_compared_on_their_thresholds(tmp_path: Path) -> None:
    """Where a conversion goes wrong, and with the library that grew them."""
    name, build = GOOD["lightgbm"]
    (tmp_path / name).write_bytes(build())
    exported = to_onnx(tmp_path / name, rows=500)
    assert "on and beside the trees' thresholds" in exported.report.sample
    assert np.isnan(exported.sample.inputs["features"]).any()
    assert exported.report.agreement == 1.0
    assert "not installed" not in exported.report.what


def test_a_program_with_a_batch_and_an_embedding_exports(tmp_path: Path) -> None:
    """Whole numbers in, several operators of attention inside."""

    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 8)
            self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.block(self.table(tokens)).mean(1))

    file = tmp_path / "text.pt2"
    export_pt2(Text(), file, torch.zeros(2, 5, dtype=torch.long), output="logits")
    exported = to_onnx(file, rows=7)
    assert exported.report.passed, exported.report.reason
    assert exported.inspected.signature.inputs[0].shape == (-1, 5)
    assert exported.inspected.details["output"] == "logits"


def test_declared_layers_move_between_their_formats(tmp_path: Path) -> None:
    """A state dict becomes a safetensors file, which smaller runtimes load; a program does not say its layers."""
    for name, build in (GOOD["state_dict"], GOOD["pt2"]):
        (tmp_path / name).write_bytes(build())
    found = inspect("model.safetensors", write_safetensors(tmp_path / "model.pt", output="logits"))
    assert found.details["output"] == "logits"
    assert "numpy" in found.runtimes
    with pytest.raises(Refused, match="does not declare its layers"):
        write_safetensors(tmp_path / "model.pt2")
