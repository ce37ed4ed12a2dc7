"""How answers are read out of what models give: the rule, case by case, and with scikit-learn's own exports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC

from perch.predictor.answer import Answer, learn_reading, softmax
from perch.predictor.errors import UnusableAnswer
from perch.predictor.runtimes import loader_of, zero_row

ROWS = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
CLASSES = ROWS.argmax(axis=1)


def floats(*rows: Any) -> Any:
    """A float32 array."""
    return np.array(rows, dtype=np.float32)


def exported(estimator: BaseEstimator, target: Any, **options: Any) -> tuple[Any, Answer]:
    """A fitted estimator, and what the predictor answers with its export."""
    fitted = estimator.fit(ROWS, target)
    model = loader_of("onnx", "onnx")(to_onnx(fitted, ROWS[:1], options=options or None).SerializeToString())
    reading = learn_reading(model.run(zero_row(model)), model.output)
    return fitted, reading.read(model.run(ROWS), len(ROWS))


def test_probabilities_are_published_as_they_are() -> None:
    """Rows that are not negative and sum to 1."""
    one = [floats([0.2, 0.8])]
    answer = learn_reading(one, None).read([floats([0.2, 0.8], [0.9, 0.1])], 2)
    assert answer.predictions.tolist() == [1, 0]
    assert np.array_equal(answer.probabilities, floats([0.2, 0.8], [0.9, 0.1]))


def test_other_scores_are_taken_for_logits() -> None:
    """And normalised with softmax, without overflow."""
    answer = learn_reading([floats([0, 0])], None).read([floats([1000, 0], [0, 1])], 2)
    assert answer.predictions.tolist() == [0, 1]
    assert np.allclose(answer.probabilities, [[1, 0], [0.26894143, 0.7310586]])
    assert np.allclose(softmax(floats([1, 2, 3])).sum(), 1)


def test_the_declaration_goes_before_the_look_of_the_numbers() -> None:
    """`perch.output` decides."""
    one = [floats([0.5, 0.5])]
    assert learn_reading(one, "logits").meaning == "logits"
    values = learn_reading(one, "values").read([floats([0.1, 0.9])], 1)
    assert values.probabilities is None
    assert values.predictions.tolist() == floats([0.1, 0.9]).tolist()
    with pytest.raises(UnusableAnswer, match="it can be probabilities, logits, values"):
        learn_reading(one, "magic")


def test_one_column_is_a_regression() -> None:
    """As a column or flat."""
    for one, many in ((floats([3.5]), floats([1], [2])), (floats(3.5), floats(1, 2))):
        answer = learn_reading([one], None).read([many], 2)
        assert answer.predictions.tolist() == [1, 2]
        assert answer.probabilities is None


def test_outputs_that_hold_no_answer_are_not_guessed_at() -> None:
    """A cube of numbers, nothing at all."""
    for outputs in ([np.zeros((1, 2, 2), dtype=np.float32)], [], [np.zeros((1, 0), dtype=np.float32)]):
        with pytest.raises(UnusableAnswer, match=r"declare perch\.output"):
            learn_reading(outputs, None)


def test_an_answer_has_one_finite_row_for_each_row_asked() -> None:
    """Whatever else is given is no answer."""
    scores = learn_reading([floats([0, 0])], None)
    with pytest.raises(UnusableAnswer, match="the model gave 1 answers for 2 rows"):
        scores.read([floats([0, 0])], 2)
    with pytest.raises(UnusableAnswer, match="NaN or infinity for row 2"):
        scores.read([floats([0, 0], [0, np.inf])], 2)


@pytest.mark.parametrize("options", [{}, {"zipmap": False}])
@pytest.mark.parametrize("names", [None, np.array(["ant", "bee", "cat"])])
def test_scikit_learn_classifiers_answer_as_in_python(options: dict[str, Any], names: Any) -> None:
    """With and without ZipMap, with numbers and with names for classes."""
    target = CLASSES if names is None else names[CLASSES]
    for estimator in (LogisticRegression(), RandomForestClassifier(5, random_state=0)):
        fitted, answer = exported(estimator, target, **options)
        assert list(answer.predictions) == fitted.predict(ROWS).tolist()
        assert answer.probabilities is not None
        assert np.allclose(answer.probabilities, fitted.predict_proba(ROWS), atol=1e-5)


def test_margins_and_distances_beside_labels_are_not_sold_as_probabilities() -> None:
    """A support vector machine and a clustering."""
    for estimator in (LinearSVC(), KMeans(3, n_init=1, random_state=0)):
        fitted, answer = exported(estimator, CLASSES)
        assert list(answer.predictions) == fitted.predict(ROWS).tolist()
        assert answer.probabilities is None


def test_scikit_learn_regressions_answer_with_numbers() -> None:
    """One number a row."""
    fitted, answer = exported(LinearRegression(), ROWS @ [1, 2, 3])
    assert np.allclose(answer.predictions, fitted.predict(ROWS), atol=1e-4)
