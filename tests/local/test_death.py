"""A candidate that really dies: natively, at load or when asked, for time or for memory. Its death is a reason.

The predictor of this module's cloud has a handler that does what the name of the model version says. One endpoint, one
cloud: each death leaves the stable revision serving, and the next candidate is tried as if nothing had been.
"""

from __future__ import annotations

import re

import pytest

from tests.local.whole import Trial, changed_assembly, synthesize_trial, trial

pytestmark = pytest.mark.slow

SETTINGS = """
name = "perch"
[endpoints.alpha]
runtime = "onnx"
timeout_s = 5
memory_mb = 512
max_artifact_mb = 1
[endpoints.alpha.rollout]
strategy = "direct"
"""

HANDLER = """
import ctypes, json, os, signal
version = json.loads(os.environ.get("PERCH_POINTER") or "{}").get("version", "")
def die():
    if "abort" in version:
        os.abort()
    if "segfault" in version:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.string_at(0)
    if "exit" in version:
        os._exit(3)
    while "loop" in version:
        pass
    if "hog" in version:
        hoard = [b"x" * (16 << 20) for _ in range(60)]
        while hoard:
            pass
if version.endswith("load"):
    die()
answer = handler
def handler(event, context):
    if version.endswith("predict") and "predict" in event["rawPath"]:
        die()
    return answer(event, context)
"""

DEATHS = {
    "abort-at-load": r"revision \d+ died while loading the model \(signal: aborted\)",
    "segfault-at-load": r"revision \d+ died while loading the model \(signal: segmentation fault\)",
    "exit-at-load": r"revision \d+ died while loading the model \(exit status 3\)",
    "hog-at-load": r"revision \d+ died while loading the model \(signal: killed, as what needs more memory",
    "loop-at-load": r"revision \d+ died while loading the model \(it was not done within 5 s\)",
    "abort-at-predict": r"revision \d+ did not pass its probes: probe 0: it died of it \(signal: aborted\)",
    "hog-at-predict": r"probe 0: it died of it \(signal: killed, as what needs more memory than its function has\)",
    "loop-at-predict": r"probe 0: it died of it \(it was not done within 5 s\)",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deadly")
    assembly = changed_assembly(synthesize_trial(folder, text=SETTINGS), folder / "changed", "deadly", code=HANDLER)
    with trial(assembly, tmp_path_factory.mktemp("cloud"), patience=2) as found:
        found.upload("alpha", 1, version="first")
        found.wait(lambda: bool(found.stable("alpha")), "alpha")
        yield found


@pytest.mark.parametrize("version", DEATHS)
def test_the_death_of_a_candidate_is_a_reason_and_no_outage(whole: Trial, version: str) -> None:
    """The rollout is refused in words, in the tick that tried it, and stable answers all along."""
    seq, before = whole.state("alpha").seq, whole.alias("alpha")
    whole.upload("alpha", 2, version=version)
    traffic = whole.live_traffic("alpha", lambda: "RolloutRefused" in whole.kinds("alpha", after=seq), each=2)
    story = whole.ledger("alpha", after=seq)
    published, refused = (next(e for e in story if e.kind == kind) for kind in ("RevisionPublished", "RolloutRefused"))

    assert re.search(DEATHS[version], refused.reason)
    assert (refused.at - published.at).total_seconds() <= 60
    assert traffic.failed == []
    assert set(traffic.versions) <= {"first"}
    assert whole.alias("alpha") == before
    assert whole.predict("alpha").body["version"] == "first"


def test_after_so_many_deaths_a_good_version_goes_live(whole: Trial) -> None:
    """Nothing is left behind that would stand in its way."""
    whole.upload("alpha", 2, version="good")
    whole.wait(lambda: whole.stable("alpha") == "good", "alpha")
    assert whole.predict("alpha").body["predictions"] == [2]
