"""The local cloud as pytest fixtures, for the tests of a project that deploys with Perch.

Put one line into the `conftest.py` at the top of the project:

    pytest_plugins = ["perch.local.fixtures"]

`perch_assembly` is the synthesized `app.py` of the project, made once a session; `perch_cloud` a local cloud with it
deployed, whose time stands still except where a test moves it; `perch_deployed` its stack outputs. The cloud lasts for
the tests of one module: moto's state belongs to the process, so there can be only one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # every run of pytest imports its plugins; only those that use the cloud pay for moto
    from perch.local.cloud import LocalCloud
    from perch.local.deploy.deployment import Deployed

PATIENCE = 6.0
"""How many times its limits a function may really take, on a machine that runs other tests beside it."""


@pytest.fixture(scope="session")
def perch_assembly(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the synthesized app; do not write to it."""
    from perch.local.deploy.synthesis import synthesize  # noqa: PLC0415 - see above

    return synthesize(pytestconfig.rootpath, tmp_path_factory.mktemp("cdk.out"))


@pytest.fixture(scope="module")
def perch_cloud(_perch: tuple[LocalCloud, Deployed]) -> LocalCloud:
    """A local cloud with the project deployed on it.

    Its `options.state` is `.perch/local` of an empty folder, so that `perch --local`, run there, finds it.
    """
    return _perch[0]


@pytest.fixture(scope="module")
def perch_deployed(_perch: tuple[LocalCloud, Deployed]) -> Deployed:
    """The outputs of the stacks on `perch_cloud`."""
    return _perch[1]


@pytest.fixture(scope="module")
def _perch(perch_assembly: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCloud, Deployed]]:
    from perch.local.cloud import CloudOptions, LocalCloud  # noqa: PLC0415 - see above

    folder = tmp_path_factory.mktemp("project")
    with LocalCloud.running(CloudOptions(state=folder / ".perch" / "local", patience=PATIENCE)) as cloud:
        yield cloud, cloud.deploy(perch_assembly)
