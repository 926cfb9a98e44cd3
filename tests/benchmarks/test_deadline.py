"""`benchmarks/deadline.py`: what it makes of calls, and one run of a few shots."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from benchmarks import deadline
from benchmarks.harness import run_script
from decoder.tandem.rule import Opinion
from tests.helpers import eventually


def test_calls_are_compared_with_the_deadline_and_a_network_time() -> None:
    calls = {
        "total_ms": np.array([2.0, 6.0, 7.5, 9.0, 8.5]),
        "first_ms": np.array([2.0, 2.0, 2.0, 8.9, 2.0]),
        "core_wait_ms": np.array([0.0, 0.0, 1.0, 0.0, 0.0]),
        "opinions": np.array([Opinion.FIRST, Opinion.SECOND, Opinion.LATE, Opinion.FIRST, Opinion.FAILED]),
        "failed": np.array([False, False, True, False, False]),
    }
    found = deadline.summary(calls, deadline_ms=5)
    assert found["answers"] == {"first": 2, "second": 1, "late": 1, "failed": 1}
    assert (found["shots"], found["failures"], found["later_than_deadline"]) == (5, 1, 4)
    # 5 ms + its own 2 ms: the third and the last; the fourth's network alone took 8.9 ms.
    assert (found["later_than_deadline_and_own_network_time"], found["of_these_unsure"]) == (2, 2)
    assert found["of_these_waited_longer_for_a_core"] == 1
    assert found["largest_overshoot_ms"] == pytest.approx(1.5)
    # The median network time is 2 ms.
    assert found["later_than_deadline_and_median_network_time"] == 3
    assert found["network_alone_later_than_both"] == 1
    assert found["largest_overshoot_of_median_ms"] == pytest.approx(2)
    assert found["largest_wait_beyond_need_ms"] == pytest.approx(3.5)
    assert found["total_ms"]["max"] == 9


def test_a_small_run(tmp_path: Path) -> None:
    others = set(multiprocessing.active_children())
    # No answer comes within a microsecond, so every unsure shot, here each, is late.
    options = "--shots 30 --rounds 2 --p 0.01 --threshold 1 --deadline-ms 0.001 --load 1 --out"
    deadline.main([*options.split(), str(tmp_path / "r")])
    eventually(lambda: set(multiprocessing.active_children()) <= others)
    result = json.loads((tmp_path / "r" / "deadline.json").read_text())
    assert result["shots"] == sum(result["answers"].values()) == 30
    assert result["answers"]["late"] > 0 == result["answers"]["second"]
    assert 0 < result["network_ms"]["p50"] < result["total_ms"]["max"]
    assert f"| {result['answers']['late']} (" in (tmp_path / "r" / "results.md").read_text()


@pytest.mark.parametrize("decoder", ["bposd", "nobody"])
def test_what_is_no_pair_is_refused(decoder: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_script(lambda: deadline.main(["--decoder", decoder]))
    assert decoder in capsys.readouterr().err
