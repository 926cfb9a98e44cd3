import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sinter
import stim

from decoder.catalog import DECODERS
from decoder.making import make_decoder
from decoder.neural.decoder import NeuralDecoder
from decoder.sinter import NeuralSinterDecoder, decoders, general_decoders
from decoder.tandem.pairs import THRESHOLD
from simulation.bits import pack_bits
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample


def run(program: str, *arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a console script of this environment."""
    return subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_sinters_own_tests_pass(tmp_path: Path) -> None:
    # One decoder of each kind, as the others of it differ by numbers alone, and XYZ ones do the same as XZ ones in
    # models without both bases, as all of these are. All kinds share the adapter, and so files ("True") and several
    # processes (full_scale) are left to one of them. That each kind decodes as its package does is tested elsewhere.
    kinds = "(bposd or relay-1 or serial) and not xyz and not osd0 and not serial-1 and not serial-deep"
    cases = "(relay-1 or not (True or full_scale))"
    done = run(
        "pytest",
        *("--pyargs", "sinter._decoding._decoding_test", "-q", "-p", "no:cacheprovider"),
        *("-k", f"{kinds} and {cases}"),
        folder=tmp_path,
        SINTER_PYTEST_CUSTOM_DECODERS="decoder.sinter:general_decoders",
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "81 passed" in done.stdout


def test_sinter_collects_with_our_circuit(tmp_path: Path) -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.001)
    experiment.circuit.to_file(tmp_path / "code=bb72,r=2.stim")
    done = run(
        "sinter",
        *("collect", "--circuits", "code=bb72,r=2.stim", "--decoders", "bposd", "bposd-osd0"),
        *("--custom_decoders_module_function", "decoder.sinter:decoders"),
        *("--max_shots", "500", "--processes", "1", "--save_resume_filepath", "stats.csv"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    stats = sinter.stats_from_csv_files(tmp_path / "stats.csv")
    assert {s.decoder: s.shots for s in stats} == {"bposd": 500, "bposd-osd0": 500}
    assert all(s.errors <= 10 for s in stats)


def test_every_decoder_can_be_sent_to_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TANDEM_DISCARD_BELOW", raising=False)
    assert list(decoders()) == list(DECODERS)
    for_memories_alone = ["neural", "tandem", "tandem-tesseract"]
    assert [name for name in decoders() if name not in general_decoders()] == for_memories_alone
    assert pickle.loads(pickle.dumps(decoders())) == decoders()


def test_xz_uses_the_memory_basis_where_the_model_has_both() -> None:
    experiment = MemoryExperiment.create(code="bb72", basis="X", rounds=2, p=0.004)
    shots = sample(experiment.circuit, shots=60, seed=8).detection_events
    # Without their coordinates nothing tells the bases apart in so few rounds, and all detectors are used.
    bare = stim.DetectorErrorModel(
        "\n".join(line for line in str(experiment.dem.flattened()).splitlines() if line.startswith("error"))
    )
    assert bare.num_detectors == experiment.num_detectors

    def decode(name: str, dem: stim.DetectorErrorModel) -> np.ndarray:
        compiled = general_decoders()[name].compile_decoder_for_dem(dem=dem)
        return compiled.decode_shots_bit_packed(bit_packed_detection_event_data=shots)

    marked, unmarked = decode("bposd-osd0", experiment.dem), decode("bposd-osd0", bare)
    assert marked.shape == (60, 2)
    assert (marked != unmarked).any()

    other = np.setdiff1d(np.arange(experiment.num_detectors), experiment.grid.indices_of("X"))
    bits = np.unpackbits(shots, axis=1, bitorder="little", count=experiment.num_detectors)
    bits[:, other] ^= 1
    shots = np.packbits(bits, axis=1, bitorder="little")
    np.testing.assert_array_equal(decode("bposd-osd0", experiment.dem), marked)


def test_the_network_refuses_a_model_that_is_not_its_experiment() -> None:
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_x", distance=3, rounds=3, after_clifford_depolarization=0.001
    )
    with pytest.raises(ValueError, match="the network does not apply to the model: "):
        decoders()["neural"].compile_decoder_for_dem(dem=circuit.detector_error_model())


def test_the_network_decodes_its_experiment_for_sinter() -> None:
    """Through sinter's own workers; at p = 0.2 % the shipped weights fail in at most 0.5 % of the shots.

    Of 1,000 shots more than 20 fail with a probability below 1e-6 then; guessing would fail in 800.
    """
    circuit = MemoryExperiment.create(code="bb72", basis="X", rounds=6, p=0.002).circuit
    [stats] = sinter.collect(
        num_workers=1,
        tasks=[sinter.Task(circuit=circuit)],
        decoders=["neural"],
        custom_decoders=decoders(),
        max_shots=1000,
    )
    assert stats.shots == 1000
    assert stats.errors <= 20


@pytest.fixture(scope="module")
def noisy() -> MemoryExperiment:
    """Noise at which some shots are decoded wrongly, and both the right and the wrong with all confidences."""
    return MemoryExperiment.create(code="bb72", basis="Z", rounds=3, p=0.006)


def circuit_of(detections: np.ndarray, flips: np.ndarray) -> stim.Circuit:
    """A circuit whose every shot has these detection events, bool (detectors,), and flips, bool (observables,)."""
    circuit = stim.Circuit()
    bits = np.concatenate([detections, flips])
    circuit.append("X_ERROR", np.flatnonzero(bits), 1)
    circuit.append("M", range(len(bits)))
    for i in range(len(bits)):
        record = [stim.target_rec(i - len(bits))]
        if i < len(detections):
            circuit.append("DETECTOR", record)
        else:
            circuit.append("OBSERVABLE_INCLUDE", record, i - len(detections))
    return circuit


def test_shots_below_the_threshold_are_flagged(noisy: MemoryExperiment) -> None:
    shots = sample(noisy.circuit, shots=200, seed=3).detection_events
    decoded = NeuralDecoder.load(noisy).decode_soft(shots, bit_packed_shots=True)
    compiled = NeuralSinterDecoder(discard_below=0.9).compile_decoder_for_dem(dem=noisy.dem)
    answer = compiled.decode_shots_bit_packed(bit_packed_detection_event_data=shots)
    assert answer.dtype == np.uint8
    assert answer.shape == (200, 2 + 1)
    np.testing.assert_array_equal(answer[:, -1] != 0, decoded.confidence < 0.9)
    assert 0 < np.count_nonzero(answer[:, -1]) < 200
    without = decoders()["neural"].compile_decoder_for_dem(dem=noisy.dem)
    kept = without.decode_shots_bit_packed(bit_packed_detection_event_data=shots)
    np.testing.assert_array_equal(answer[:, :-1], kept)


def test_sinter_counts_discards_and_the_failures_of_the_rest(noisy: MemoryExperiment) -> None:
    """Each shot that sinter decodes is one of four whose answers are known, a task each."""
    samples = sample(noisy.circuit, shots=1000, seed=3)
    flips = samples.unpacked_observable_flips()
    decoded = NeuralDecoder.load(noisy).decode_soft(samples.detection_events, bit_packed_shots=True)
    wrong, doubtful = (decoded.predictions != flips).any(axis=1), decoded.confidence < 0.7
    kinds = {(bool(w), bool(d)): int(np.argmax((wrong == w) & (doubtful == d))) for w in (0, 1) for d in (0, 1)}
    assert {(bool(wrong[i]), bool(doubtful[i])) for i in kinds.values()} == set(kinds)
    tasks = [
        sinter.Task(
            circuit=circuit_of(samples.unpacked_detection_events()[i], flips[i]),
            detector_error_model=noisy.dem,
            json_metadata={"wrong": w, "doubtful": d},
        )
        for (w, d), i in kinds.items()
    ]
    found = sinter.collect(
        num_workers=1,
        tasks=tasks,
        decoders=["neural", "careful"],
        custom_decoders={**decoders(), "careful": NeuralSinterDecoder(discard_below=0.7)},
        max_shots=20,
    )
    assert len(found) == 8
    for stats in found:
        kind = stats.json_metadata
        discarded = stats.decoder == "careful" and kind["doubtful"]
        assert stats.shots == 20
        assert stats.discards == (20 if discarded else 0)
        assert stats.errors == (20 if kind["wrong"] and not discarded else 0)


def test_thresholds_on_sinters_command_line(noisy: MemoryExperiment, tmp_path: Path) -> None:
    noisy.circuit.to_file(tmp_path / "memory.stim")
    names = ("neural", "neural-discard-0.5", "neural-discard-0.99")
    done = run(
        "sinter",
        *("collect", "--circuits", "memory.stim", "--decoders", *names),
        *("--custom_decoders_module_function", "decoder.sinter:decoders"),
        *("--max_shots", "500", "--processes", "1", "--save_resume_filepath", "stats.csv"),
        folder=tmp_path,
        TANDEM_DISCARD_BELOW="0.50, 0.99",
    )
    assert done.returncode == 0, done.stderr
    stats = {one.decoder: one for one in sinter.stats_from_csv_files(tmp_path / "stats.csv")}
    assert {name: one.shots for name, one in stats.items()} == dict.fromkeys(names, 500)
    # Each decoder has shots of its own, so counts agree with those of other shots within six standard deviations.
    shots, flips = noisy.circuit.compile_detector_sampler(seed=7).sample(2000, separate_observables=True)
    decoding = NeuralDecoder.for_dem(noisy.dem).decode_soft(shots)
    wrong = (decoding.predictions != flips).any(axis=1)
    for name, threshold in zip(names, (0.0, 0.5, 0.99), strict=True):
        doubtful = decoding.confidence < threshold
        for found, of in [(stats[name].discards, doubtful), (stats[name].errors, wrong & ~doubtful)]:
            share = of.mean()
            assert abs(found - 500 * share) <= 1 + 6 * (500 * (1 + 500 / 2000) * share * (1 - share)) ** 0.5
    assert stats[names[0]].discards < stats[names[1]].discards < stats[names[2]].discards


def test_a_pair_asks_its_second_decoder_and_discards_by_its_first(noisy: MemoryExperiment) -> None:
    shots = sample(noisy.circuit, shots=200, seed=3).detection_events
    first = NeuralDecoder.load(noisy).decode_soft(shots, bit_packed_shots=True)
    second = make_decoder("bposd-osd0", noisy).decode_batch(shots, bit_packed_shots=True)
    unsure = first.confidence < THRESHOLD
    expected = np.where(unsure[:, None], second, first.predictions)
    assert (expected != first.predictions).any()
    assert (expected != second).any()
    whole, careful = (
        NeuralSinterDecoder(second="bposd-osd0", discard_below=discard_below)
        .compile_decoder_for_dem(dem=noisy.dem)
        .decode_shots_bit_packed(bit_packed_detection_event_data=shots)
        for discard_below in (None, 0.7)
    )
    np.testing.assert_array_equal(whole, pack_bits(expected))
    np.testing.assert_array_equal(careful[:, :-1], whole)
    np.testing.assert_array_equal(careful[:, -1] != 0, first.confidence < 0.7)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"discard_below=.* above 0 and below 1"):
        NeuralSinterDecoder(discard_below=threshold)


def test_thresholds_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_DISCARD_BELOW", "0.990,1e-3")
    named = decoders()
    assert list(named)[len(DECODERS) :] == [
        f"{name}-discard-{threshold}"
        for name in ("neural", "tandem", "tandem-tesseract")
        for threshold in ("0.99", "0.001")
    ]
    assert named["tandem-discard-0.99"] == NeuralSinterDecoder(second="serial-deep", discard_below=0.99)
    assert named["neural"] == NeuralSinterDecoder(discard_below=None)
    assert named["neural-discard-0.99"] == NeuralSinterDecoder(discard_below=0.99)
    assert pickle.loads(pickle.dumps(named)) == named
    for text, message in (("half", "'half' must hold"), ("0.9,", "'0.9,' must hold"), ("0.9,2", "discard_below=2.0")):
        monkeypatch.setenv("TANDEM_DISCARD_BELOW", text)
        with pytest.raises(ValueError, match=message):
            decoders()
    monkeypatch.setenv("TANDEM_DISCARD_BELOW", "")
    assert len(decoders()) == len(DECODERS)


def test_windows_are_decoders_with_names_of_their_own(monkeypatch) -> None:
    monkeypatch.setenv("TANDEM_WINDOWS", "6-3, 5-2")
    found = decoders()
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=8, p=0.002)
    shots = sample(experiment.circuit, shots=10, seed=3)
    for name in ("bposd-osd0-window-6-3", "bposd-osd0-window-5-2"):
        compiled = found[name].compile_decoder_for_dem(dem=experiment.dem)
        predicted = compiled.decode_shots_bit_packed(bit_packed_detection_event_data=shots.detection_events)
        expected = make_decoder(name, experiment).decode_batch(shots.detection_events, bit_packed_shots=True)
        np.testing.assert_array_equal(predicted, pack_bits(expected.view(np.bool_)))
    assert "neural-window-6-3" not in found
    for text in ("6", "3-6", "six-three"):
        monkeypatch.setenv("TANDEM_WINDOWS", text)
        with pytest.raises(ValueError, match="TANDEM_WINDOWS"):
            decoders()
