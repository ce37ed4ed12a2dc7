"""scikit-learn models as joblib or pickle saves them: only what they would import is read.

Such a file is code, so it always needs an endpoint that opted in and a signature of a trusted key (`Inspected.code`).
Nothing but unpickling could tell what the estimator takes, so `perch.json` has to declare the signature:

    {"artifact": "model.joblib", "signature": {"inputs": [{"name": "features", "datatype": "FP64", "shape": [-1, 4]}],
                                               "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}]}}
"""

from __future__ import annotations

from .data import Data
from .errors import ArtifactRefused
from .inspected import Inspected
from .pickle_names import names_in
from .signature import Signature

_SHOWN = 12


def inspect_joblib(data: Data) -> Inspected:
    """Read what a pickle would import. Raises `ArtifactRefused` if that is more than a scikit-learn estimator needs."""
    names = names_in(data)
    ours = [name for name in names if name.startswith("sklearn.")]
    if not ours:
        raise ArtifactRefused(
            "a pickle can run code when it is loaded, and this one holds no estimator of scikit-learn's"
        )
    more = f" and {len(ours) - _SHOWN} more" if len(ours) > _SHOWN else ""
    return Inspected(
        format="joblib",
        runtimes=("sklearn",),
        signature=Signature(inputs=(), outputs=()),
        details={"imports": list(names)},
        code=f"it is a pickle, which calls what it names when it is loaded: {', '.join(ours[:_SHOWN])}{more}",
    )
