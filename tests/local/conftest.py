"""One synth for all tests that deploy the app with settings of their own: it takes seconds and a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.local.whole import synthesize_trial


@pytest.fixture(scope="session")
def trial_assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same app with the endpoints of `tests.local.whole`, whose rollouts take minutes; do not write to it."""
    return synthesize_trial(tmp_path_factory.mktemp("trial"))
