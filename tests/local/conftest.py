"""One synth for all tests that deploy the project's own app: it takes seconds, and a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from perch.local.deploy.synthesis import synthesize
from tests.local.whole import synthesize_trial

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the synthesized app; do not write to it."""
    return synthesize(ROOT, tmp_path_factory.mktemp("cdk.out"))


@pytest.fixture(scope="session")
def trial_assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same app with the endpoints of `tests.local.whole`, whose rollouts take minutes; do not write to it."""
    return synthesize_trial(tmp_path_factory.mktemp("trial"))
