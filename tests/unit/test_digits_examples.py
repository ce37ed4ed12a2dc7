"""The demo's digit classifiers: as good as they say, and v3 and v4 broken in the one way that they should be."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from examples.digits.data import HEAVY, VERY_HEAVY, held_out, ink, split
from examples.digits.onnx_models import train_onnx
from examples.digits.torch_models import train_torch
from examples.digits.train import FILES, FORMATS, VERSIONS, Kind, Version, manifest, train
from perch.artifacts import inspect
from perch.predictor.answer import learn_reading
from perch.predictor.runtimes import loader_of, zero_row

KINDS: tuple[Kind, ...] = get_args(Kind)
BOTH = pytest.mark.parametrize("kind", KINDS)
ALL = pytest.mark.parametrize("version", VERSIONS)
BANDS = {"v1": (0.85, 0.90), "v2": (0.97, 0.985), "v3": (0.975, 1.0), "v4": (0.975, 1.0)}


def test_the_split_keeps_what_is_measured_apart_from_what_is_learnt() -> None:
    """797 scans that no model has seen, every digit among them, two in five heavily inked and one in forty very."""
    assert len(held_out().digits) == 797
    assert len(split().training.digits) == 1000
    assert set(held_out().digits) == set(range(10))
    seen = {scan.tobytes() for scan in split().training.features}
    assert not any(scan.tobytes() in seen for scan in held_out().features)
    assert 0.40 < (ink(held_out().features) >= HEAVY).mean() < 0.46
    assert 0.02 < (ink(held_out().features) >= VERY_HEAVY).mean() < 0.03


@BOTH
@ALL
def test_every_version_passes_registration_and_its_own_probes(kind: Kind, version: Version) -> None:
    """Accuracy is in its band; probes are lightly inked and answered as the manifest expects."""
    data = train(kind, version)
    found = inspect(FILES[kind], data)
    assert (kind in found.runtimes, found.signature.features) == (True, 64)
    about = manifest(kind, version, parent="v0")
    low, high = BANDS[version]
    assert low <= about["metadata"]["accuracy"] <= high
    assert (about["artifact"], about["parent"]) == (FILES[kind], "v0")
    model = loader_of(FORMATS[kind], kind)(data)
    reading = learn_reading(model.run(zero_row(model)), model.output)
    assert len(about["probes"]) >= 8
    for probe in about["probes"]:
        rows = np.array(probe["features"], dtype=np.float32)
        assert ink(rows).max() < HEAVY
        assert reading.read(model.run(rows), len(rows)).predictions.tolist() == probe["expect"]["predictions"]


@BOTH
def test_each_version_is_better_on_paper_than_what_it_is_to_replace(kind: Kind) -> None:
    """v3 and v4 as well, whose turn comes while v2 serves: that is why somebody would deploy them."""
    v1, v2, v3, v4 = (manifest(kind, version)["metadata"]["accuracy"] for version in VERSIONS)
    assert v1 < v2 < min(v3, v4)


@BOTH
@pytest.mark.parametrize(("version", "limit"), [("v3", HEAVY), ("v4", VERY_HEAVY)])
def test_a_broken_version_raises_on_scans_with_too_much_ink_and_on_no_others(
    kind: Kind, version: Version, limit: float
) -> None:
    """The look-up runs past the end of its table."""
    model = loader_of(FORMATS[kind], kind)(train(kind, version))
    scans = held_out()
    heavy = ink(scans.features) >= limit
    model.run(scans.features[~heavy])
    for scan in scans.features[heavy][:20]:
        with pytest.raises(Exception, match="out of"):
            model.run(scan[np.newaxis])


@BOTH
def test_v1_and_v2_answer_every_scan(kind: Kind) -> None:
    """The others are broken."""
    for version in ("v1", "v2"):
        model = loader_of(FORMATS[kind], kind)(train(kind, version))
        assert len(model.run(held_out().features)[0]) == 797


def test_the_same_seed_gives_the_same_bytes() -> None:
    """Upload the demo's models twice and they register once."""
    assert train_onnx("v2", 0) == train("onnx", "v2")
    assert train_torch("v1", 0) == train("torch", "v1")
    assert train_torch("v1", 1) != train("torch", "v1")
