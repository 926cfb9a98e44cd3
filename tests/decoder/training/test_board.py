"""Curves for TensorBoard, read back by TensorBoard itself."""

from __future__ import annotations

import pytest

from decoder.training.log import Log, Progress


def report(step: int, loss: float) -> Progress:
    return Progress(step, 512 * step, 1.5 * step, 340.0, loss, 0.01, step / 100, {})


def test_without_the_package_there_is_the_csv_file_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("decoder.training.board.find_spec", lambda name: None)
    Log(tmp_path / "log.csv", keep_until=0).write(report(50, 0.5))
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_a_resumed_run_goes_on_where_it_was(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = Log(tmp_path / "log.csv", keep_until=0)
    for step in (50, 100, 150):
        log.write(report(step, 1 / step))
    log.write_validation({"Z 0.003": 12}, step=100, shots=51200)
    Log(tmp_path / "log.csv", keep_until=100).write(report(150, 0.25))
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(point.step, round(point.value, 4)) for point in found.Scalars("loss")] == [
        (50, 0.02),
        (100, 0.01),
        (150, 0.25),
    ]
    assert [(point.step, point.value) for point in found.Scalars("failures/Z 0.003")] == [(100, 12.0)]
    assert {"lr", "shots_per_second"} <= set(found.Tags()["scalars"])
