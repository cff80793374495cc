"""Tests of the sample runs."""

from __future__ import annotations

import json
from typing import Any

from aiocopyai.emulator import Emulator
from tests.support.raw_api import emulator_ids


def test_samples_are_reproducible() -> None:
    """The same seed generates the same runs, and another seed generates others."""
    assert Emulator(20).runs() == Emulator(20).runs()
    assert emulator_ids(Emulator(20)) != emulator_ids(Emulator(20, seed=1))


def test_samples_vary() -> None:
    """A few hundred runs have every status, kind of output and kind of metadata."""
    runs: list[dict[str, Any]] = Emulator(400).runs()
    assert len({run["id"] for run in runs}) == 400
    statuses = {"NEW", "WAITING", "PROCESSING", "RETRYING", "COMPLETE", "FAILED"}
    assert {run["status"] for run in runs} == statuses
    assert all((run["error"] is not None) == (run["status"] == "FAILED") for run in runs)
    assert {type(value) for run in runs for value in run["output"].values()} == {str, list, dict}
    assert len({len(run["output"]) for run in runs if run["status"] == "PROCESSING"}) > 1
    metadata = {tuple(run["metadata"] or ()) for run in runs}
    assert metadata == {(), ("api",), ("webapp",), ("api", "customer", "batch")}


def test_sample_output() -> None:
    """One step of a completed run is JSON in a string, and one is empty."""
    runs: list[dict[str, Any]] = Emulator(40).runs()
    output = next(run["output"] for run in runs if run["status"] == "COMPLETE")
    assert set(json.loads(output["Fit (JSON)"])) == {"fit", "reasons"}
    assert "" in output.values()
