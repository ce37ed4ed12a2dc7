"""scikit-learn models from pickles, joblib's or plain. A pickle runs code: this is only for bytes of a trusted key.

That is decided before (`Pointer.mistrust`, in `perch.predictor.loading`). Here the imports of the pickle are held to
the list that the inspector reads by, also those of arrays of objects, which are pickles of their own.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

from joblib.numpy_pickle import NumpyUnpickler

from perch.artifacts.data import Data
from perch.artifacts.pickle_names import allowed
from perch.domain.errors import Invalid

from .sklearn import SklearnModel

_OURS = ("sklearn.", "scipy.")


class _Unpickler(NumpyUnpickler):  # type: ignore[misc]  # joblib has no types
    """joblib's own, which imports nothing but what an estimator is made of."""

    def find_class(self, module: str, name: str) -> Any:
        if not allowed(module, name):
            raise pickle.UnpicklingError(f"{module}.{name} is not what a scikit-learn estimator is made of")
        found = super().find_class(module, name)
        if module.startswith(_OURS) and not str(getattr(found, "__module__", "")).startswith(_OURS):
            raise pickle.UnpicklingError(f"{module}.{name} is another library's, which is only imported there")
        return found


def load_joblib(data: Data) -> SklearnModel:
    """Load a verified pickle of a trusted key. May raise anything; Invalid if it holds no fitted estimator."""
    file = io.BytesIO(data)
    found = _Unpickler("model", file, ensure_native_byte_order=True).load()
    if not hasattr(found, "n_features_in_"):
        raise Invalid(
            f"the file holds a {type(found).__name__}, which is no fitted estimator that knows its features; "
            "save the estimator by itself: joblib.dump(model, file)"
        )
    return SklearnModel(found)
