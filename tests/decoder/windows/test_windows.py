"""Sliding windows: they decode as the whole does, whatever the length."""

from __future__ import annotations

import numpy as np
import pytest
import stim

from decoder.catalog import decoder_spec
from decoder.making import make_decoder
from decoder.windows.decoder import WindowDecoder
from decoder.windows.models import window_model
from decoder.windows.shortening import shortened
from simulation.circuits import MemoryExperiment
from simulation.experiments import Experiment, as_experiment
from simulation.faults import FaultModel
from simulation.foreign.experiment import Source
from simulation.foreign.layers import layer_of_detectors
from simulation.shots.sampling import sample

BB72 = MemoryExperiment.create(code="bb72", basis="X", rounds=12, p=0.003)


def surface_code(*, rounds: int) -> stim.Circuit:
    return stim.Circuit.generated(
        "surface_code:rotated_memory_z",
        distance=3,
        rounds=rounds,
        after_clifford_depolarization=0.002,
        before_measure_flip_probability=0.002,
    )


def windows(name: str, described: Experiment | Source) -> WindowDecoder:
    decoder = make_decoder(name, described)
    assert isinstance(decoder, WindowDecoder)
    return decoder


@pytest.mark.parametrize("name", ["serial-1", "bposd-osd0"])
def test_one_window_over_all_layers_is_the_decoder_itself(name):
    shots = sample(BB72.circuit, shots=20, seed=1).detection_events
    spec = decoder_spec(name)
    assert spec.settings is not None
    whole = spec.settings.of_faults(BB72.fault_model, BB72.check_types, detectors=spec.detectors)
    answers = whole.decode_batch(shots, bit_packed_shots=True)
    assert answers.any()
    decoder = windows(f"{name}-window-13-4", BB72)
    np.testing.assert_array_equal(decoder.decode_batch(shots, bit_packed_shots=True), answers)


@pytest.mark.parametrize(("name", "most"), [("serial-1-window-6-3", 4), ("bposd-osd0-window-6-2", 16)])
def test_windows_of_bb72(name, most):
    """Of these 100 shots serial-1 fails on 1, and bposd-osd0 on 6."""
    samples = sample(BB72.circuit, shots=100, seed=1)
    wrong = windows(name, BB72).predict(samples.unpacked_detection_events()) ^ samples.unpacked_observable_flips()
    assert wrong.any(axis=1).sum() <= most


@pytest.mark.parametrize(
    ("name", "kind"), [("bposd-window-5-2", "circuit"), ("serial-window-4-1", "circuit"), ("serial-window-4-1", "dem")]
)
def test_every_single_error_is_corrected(name, kind):
    """It is in a code of distance 3, wherever windows begin and end."""
    circuit = surface_code(rounds=9)
    experiment = as_experiment(circuit if kind == "circuit" else circuit.detector_error_model())
    model = experiment.fault_model
    events, flips = (matrix.toarray().T.astype(np.bool_) for matrix in (model.check_matrix, model.observable_matrix))
    np.testing.assert_array_equal(windows(name, experiment).predict(events), flips)


def same(one: FaultModel, other: FaultModel) -> None:
    assert (one.check_matrix != other.check_matrix).nnz == 0
    assert (one.observable_matrix != other.observable_matrix).nnz == 0
    np.testing.assert_allclose(one.priors, other.priors, rtol=1e-9)


@pytest.mark.parametrize("kind", ["surface", "bb72", "bb72 dem"])
def test_windows_of_the_shortened_experiment_are_those_of_the_long_one(kind):
    long = MemoryExperiment.create(code="bb72", basis="Z", rounds=31, p=0.003)
    source: Source = {"surface": surface_code(rounds=41), "bb72": long.circuit, "bb72 dem": long.dem}[kind]
    short = shortened(source, window=4, margin=2)
    assert short.experiment.num_detectors < source.num_detectors
    np.testing.assert_array_equal(short.layer_of, layer_of_detectors(source))
    np.testing.assert_array_equal(short.layer_of_short, layer_of_detectors(short.experiment.source))
    whole, few = as_experiment(source), short.experiment
    types, types_short = whole.check_types, few.check_types
    for start in range(0, short.layers, 3):
        model = window_model(whole.fault_model, types, short.layer_of, start=start, window=4, commit=2)
        place = short.place(start)
        other = window_model(few.fault_model, types_short, short.layer_of_short, start=place, window=4, commit=2)
        same(model.fault_model, other.fault_model)
        np.testing.assert_array_equal(model.check_types.memory, other.check_types.memory)
        assert (model.effect != other.effect).nnz == 0
        np.testing.assert_array_equal(model.fixed, other.fixed)


def test_two_thousand_rounds_take_the_windows_of_forty():
    decoders = {}
    for rounds in (40, 2000):
        experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=rounds, p=0.001)
        decoder = decoders[rounds] = windows("serial-1-window-6-3", experiment)
        events, flips = experiment.circuit.compile_detector_sampler(seed=1).sample(1, separate_observables=True)
        np.testing.assert_array_equal(decoder.predict(events), flips)
        assert decoder._short.experiment.num_detectors < 72 * 25
    assert len(decoders[2000]._decoders) == 3  # the first window, those in the midst, and the last


def test_a_stream_says_what_is_fixed():
    decoder = windows("serial-1-window-6-2", BB72)
    events = sample(BB72.circuit, shots=3, seed=2).unpacked_detection_events()
    stream, committed = decoder.stream(shots=3), []
    for layer in decoder.layers:
        stream.fold(events[:, layer])
        committed.append(stream.committed)
    assert committed == [0] * 5 + [2, 2, 4, 4, 6, 6, 8, 13]
    np.testing.assert_array_equal(stream.predictions, decoder.predict(events))
    assert stream.converged.mean() > 0.5
    with pytest.raises(ValueError, match="all 13 layers have come"):
        stream.fold(events[:, decoder.layers[0]])
    with pytest.raises(ValueError, match=r"layer 0 has the shape \(3, 5\)"):
        decoder.stream(shots=3).fold(events[:, :5])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("serial-window-2-2", "too short to fix 2; let it be at least 3 layers long"),
        ("serial-window-14-3", "a window of 14 layers is longer than a shot of 13"),
        ("serial-window-2-3", "commit=3 must be at most window=2"),
        ("serial-window-0-0", "window"),
        ("neural-window-6-3", "tells no errors"),
        ("nothing-window-6-3", "unknown decoder"),
        ("serial-window-6-3-window-6-3", "unknown decoder"),
    ],
)
def test_what_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        make_decoder(name, BB72)


def test_a_name_stands_for_windows():
    spec = decoder_spec("bposd-window-6-3")
    assert (spec.name, spec.detectors) == ("bposd-window-6-3", "XZ")
    assert spec.summary.endswith("in windows of 6 layers, 3 of them fixed")
