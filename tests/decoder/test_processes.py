from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from decoder.making import NamedDecoder, make_decoder
from decoder.processes import ChildProcess
from simulation.circuits import MemoryExperiment
from simulation.sampling import sample

BPOSD = NamedDecoder("bposd")


@pytest.fixture(scope="module")
def experiment() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="X", rounds=1, p=0.01)


@pytest.fixture(scope="module")
def child():
    child = ChildProcess(size=2)
    yield child
    child.close()


def test_a_decoder_in_a_child_process_answers_as_one_here(child, experiment):
    events = sample(experiment.circuit, shots=10, seed=1).detection_events
    there, here = child.decoder(BPOSD, experiment), make_decoder("bposd", experiment)
    assert (there.num_detectors, there.num_observables) == (here.num_detectors, here.num_observables)
    for packed in (False, True):
        options = {"bit_packed_shots": True, "bit_packed_predictions": packed}
        assert np.array_equal(there.decode_batch(events, **options), here.decode_batch(events, **options))
    assert child.call(os.getpid) != os.getpid()


def test_what_its_maker_and_its_decoder_raise_arrives_here(child, experiment, tmp_path):
    with pytest.raises(ValueError, match="no weights to load"):
        child.decoder(NamedDecoder("bposd", weights=tmp_path), experiment)
    with pytest.raises(ValueError, match="72 detectors"):
        child.decoder(BPOSD, experiment).decode_batch(np.zeros((1, 10), np.uint8), bit_packed_shots=True)


def test_a_child_that_dies_is_one_error_and_then_replaced(child, experiment):
    decoder = child.decoder(BPOSD, experiment)
    shot = np.zeros((1, experiment.num_detectors), np.bool_)
    os.kill(child.call(os.getpid), signal.SIGKILL)
    with pytest.raises(RuntimeError, match="starts a new one"):
        decoder.decode_batch(shot)
    assert not decoder.decode_batch(shot).any()
