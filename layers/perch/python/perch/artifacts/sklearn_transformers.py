"""What makes numbers of rows before an estimator sees them: encoders, words, powers, what fills gaps.

Encoders and vectorizers write into SciPy's sparse matrices, whose code trusts the number of a column: categories have
to ascend, those that are dropped or rare have to exist, and the numbers of words have to be 0, 1, 2, … each once. What
calls a function of the file's own, or a pattern that may take for ever, is refused.

Each function looks at one estimator, of so many features, and raises `ArtifactRefused`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import ArtifactRefused
from .sklearn_made import MAX_CLASSES, Made, is_array, is_list, says
from .trees import MAX_FEATURES

MAX_DEGREE, MAX_WORDS = 10, 10
"""Of a polynomial; in an n-gram."""

_TOKENS = (r"(?u)\b\w\w+\b", r"(?u)\b\w+\b", r"\b\w+\b", r"\b\w\w+\b", r"\w+", r"\w{1,}", r"\w{2,}", r"\S+")
"""Patterns of words that take time in proportion to the text; another might take for ever."""

_UNKNOWN = ("error", "ignore", "infrequent_if_exist", "warn", "use_encoded_value")


def check_encoder(model: Made, features: int) -> None:
    """Categories become columns by their numbers; those that are dropped or rare are such numbers too."""
    categories = model.attributes.get("categories_")
    if not isinstance(categories, list) or len(categories) != features:
        raise ArtifactRefused(f"the {model.short} has no list of categories for each of its {features} columns")
    for one in categories:
        _check_categories(model, one)
    if sum(map(len, categories)) > MAX_FEATURES:
        raise ArtifactRefused(f"the {model.short} has more than {MAX_FEATURES:,} categories")
    if not says(model.attributes.get("handle_unknown", "error"), *_UNKNOWN):
        raise ArtifactRefused(f"the {model.short} does what nobody knows with a category that it does not know")
    _check_type(model)
    grouped = _check_infrequent(model, [len(one) for one in categories])
    dropped = model.attributes.get("_drop_idx_after_grouping")
    if dropped is None:
        return
    if not is_list(dropped) or len(dropped) != features:
        raise ArtifactRefused(f"the {model.short} drops other than one category a column")
    for place, size in zip(dropped.tolist(), grouped, strict=True):
        if place is not None and not (type(place) is int and 0 <= place < size):
            raise ArtifactRefused(f"the {model.short} drops a category that is none")


def check_target_encoder(model: Made, features: int) -> None:
    """Its answer is memory that nothing has written to, until each encoding fills a column."""
    check_encoder(model, features)
    found, classes = model.attributes.get("encodings_"), model.attributes.get("classes_")
    several = says(model.attributes.get("target_type_"), "multiclass")
    if several and not (is_list(classes) and 1 <= len(classes) <= MAX_CLASSES):
        raise ArtifactRefused(f"the {model.short} has no list of 1 to {MAX_CLASSES} classes")
    wanted = features * (len(classes) if several and classes is not None else 1)
    if not isinstance(found, list) or len(found) != wanted or not all(map(is_list, found)):
        raise ArtifactRefused(f"the {model.short} has other than {wanted} lists of numbers for its categories")


def _check_categories(model: Made, known: Any) -> None:
    """Of numbers native code trusts that they ascend; of anything else Python makes a dict."""
    if not is_list(known) or not len(known) or known.dtype.kind not in "OUifub":
        raise ArtifactRefused(f"the {model.short} has categories that are no list of numbers or texts")
    if known.dtype.kind == "O":
        said = [one for one in known if one is not None and one == one]  # noqa: PLR0124 - NaN is a gap
        if not (all(isinstance(one, str) for one in said) or all(isinstance(one, int | float) for one in said)):
            raise ArtifactRefused(f"the {model.short} has categories of a column that are neither numbers nor texts")
    elif known.dtype.kind != "U":
        numbers = known[:-1] if known.dtype.kind == "f" and np.isnan(known[-1]) else known
        if not np.isfinite(numbers).all() or not (numbers[1:] > numbers[:-1]).all():
            raise ArtifactRefused(f"the {model.short} has numbers as categories that do not ascend")


def _check_infrequent(model: Made, sizes: Sequence[int]) -> list[int]:
    """How many categories are left of each column when rare ones are one."""
    enabled = model.attributes.get("_infrequent_enabled", False)
    if enabled is False:
        return list(sizes)
    rare, maps = model.attributes.get("_infrequent_indices"), model.attributes.get("_default_to_infrequent_mappings")
    if enabled is not True or not isinstance(rare, list) or not isinstance(maps, list):
        raise ArtifactRefused(f"the {model.short} does not say which categories are rare")
    if not len(rare) == len(maps) == len(sizes):
        raise ArtifactRefused(f"the {model.short} does not say of each column which categories are rare")
    found = []
    for size, few, mapping in zip(sizes, rare, maps, strict=True):
        if few is None and mapping is None:
            found.append(size)
            continue
        if not is_list(few) or few.dtype.kind != "i" or not 1 <= len(few) <= size:
            raise ArtifactRefused(f"the {model.short} has rare categories that are none")
        left = size - len(few) + 1
        if not ((few >= 0) & (few < size)).all() or not (few[1:] > few[:-1]).all():
            raise ArtifactRefused(f"the {model.short} has rare categories that are none")
        if not is_array(mapping, np.int64, (size,)) or not ((mapping >= 0) & (mapping < left)).all():
            raise ArtifactRefused(f"the {model.short} makes categories of rare ones that are none")
        found.append(left)
    return found


def check_words(model: Made, _: int) -> None:
    """Every word has a column, and every column a word."""
    _check_tokens(model)
    said = model.attributes
    grams, stop, known = said.get("ngram_range"), said.get("stop_words"), said.get("vocabulary_")
    sizes = grams if isinstance(grams, tuple) and len(grams) == 2 else (0,)
    if not all(type(one) is int and 1 <= one <= MAX_WORDS for one in sizes):
        raise ArtifactRefused(f"the {model.short} puts together other than 1 to {MAX_WORDS} words")
    if not (says(stop, None, "english") or (isinstance(stop, list) and all(isinstance(one, str) for one in stop))):
        raise ArtifactRefused(f"the {model.short} leaves out words that are no list of texts")
    if not isinstance(known, dict) or not 1 <= len(known) <= MAX_FEATURES:
        raise ArtifactRefused(f"the {model.short} is not fitted, or knows more than {MAX_FEATURES:,} words")
    places = list(known.values())
    if any(not isinstance(one, int | np.integer) for one in places) or sorted(map(int, places)) != [*range(len(known))]:
        raise ArtifactRefused(f"the {model.short} has words whose numbers are not 0, 1, 2, …, each once")
    weigher = said.get("_tfidf")
    if model.short == "TfidfVectorizer" and not (isinstance(weigher, Made) and weigher.short == "TfidfTransformer"):
        raise ArtifactRefused(f"the {model.short} has nothing to weigh words by")


def _check_tokens(model: Made) -> None:
    """How it takes a text apart: in one of a few ways, and by no function of its own."""
    said = model.attributes
    if not says(said.get("input", "content"), "content"):
        raise ArtifactRefused(f"the {model.short} reads files, which is not served")
    if said.get("tokenizer") is not None or said.get("preprocessor") is not None:
        raise ArtifactRefused(f"the {model.short} calls a function of its own, which is not served")
    taken = says(said.get("analyzer"), "word", "char", "char_wb")
    if not taken or not says(said.get("strip_accents"), None, "ascii", "unicode"):
        raise ArtifactRefused(f"the {model.short} takes texts apart in a way that is not served")
    if said.get("analyzer") == "word" and not says(said.get("token_pattern"), *_TOKENS):
        raise ArtifactRefused(
            f"the {model.short} finds words by the pattern {str(said.get('token_pattern'))[:60]!r}; served are "
            + ", ".join(_TOKENS)
        )
    _check_type(model)


def _check_type(model: Made) -> None:
    """SciPy's sparse matrices hold numbers."""
    kind = model.attributes.get("dtype", np.dtype(np.float64))
    if not isinstance(kind, np.dtype) or kind.kind not in "fiub" or kind.itemsize > 8 or kind == np.float16:
        raise ArtifactRefused(f"the {model.short} makes something else than numbers")


def check_function(model: Made, _: int) -> None:
    """A FunctionTransformer calls whatever function it has."""
    if model.attributes.get("func") is not None or model.attributes.get("inverse_func") is not None:
        raise ArtifactRefused("a FunctionTransformer that calls a function is not served")


def check_polynomial(model: Made, features: int) -> None:
    """How many features come out grows with the power of the degree."""
    degree = model.attributes.get("degree")
    ends: tuple[Any, ...] = degree if isinstance(degree, tuple) and len(degree) == 2 else (0, degree)
    if not all(type(one) is int and 0 <= one <= MAX_DEGREE for one in ends):
        raise ArtifactRefused(f"the {model.short} has a degree that is none from 0 to {MAX_DEGREE}")
    if math.comb(features + ends[1], ends[1]) > MAX_FEATURES:
        raise ArtifactRefused(f"the {model.short} makes more than {MAX_FEATURES:,} features")


def check_nearest_imputer(model: Made, _: int) -> None:
    """KNNImputer: distances by name only."""
    if not says(model.attributes.get("metric"), "nan_euclidean") or not says(
        model.attributes.get("weights"), "uniform", "distance"
    ):
        raise ArtifactRefused(f"the {model.short} measures by a function of its own, which is not served")
