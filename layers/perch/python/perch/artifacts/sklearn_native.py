"""What compiled code is given as it stands: support vectors (LIBSVM) and the points of nearest neighbours.

Both read as many numbers as other numbers tell them, and neither looks. So every array has just the type and shape that
the others make of it, and every label and every name of a distance is one of those that there are.

Each function looks at one estimator, of so many features, and raises `ArtifactRefused`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import ArtifactRefused
from .sklearn_made import Made, counts, finite, is_array, says

MAX_NEIGHBOURS = 1_000_000
"""Of points among which neighbours are looked for."""

_KERNELS = ("linear", "poly", "rbf", "sigmoid")
_METRICS = ("euclidean", "manhattan", "chebyshev", "minkowski", "cosine", "l1", "l2", "cityblock")


def check_kernel(model: Made, features: int) -> None:
    """LIBSVM reads as many vectors, coefficients and intercepts as these numbers tell it."""
    said = model.attributes
    classes = len(model.classes) if "classifier" in model.role else 2
    vectors, per_class = said.get("support_vectors_"), said.get("_n_support")
    if not says(said.get("kernel"), *_KERNELS) or said.get("_sparse") is not False:
        raise ArtifactRefused(
            f"the {model.short} has a kernel of its own or was trained on sparse rows, which is not served"
        )
    if classes < 2 or not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or not len(vectors):
        raise ArtifactRefused(f"the {model.short} has no support vectors")
    count, pairs = len(vectors), classes * (classes - 1) // 2
    if not is_array(per_class, np.int32, (classes if "classifier" in model.role else 2,)) or (
        (per_class < 0).any() or (int(per_class.sum(dtype=np.int64)) != count and "classifier" in model.role)
    ):
        raise ArtifactRefused(f"the {model.short} counts its support vectors differently in two places")
    wanted: list[tuple[str, Any, tuple[int, ...]]] = [
        ("support_vectors_", np.float64, (count, features)),
        ("support_", np.int32, (count,)),
        ("_dual_coef_", np.float64, (classes - 1, count)),
        ("_intercept_", np.float64, (pairs,)),
    ]
    for name, dtype, shape in wanted:
        if not is_array(said.get(name), dtype, shape):
            raise ArtifactRefused(
                f"the {model.short} has {name} of another type or shape than {dtype.__name__} {shape}"
            )
    sizes = {len(one) if is_array(one, np.float64, None) and one.ndim == 1 else -1 for one in _sigmoids(model)}
    if len(sizes) != 1 or not sizes <= ({0, pairs} if "classifier" in model.role else {0}):
        raise ArtifactRefused(f"the {model.short} has other probabilities than one for each pair of classes")
    if "classifier" in model.role and (said.get("probability") is True) != (sizes == {pairs}):
        raise ArtifactRefused(f"the {model.short} does not say whether it gives probabilities")
    degree = said.get("degree")
    if not all(finite(said.get(name)) for name in ("_gamma", "coef0", "cache_size")):
        raise ArtifactRefused(f"the {model.short} has a parameter that is no number")
    if type(degree) is not int or not 0 <= degree <= 1_000:
        raise ArtifactRefused(f"the {model.short} has a degree that is none")


def _sigmoids(model: Made) -> tuple[Any, Any]:
    return model.attributes.get("_probA"), model.attributes.get("_probB")


def check_neighbours(model: Made, features: int) -> None:
    """The search trees are built anew, of these points; native code counts labels in an array of so many classes."""
    said = model.attributes
    points, labels, nearest = said.get("_fit_X"), said.get("_y"), said.get("n_neighbors")
    if not isinstance(points, np.ndarray) or points.ndim != 2 or points.dtype.kind not in "fiu":
        raise ArtifactRefused(f"the {model.short} has no matrix of numbers as its points")
    count = len(points)
    if points.shape[1] != features or not 1 <= count <= MAX_NEIGHBOURS or not np.isfinite(points).all():
        raise ArtifactRefused(f"the {model.short} has points of other than {features} finite numbers")
    if not counts(said.get("n_samples_fit_"), count) or type(nearest) is not int or not 1 <= nearest <= count:
        raise ArtifactRefused(f"the {model.short} asks for more neighbours than there are points")
    if not isinstance(labels, np.ndarray) or len(labels) != count or labels.dtype.kind not in "fiu":
        raise ArtifactRefused(f"the {model.short} has other labels than one for each point")
    if "classifier" in model.role and (
        not is_array(labels, np.int64, (count,))
        or not ((labels >= 0) & (labels < len(model.classes))).all()
        or said.get("outputs_2d_") is not False
    ):
        raise ArtifactRefused(f"the {model.short} has a label that is none of its classes")
    _check_metric(model)


def _check_metric(model: Made) -> None:
    said = model.attributes
    if not says(said.get("metric"), *_METRICS) or not says(said.get("effective_metric_"), *_METRICS):
        raise ArtifactRefused(f"the {model.short} measures by {str(said.get('metric'))[:60]!r}, which is not served")
    power = said.get("effective_metric_params_")
    if said.get("metric_params") is not None or not isinstance(power, dict) or power.keys() - {"p", "w"}:
        raise ArtifactRefused(f"the {model.short} measures with parameters that are not served")
    least = 1 if said["effective_metric_"] == "minkowski" else 0
    if power.get("w") is not None or not finite(power.get("p", 2)) or power.get("p", 2) < least:
        raise ArtifactRefused(f"the {model.short} measures with parameters that are not served")
    method, leaf = said.get("_fit_method"), said.get("leaf_size")
    if not says(method, "brute", "kd_tree", "ball_tree") or not says(said.get("weights"), "uniform", "distance"):
        raise ArtifactRefused(f"the {model.short} searches or weighs in a way that is not served")
    if (said["effective_metric_"] == "cosine" and method != "brute") or type(leaf) is not int or leaf < 1:
        raise ArtifactRefused(f"the {model.short} searches or weighs in a way that is not served")
