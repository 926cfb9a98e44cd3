"""The network as the judge of candidates: what it reads, what it adds to their scores, and that it is alone in that."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stim
import torch

from decoder.base import Decoding
from decoder.classical.serial import SerialDecoder
from decoder.making import make_decoder
from decoder.neural.backends.events import as_tensors
from decoder.neural.candidates import EVIDENCE, FEATURES, MOST_GAP
from decoder.neural.decoder import NeuralDecoder
from decoder.neural.fault_lattice import KINDS
from decoder.neural.judge import CandidateDecoder, Case, JudgedDecoder
from simulation.bits import Bits
from simulation.circuits import MemoryExperiment
from simulation.faults import FaultModel
from tests.decoder.neural.networks import JUDGE, random_weights

CELLS = 36


@lru_cache
def experiment(**options: Any) -> MemoryExperiment:
    return MemoryExperiment.create(**{"code": "bb72", "basis": "Z", "rounds": 4, "p": 0.006, **options})


def shots_of(made: MemoryExperiment, shots: int) -> tuple[Bits, Bits]:
    return made.circuit.compile_detector_sampler(seed=11).sample(shots, separate_observables=True)


@pytest.fixture(scope="module")
def random_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory.mktemp("judge") / "judge.safetensors", JUDGE)


def judge_of(weights: Path, made: MemoryExperiment, **options: Any) -> JudgedDecoder:
    judged = NeuralDecoder.load(made, weights=weights, **options).judged
    assert judged is not None
    return judged


@pytest.fixture(scope="module")
def case(random_judge: Path) -> Case:
    """Shots of the experiment whose solutions disagree."""
    shown, case = judge_of(random_judge, experiment()).disagreeing(shots_of(experiment(), 400)[0])
    assert len(shown) > 10
    return case


def test_features_are_where_the_faults_are(case: Case) -> None:
    found, features = case.candidates, case.beliefs.features
    posterior = np.exp(found.energies[:, :1] - found.energies)
    posterior /= posterior.sum(axis=1, keepdims=True)
    for shot, place in np.argwhere(found.faults[:, :2].any(axis=1))[::7]:
        layer, rest = divmod(int(place), KINDS * CELLS)
        kind, cell = divmod(rest, CELLS)
        row = features[shot, layer, cell]
        assert row[FEATURES.first + kind] == found.faults[shot, 0, place]
        assert row[FEATURES.second + kind] == found.faults[shot, 1, place]
        share = (posterior[shot] * found.faults[shot, :, place]).sum()
        assert row[FEATURES.share + kind] == pytest.approx(share, abs=1e-6)
    assert features[..., FEATURES.first : FEATURES.first + KINDS].sum() == found.faults[:, 0].sum()
    gaps = np.minimum(found.energies[:, 1] - found.energies[:, 0], MOST_GAP)
    np.testing.assert_allclose(features[:, 2, 7, FEATURES.gap], gaps, rtol=1e-6)
    np.testing.assert_allclose(10 ** features[:, 0, 0, FEATURES.effort], found.passes, rtol=1e-5)
    np.testing.assert_array_equal(features[:, 1, 3, FEATURES.found], found.votes[:, 0])


def test_the_faults_of_a_candidate_explain_the_events_and_flip_its_outputs(random_judge: Path, case: Case) -> None:
    """By the fault model: each fault's place belongs to one column, whose detectors and observables add up."""
    decoder = judge_of(random_judge, experiment())
    faults = case.candidates.faults[..., decoder.places.of_fault]
    there = np.isfinite(case.candidates.energies)
    memory = decoder.joint.checks[np.flatnonzero(decoder.joint.memory_basis)][:, : faults.shape[2]].astype(int)
    index = decoder.geometry.event_index(experiment().grid)
    events = case.events[:, 0].reshape(len(faults), -1)[:, index[:, 0].argsort(axis=None)]
    for candidate in range(faults.shape[1]):
        explained = (memory @ faults[there[:, candidate], candidate].T.astype(int)).T % 2
        np.testing.assert_array_equal(explained, events[there[:, candidate]])
    flips = np.bitwise_xor.reduce(np.where(faults, decoder.joint.graph.flips, 0), axis=2)
    np.testing.assert_array_equal(flips[there], case.candidates.cosets[there])


def test_evidence_is_what_the_candidates_say(case: Case) -> None:
    found, evidence, signs = case.candidates, case.beliefs.evidence, 2.0 * case.flipped - 1
    np.testing.assert_array_equal(evidence[..., EVIDENCE.first], signs[:, 0])
    for shot in range(len(evidence)):
        there = np.isfinite(found.energies[shot])
        by_energy = np.exp(found.energies[shot, 0] - found.energies[shot, there])
        by_weight = np.exp(found.weights[shot, there].min() - found.weights[shot, there].astype(float))
        columns = (EVIDENCE.votes, found.votes[shot, there]), (EVIDENCE.energy, by_energy), (EVIDENCE.weight, by_weight)
        for column, shares in columns:
            mean = shares @ signs[shot, there] / shares.sum()
            np.testing.assert_allclose(evidence[shot, :, column], mean, atol=1e-5)


def test_a_candidates_score_is_its_free_energy_and_what_the_network_says_of_its_outputs(
    random_judge: Path, case: Case
) -> None:
    decoder = judge_of(random_judge, experiment(), backend="eager")
    log_odds = decoder.backend.log_odds(case.events, case.beliefs)
    model = NeuralDecoder.load(experiment(), weights=random_judge).model
    with torch.inference_mode():
        expected = model(*as_tensors(case.events, case.beliefs, torch.device("cpu")), basis=0)
    np.testing.assert_allclose(log_odds, expected, atol=1e-5)
    judged, k = decoder.judged(case, log_odds), decoder.geometry.code.k
    for shot, candidate in np.argwhere(np.isfinite(case.candidates.energies)):
        learned = log_odds[shot][case.flipped[shot, candidate]].astype(float).sum() * k / log_odds.shape[1]
        score = -case.candidates.energies[shot, candidate] / decoder.doubt.temperature + learned
        assert -judged[shot, candidate] / decoder.doubt.temperature == pytest.approx(score)


@pytest.mark.parametrize("basis", ["Z", "X"])
def test_a_judge_changes_answers_of_disagreeing_shots_alone(basis: str, random_judge: Path) -> None:
    made = experiment(basis=basis)
    events, _ = shots_of(made, 300)
    decoder, serial = NeuralDecoder.load(made, weights=random_judge), make_decoder("serial", made)
    assert decoder.judged is not None
    assert isinstance(serial, SerialDecoder)
    decoded, without = decoder.decode_soft(events), serial.decode_soft(events)
    shown, _ = decoder.judged.disagreeing(events)
    differs = (decoded.predictions != without.predictions).any(axis=1)
    assert 0 < differs.sum() < len(shown) < 150
    assert set(np.flatnonzero(differs)) <= set(shown)
    others = np.setdiff1d(np.arange(len(events)), shown)
    np.testing.assert_array_equal(decoded.confidence[others], without.confidence[others])
    assert decoded.confidence[shown].mean() < decoded.confidence[others].mean() - 0.1


EXPERIMENTS = [
    {},
    {"basis": "X", "noise": "si1000"},
    {"rounds": 1},
    {"rounds": 3, "noiseless_last_cycle": True},
    {"basis": "X", "rounds": 2, "detectors": "XZ"},
    {"code": "bb90", "rounds": 2},
    {"code": "6,6,x^3+y+y^2,y^3+x^2+x", "rounds": 2},
]


@pytest.mark.parametrize("options", EXPERIMENTS, ids=lambda options: "-".join(map(str, options.values())) or "bb72")
def test_a_judge_whose_readout_is_zero_answers_as_serial_does(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is learned is added to what is right without it: so training begins at `serial`."""
    made = experiment(**options)
    weights = random_weights(tmp_path / "judge.safetensors", JUDGE)
    decoder = NeuralDecoder.load(made, weights=weights)
    assert decoder.judged is not None
    log_odds = decoder.backend.log_odds
    monkeypatch.setattr(decoder.backend, "log_odds", lambda *given: 0 * log_odds(*given))
    events, _ = shots_of(made, 80)
    expected = make_decoder("serial", made).decode_soft(events)  # type: ignore[attr-defined]
    found = decoder.decode_soft(events)
    for field in Decoding.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


@pytest.mark.parametrize("threads", [1, 2])
def test_answers_are_the_same_bits_alone_and_in_company(threads: int, random_judge: Path) -> None:
    decoder = NeuralDecoder.load(experiment(basis="X"), weights=random_judge)
    events, _ = shots_of(experiment(basis="X"), 60)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = decoder.decode_soft(events)
        alone = [decoder.decode_soft(shot[None]) for shot in events]
    finally:
        torch.set_num_threads(before)
    for field in Decoding.__dataclass_fields__:
        one_by_one = np.concatenate([getattr(decoding, field) for decoding in alone])
        np.testing.assert_array_equal(one_by_one, getattr(together, field))


def test_circuits_with_other_faults_are_refused_in_one_line(random_judge: Path) -> None:
    """The same detectors, but a mechanism between two checks that no fault of the cycle connects."""
    made = experiment(rounds=2)
    decoder = judge_of(random_judge, made)
    dem = str(made.dem).replace("error(", "error(0.001) D0 D40\nerror(", 1)
    with pytest.raises(ValueError, match=r"the network does not apply to dem: .*decode with serial"):
        make_decoder("neural", stim.DetectorErrorModel(dem))
    with pytest.raises(ValueError, match=r"the network does not apply to this circuit.*decode with serial"):
        CandidateDecoder(FaultModel.from_dem(stim.DetectorErrorModel(dem)), made.grid, decoder.geometry, candidates=8)
