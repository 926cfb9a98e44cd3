import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from decoder.classical.bp import LSD
from decoder.classical.syndrome import SyndromeDecoder
from simulation.faults import FaultModel

Bits = npt.NDArray[np.bool_]

MODEL = "error(0.1) D0 D1 L0\nerror(0.02) D1 D2 L1\nerror(0.05) D0 D2\nerror(0.07) D2 D3 L0\nerror(0.03) D1 D3"

GLIBC_DEBUG = Path("/usr/lib/x86_64-linux-gnu/libc_malloc_debug.so.0")


@pytest.mark.parametrize(("method", "order"), [("LSD_0", 0), ("LSD_E", 1), ("LSD_E", 15)])
def test_where_an_error_explains_a_shot_the_answer_does(
    method: str,
    order: int,
    model_of: Callable[[str], FaultModel],
    all_shots: Callable[[int], Bits],
    likeliest_error: Callable[[FaultModel, Bits], Bits | None],
) -> None:
    # Every mechanism is an observable of its own here, so that the prediction is the error that was found.
    lines = [line.split(" L")[0] + f" L{i}" for i, line in enumerate(MODEL.splitlines())]
    model = model_of("\n".join(lines))
    decoder = SyndromeDecoder(model, replace(LSD, max_iter=1, lsd_method=method, lsd_order=order))  # type: ignore[arg-type]
    shots = np.array([shot for shot in all_shots(4) if likeliest_error(model, shot) is not None])
    errors = decoder.decode_batch(shots) @ model.observable_matrix.toarray()  # observables to mechanisms
    np.testing.assert_array_equal((errors @ model.check_matrix.T.toarray()) % 2, shots)
    if method == "LSD_E" and order == 15:
        np.testing.assert_array_equal(errors, [likeliest_error(model, shot) for shot in shots])


@pytest.mark.skipif(not GLIBC_DEBUG.exists(), reason="needs the C library's debugging allocator")
@pytest.mark.parametrize(("method", "order"), [("LSD_0", 0), ("LSD_E", 15)])
def test_no_setting_writes_past_the_end_of_its_memory(method: str, order: int) -> None:
    """An allocator that checks its blocks aborts where one does, as LSD_CS of ldpc 2.4.1 does (ldpc issue 105)."""
    program = f"""
import numpy as np
from dataclasses import replace
from decoder.classical.bp import LSD
from decoder.classical.syndrome import SyndromeDecoder
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample
experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.01, detectors="XZ")
settings = replace(LSD, max_iter=2, lsd_method={method!r}, lsd_order={order})
shots = sample(experiment.circuit, shots=50, seed=1).detection_events
SyndromeDecoder(experiment.fault_model, settings).decode_batch(shots, bit_packed_shots=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"LD_PRELOAD": str(GLIBC_DEBUG), "MALLOC_CHECK_": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
