"""Estimators of every class that is served, fitted: what tests of skops files are about.

Rows have four features, none negative, as naive Bayes wants them, and three classes; `frame` has columns of numbers and
of texts, with gaps.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped, unused-ignore]  # without stubs
import skops.io
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectFromModel, SelectKBest, SelectPercentile, VarianceThreshold
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import (
    ARDRegression,
    BayesianRidge,
    ElasticNet,
    ElasticNetCV,
    GammaRegressor,
    HuberRegressor,
    Lars,
    Lasso,
    LassoCV,
    LassoLars,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    RidgeCV,
    SGDClassifier,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC, NuSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

ROWS, FEATURES = 80, 4


def _members() -> list[tuple[str, Any]]:
    return [("a", LogisticRegression()), ("b", make_pipeline(StandardScaler(), SVC(kernel="poly")))]


CLASSIFIERS: list[BaseEstimator] = [
    LogisticRegression(),
    LogisticRegressionCV(Cs=2, cv=2, use_legacy_attributes=False, l1_ratios=(0,), scoring="accuracy"),
    LinearDiscriminantAnalysis(),
    QuadraticDiscriminantAnalysis(reg_param=0.1),
    GaussianNB(),
    BernoulliNB(),
    ComplementNB(),
    MultinomialNB(),
    MLPClassifier((5,), max_iter=20, random_state=0),
    DecisionTreeClassifier(max_depth=4),
    ExtraTreeClassifier(max_depth=4),
    RandomForestClassifier(n_estimators=7, max_depth=4),
    ExtraTreesClassifier(n_estimators=7),
    Perceptron(),
    RidgeClassifier(),
    RidgeClassifierCV(),
    SGDClassifier(),
    SGDClassifier(loss="log_loss"),
    LinearSVC(),
    DummyClassifier(),
    SVC(),
    SVC(kernel="linear", probability=True, random_state=0),
    SVC(kernel="sigmoid", decision_function_shape="ovo"),
    SVC(break_ties=True),
    NuSVC(nu=0.1, kernel="poly"),
    KNeighborsClassifier(),
    KNeighborsClassifier(algorithm="brute"),
    KNeighborsClassifier(algorithm="ball_tree", weights="distance", p=3),
    KNeighborsClassifier(metric="cosine"),
    GradientBoostingClassifier(n_estimators=3),
    GradientBoostingClassifier(n_estimators=3, init="zero"),
    HistGradientBoostingClassifier(max_iter=3),
    CalibratedClassifierCV(LinearSVC(), cv=2),
    CalibratedClassifierCV(RandomForestClassifier(3), method="isotonic", cv=2),
    VotingClassifier(_members()),
    VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft", weights=[1, 2]),
    StackingClassifier(_members(), cv=2),
    StackingClassifier(_members(), final_estimator=RidgeClassifier(), cv=2, passthrough=True),
    BaggingClassifier(n_estimators=3),
    BaggingClassifier(KNeighborsClassifier(), n_estimators=3, max_features=0.5),
    AdaBoostClassifier(n_estimators=3),
    GridSearchCV(make_pipeline(StandardScaler(), SVC()), {"svc__C": [1, 2]}, cv=2),
]
REGRESSORS: list[BaseEstimator] = [
    LinearRegression(),
    Ridge(),
    RidgeCV(),
    Lasso(alpha=0.01),
    LassoCV(cv=2),
    Lars(),
    LassoLars(alpha=0.01),
    ElasticNet(alpha=0.01),
    ElasticNetCV(cv=2),
    ARDRegression(),
    BayesianRidge(),
    HuberRegressor(),
    QuantileRegressor(),
    GammaRegressor(),
    PoissonRegressor(),
    TweedieRegressor(power=1.5),
    SGDRegressor(),
    LinearSVR(),
    SVR(),
    NuSVR(),
    MLPRegressor(hidden_layer_sizes=(5,), max_iter=20),
    DecisionTreeRegressor(),
    ExtraTreeRegressor(max_depth=3),
    RandomForestRegressor(n_estimators=5),
    ExtraTreesRegressor(n_estimators=5),
    DummyRegressor(),
    KNeighborsRegressor(),
    KNeighborsRegressor(weights="distance", algorithm="brute"),
    GradientBoostingRegressor(n_estimators=3),
    GradientBoostingRegressor(n_estimators=3, loss="huber"),
    HistGradientBoostingRegressor(max_iter=3),
    HistGradientBoostingRegressor(max_iter=3, loss="poisson"),
    HistGradientBoostingRegressor(max_iter=3, loss="quantile", quantile=0.4),
    VotingRegressor([("a", Ridge()), ("b", SVR())]),
    StackingRegressor([("a", Ridge()), ("b", SVR())], cv=2),
    BaggingRegressor(n_estimators=3),
    AdaBoostRegressor(n_estimators=3),
    make_pipeline(StandardScaler(), Ridge()),
]
OF_SEVERAL: list[BaseEstimator] = [MultiOutputRegressor(Ridge()), LinearRegression()]
"""Regressors that are trained on two numbers a row."""

PIPELINES: list[Pipeline] = [
    make_pipeline(StandardScaler(), PCA(2), LogisticRegression()),
    make_pipeline(MinMaxScaler(), MaxAbsScaler(), RobustScaler(), Normalizer(), RandomForestClassifier(n_estimators=3)),
    make_pipeline(IncrementalPCA(2), SVC()),
    make_pipeline(TruncatedSVD(2), SVC()),
    make_pipeline(SelectFromModel(LogisticRegression()), SVC()),
    make_pipeline(SelectKBest(k=2), KNeighborsClassifier()),
    make_pipeline(SelectPercentile(percentile=50), SVC()),
    make_pipeline(VarianceThreshold(), SVC()),
    make_pipeline(Binarizer(threshold=1), SVC()),
    make_pipeline(PowerTransformer(), SVC()),
    make_pipeline(QuantileTransformer(n_quantiles=10), SVC()),
    make_pipeline(KBinsDiscretizer(quantile_method="averaged_inverted_cdf"), LogisticRegression()),
    make_pipeline(
        KBinsDiscretizer(encode="ordinal", quantile_method="averaged_inverted_cdf"), DecisionTreeClassifier()
    ),
    make_pipeline(FunctionTransformer(), LogisticRegression()),
    make_pipeline(PolynomialFeatures(3), LogisticRegression()),
    make_pipeline(PolynomialFeatures((2, 3), interaction_only=True, include_bias=False), SVC()),
    make_pipeline(FeatureUnion([("a", StandardScaler()), ("b", PCA(2))]), SVC()),
    make_pipeline(ColumnTransformer([("a", StandardScaler(), [0, 1]), ("b", "passthrough", slice(2, 3))]), SVC()),
    make_pipeline(ColumnTransformer([("a", StandardScaler(), [0, -1])], remainder="passthrough"), SVC()),
    make_pipeline(
        ColumnTransformer(
            [("a", StandardScaler(), [True, False, True, False]), ("z", MinMaxScaler(), [])], remainder=MinMaxScaler()
        ),
        HistGradientBoostingClassifier(max_iter=3),
    ),
    make_pipeline(make_pipeline(StandardScaler(), MinMaxScaler()), LogisticRegression()),
    Pipeline([("a", StandardScaler()), ("b", "passthrough"), ("c", LogisticRegression())]),
    make_pipeline(FunctionTransformer(), TfidfTransformer(), MultinomialNB()),
]
WHOLE_NUMBERS: list[BaseEstimator] = [
    CategoricalNB(),
    make_pipeline(OneHotEncoder(handle_unknown="ignore"), PolynomialFeatures(2), LogisticRegression()),
    make_pipeline(OneHotEncoder(drop="first"), LogisticRegression()),
    make_pipeline(OneHotEncoder(drop="if_binary", max_categories=2), RandomForestClassifier(3)),
    make_pipeline(
        OneHotEncoder(max_categories=2, handle_unknown="infrequent_if_exist"),
        GradientBoostingClassifier(n_estimators=3),
    ),
    make_pipeline(
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        HistGradientBoostingClassifier(max_iter=3),
    ),
    make_pipeline(OrdinalEncoder(min_frequency=20), SVC()),
    make_pipeline(TargetEncoder(cv=2, random_state=0), LogisticRegression()),
]
"""Whose columns are categories: 0 to 3."""

GAPPED: list[BaseEstimator] = [
    make_pipeline(SimpleImputer(), LogisticRegression()),
    make_pipeline(SimpleImputer(strategy="median", add_indicator=True), SVC()),
    make_pipeline(KNNImputer(), SVC()),
    make_pipeline(StandardScaler(), KNNImputer(weights="distance"), SVC()),
    DecisionTreeClassifier(),
    RandomForestClassifier(5, random_state=0),
    ExtraTreesClassifier(5, random_state=0),
    HistGradientBoostingClassifier(max_iter=3),
    make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=3)),
    VotingClassifier(
        [("a", RandomForestClassifier(3)), ("b", make_pipeline(SimpleImputer(), LogisticRegression()))], voting="soft"
    ),
]
"""Trained on rows with gaps, and asked such."""


def _numbers() -> Pipeline:
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler())


def _texts(**options: Any) -> Pipeline:
    return make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore", **options))


def _mixed(**options: Any) -> ColumnTransformer:
    return ColumnTransformer([("n", _numbers(), ["age", "income"]), ("t", _texts(), ["town", "plan"])], **options)


def _lone(part: Any, columns: list[str], **options: Any) -> ColumnTransformer:
    return ColumnTransformer([("one", part, columns)], **options)


FRAMED: Mapping[str, BaseEstimator] = {
    "the usual": make_pipeline(_mixed(), LogisticRegression()),
    "boosted": make_pipeline(_mixed(sparse_threshold=0), HistGradientBoostingClassifier(max_iter=3)),
    "categories that are refused": make_pipeline(
        ColumnTransformer([("n", "passthrough", ["age"]), ("c", OneHotEncoder(), ["plan", "vip"])]),
        RandomForestClassifier(5),
    ),
    "by their types": make_pipeline(
        ColumnTransformer(
            [("n", _numbers(), make_column_selector(dtype_include="number")), ("t", _texts(), ["town", "plan"])]
        ),
        LogisticRegression(),
    ),
    "words": make_pipeline(
        ColumnTransformer(
            [("w", TfidfVectorizer(ngram_range=(1, 2), max_features=9), "note"), ("n", _numbers(), ["age"])]
        ),
        LogisticRegression(),
    ),
    "counts of letters": make_pipeline(
        ColumnTransformer([("w", CountVectorizer(analyzer="char_wb", ngram_range=(2, 2)), "note")]), MultinomialNB()
    ),
    "ordinals": make_pipeline(
        _lone(OrdinalEncoder(), ["town", "plan"], remainder="drop"), HistGradientBoostingClassifier(max_iter=3)
    ),
    "targets": make_pipeline(
        ColumnTransformer([("t", TargetEncoder(cv=2), ["town", "plan"]), ("n", _numbers(), ["age"])]),
        GradientBoostingClassifier(n_estimators=3),
    ),
    "frames all the way": make_pipeline(
        ColumnTransformer(
            [("n", _numbers(), ["age", "income"]), ("c", OneHotEncoder(sparse_output=False), ["plan"])],
            verbose_feature_names_out=False,
        ).set_output(transform="pandas"),
        _lone(MinMaxScaler(), ["age"], remainder="passthrough"),
        SVC(),
    ),
    "a vote": VotingClassifier(
        [
            ("a", make_pipeline(_mixed(), LogisticRegression())),
            ("b", make_pipeline(_lone(OneHotEncoder(), ["plan"]), LogisticRegression())),
        ],
        voting="soft",
    ),
    "a stack": StackingClassifier(
        [
            ("a", make_pipeline(_mixed(), LogisticRegression())),
            ("b", make_pipeline(_lone(OneHotEncoder(), ["plan"]), LogisticRegression())),
        ],
        cv=2,
    ),
    "calibrated": CalibratedClassifierCV(make_pipeline(_mixed(), RandomForestClassifier(3)), cv=2),
    "a search": GridSearchCV(make_pipeline(_mixed(), LogisticRegression()), {"logisticregression__C": [1, 2]}, cv=2),
    "a gap is a category": make_pipeline(
        ColumnTransformer(
            [
                (
                    "c",
                    make_pipeline(
                        SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder(sparse_output=False)
                    ),
                    ["town"],
                ),
                ("n", KNNImputer(), ["income", "age"]),
            ]
        ),
        SVC(),
    ),
    "a gap among categories": make_pipeline(_lone(OneHotEncoder(), ["town"]), LogisticRegression()),
    "numbers from texts": make_pipeline(
        ColumnTransformer([("n", _numbers(), slice("age", "income")), ("t", OneHotEncoder(drop="first"), ["plan"])]),
        Ridge(),
    ),
    "a union": make_pipeline(
        FeatureUnion([("a", _lone(_texts(), ["town"])), ("b", _lone(_numbers(), ["age"]))]), LogisticRegression()
    ),
}
"""Pipelines over a frame of named columns."""


def samples() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Rows of three classes."""
    random = np.random.default_rng(3)
    rows = random.uniform(0, 4, size=(ROWS, FEATURES))
    return rows, np.digitize(rows[:, 0] + rows[:, 1], [3, 5]).astype(np.int64)


def gapped() -> NDArray[np.float64]:
    """The same rows, with gaps."""
    rows = samples()[0].copy()
    rows[np.random.default_rng(4).random(rows.shape) < 0.15] = np.nan
    return rows


@cache
def frame() -> pd.DataFrame:
    """Columns of numbers, texts and truths; some of each are missing."""
    random = np.random.default_rng(5)
    found = pd.DataFrame(
        {
            "age": random.integers(18, 90, ROWS),
            "income": random.normal(3e4, 1e4, ROWS),
            "town": random.choice(["Bern", "Chur", "Zug"], ROWS),
            "plan": random.choice(["a", "b"], ROWS),
            "vip": random.random(ROWS) < 0.5,
            "note": random.choice(["good bad ugly", "very good", "so bad it is"], ROWS),
            "unused": "x",
        }
    )
    found.loc[3:8, "income"] = np.nan
    found.loc[10:12, "town"] = np.nan
    return found


def fitted(estimator: Any, rows: Any = None, labels: Any = None) -> Any:
    """The estimator, trained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(samples()[0] if rows is None else rows, samples()[1] if labels is None else labels)


def saved(model: Any) -> bytes:
    """The bytes of a skops file."""
    data: bytes = skops.io.dumps(model)
    return data


def inputs_of(found: pd.DataFrame, signature: Any) -> dict[str, NDArray[Any]]:
    """The columns of a frame as a request brings them."""
    inputs = {}
    for tensor in signature.inputs:
        column = found[tensor.name]
        if tensor.datatype == "BYTES":
            array = np.array([None if pd.isna(one) else one for one in column], dtype=np.object_)
        else:
            array = column.to_numpy(dtype=np.float64)
        inputs[tensor.name] = array.reshape(-1, 1)
    return inputs
