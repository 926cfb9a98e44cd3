"""Shots that are stored for judges: made once, seen in training as in decoding, and counted."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from decoder.neural.backends.eager import EagerBackend
from decoder.neural.calibration import Calibration
from decoder.neural.config import ModelConfig
from decoder.neural.decoder import NeuralDecoder
from decoder.neural.judge import CandidateDecoder
from decoder.neural.network import Network
from decoder.neural.weights import load_weights, read_safetensors
from decoder.training import store as store_module
from decoder.training.comparison import Comparison, HeldOut
from decoder.training.config import TrainingConfig
from decoder.training.store import Point, Shots, ShotStore
from decoder.training.stored import Bench, StoredShots, sharing
from decoder.training.trainer import LOG, STORE, WEIGHTS, Trainer, train
from tests.decoder.neural.networks import JUDGE, random_weights

POINT = Point(code="bb72", basis="Z", rounds=2, p=0.012, seed=5)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard ends with its first chunk."""
    monkeypatch.setattr(store_module, "ENOUGH", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that all tests of this file fill."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def shots(folder: Path) -> Shots:
    return ShotStore(folder, candidates=8).shots(POINT, wanted=1)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_shots_are_made_once_and_go_on_where_they_ended(
    folder: Path, shots: Shots, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(shots.truth) > 10
    more = ShotStore(folder, candidates=8).shots(POINT, wanted=len(shots.truth) + 1)
    assert len(more.truth) > len(shots.truth)
    np.testing.assert_array_equal(more.events[: len(shots.truth)], shots.events)

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(CandidateDecoder, "disagreeing", refuse)
    again = ShotStore(folder, candidates=8).shots(POINT, wanted=len(more.truth))
    np.testing.assert_array_equal(again.candidates.energies, more.candidates.energies)
    first = shards(folder)[0]
    header, _ = read_safetensors(first)
    assert Point(**{name: header[name] for name in asdict(POINT)}) == POINT
    assert (header["first"], header["drawn"] > 0, header["rules"]["quorum"]) == (0, True, 4)
    for change in ({"seed": 6}, {"p": 0.013}):
        with pytest.raises(AssertionError, match="decoded again"):
            ShotStore(folder, candidates=8).shots(replace(POINT, **change), wanted=1)
    monkeypatch.setattr(store_module, "engine", lambda: 64 * "0")  # another belief propagation
    with pytest.raises(AssertionError, match="decoded again"):
        ShotStore(folder, candidates=8).shots(POINT, wanted=1)


def test_a_broken_shard_is_named(tmp_path: Path, folder: Path, shots: Shots) -> None:
    whole = shards(folder)[0]
    copy = tmp_path / whole.parent.name / whole.name
    copy.parent.mkdir()
    copy.write_bytes(whole.read_bytes()[:-8])
    with pytest.raises(ValueError, match=whole.name):
        ShotStore(tmp_path, candidates=8).shots(POINT, wanted=1)


def test_a_point_without_doubt_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MOST_CHUNKS", 1)
    with pytest.raises(ValueError, match=r"of 1024 shots of bb72 at p=1e-05.*choose a higher p"):
        ShotStore(tmp_path, candidates=8).shots(replace(POINT, p=1e-5), wanted=1)


def test_training_sees_what_decoding_sees(tmp_path: Path, shots: Shots) -> None:
    """A judge's opinions of stored shots are those of the decoder, whose free energies they change, of shots that it
    takes as they are: the store does not turn them to where their events choose."""
    weights = random_weights(tmp_path / "judge.safetensors", JUDGE)
    judged = NeuralDecoder.load(POINT.experiment, weights=weights).judged
    assert judged is not None
    judged.frame = None
    network, _ = load_weights(weights)
    judged.backend = EagerBackend(network, basis=0, calibration=Calibration(), device=torch.device("cpu"))
    bench = Bench.of([POINT], shots, candidates=8)
    every = np.arange(len(shots.truth))
    case = bench.case(every)
    events = np.unpackbits(shots.events, axis=1, count=POINT.experiment.num_detectors, bitorder="little").view(np.bool_)
    differ, direct = judged.disagreeing(events)
    np.testing.assert_array_equal(differ, every)
    for ours, theirs in zip((case.events, *case.beliefs), (direct.events, *direct.beliefs), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    with torch.no_grad():
        learned, given = bench.opinions(network, every, device=torch.device("cpu"))
    energies = judged.compared(events, judged.propagate(events, keep_faults=True))
    found = np.take_along_axis(energies, case.candidates.solution, axis=1)
    scores = (learned + given).numpy()
    there = np.isfinite(found)
    np.testing.assert_array_equal(there, np.isfinite(scores))
    expected = (found[:, :1] - found) / judged.doubt.temperature
    np.testing.assert_allclose((scores - scores[:, :1])[there], expected[there], atol=2e-4)
    assert np.abs(learned.numpy()[there]).max() > 0.1


def test_one_set_of_weights_serves_several_codes(tmp_path: Path) -> None:
    path = random_weights(tmp_path / "judge.safetensors", JUDGE)
    network, _ = load_weights(path)
    networks = sharing(network, ["bb72", "bb90"])
    assert list(networks) == ["bb72", "bb90"]
    loaded, _ = load_weights(path, code="bb90")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 0.5
    for (name, parameter), expected in zip(networks["bb90"].named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(parameter, 0.5 * expected), name


CONFIG = TrainingConfig(
    model=replace(JUDGE, readout_blocks=1),
    rounds=(POINT.rounds,),
    steps=2,
    micro_batch=24,
    p_min=POINT.p,
    p_max=POINT.p,
    p_points=1,
    seed=POINT.seed,
    stored_shots=1,
    validation_shots=1,
    validation_p=(POINT.p,),
    log_every=5,
    validate_every=0,
    threads=1,
)


def losses(trainer: Trainer, model: Network) -> list[float]:
    """Of all shots that are trained on, by code: the mean negative log-likelihood of the true coset."""
    assert isinstance(trainer.shots, StoredShots)
    networks, found = sharing(model, ["bb90"]), []
    for network, [bench] in zip(networks.values(), trainer.shots.benches, strict=True):
        with torch.no_grad():
            learned, given = bench.opinions(network, np.arange(len(bench.shots.truth)), device=trainer.device)
        right = torch.from_numpy(bench.shots.right)
        found.append(-torch.log_softmax(learned + given, dim=1)[right].mean().item())
    return found


def test_a_judge_learns_from_stored_shots_of_two_codes(tmp_path: Path, folder: Path) -> None:
    told: list[float] = []
    config = replace(
        CONFIG,
        bases="Z",
        others=("bb90 2 0.012 0.012",),
        store=str(folder),
        steps=30,
        micro_batch=64,
        muon_lr=0.01,
        adam_lr=0.005,
        warmup_steps=5,
        ema_decay=0.8,
    )
    trainer = Trainer(config, out=tmp_path / "run", preparing=lambda what, fraction: told.append(fraction))
    before = losses(trainer, trainer.model)
    weights = trainer.run(None)
    assert told[-1] == 1
    assert all(0 < fraction <= 1 for fraction in told)
    for first, last in zip(before, losses(trainer, trainer.state.average), strict=True):
        assert last < 0.95 * first
    network, info = load_weights(weights, code="bb90")
    assert (network.config.code, info.codes, info.rounds) == ("bb90", ("bb72", "bb90"), (2,))
    found = {name: Comparison(**counts) for name, counts in info.provenance["validation"].items()}
    assert set(found) == {"bb72 Z 2 0.012", "bb90 Z 2 0.012"}
    for name, comparison in found.items():
        assert comparison.judge - comparison.free_energy == comparison.judge_alone - comparison.free_energy_alone
        assert comparison.none_right <= min(comparison.judge, comparison.free_energy, comparison.votes)
        assert f"{name}: judge {comparison.judge}, free energy" in (tmp_path / "run" / LOG).read_text()
    assert not (tmp_path / "run" / STORE).exists()


def test_an_untrained_judge_is_the_free_energy(tmp_path: Path, folder: Path) -> None:
    config = replace(CONFIG, bases="Z", store=str(folder), steps=1, muon_lr=1e-12, adam_lr=1e-12)
    _, info = load_weights(train(config, out=tmp_path))
    [counts] = info.provenance["validation"].values()
    comparison = Comparison(**counts)
    # Only cosets with the same free energy, as nearly as single precision tells, are a tie that anything may break.
    [bench] = HeldOut(config, folder).benches.values()
    best, second = np.sort(bench.shots.candidates.energies, axis=1)[:, :2].T
    ties = np.count_nonzero(second - best < 1e-5)
    assert ties < len(best) / 10
    assert comparison.judge_alone + comparison.free_energy_alone <= ties
    assert comparison.judge_loss == pytest.approx(comparison.free_energy_loss, rel=1e-6)
    assert comparison.p_value == 1
    assert sorted(p.name for p in tmp_path.glob("*.safetensors"))[-1] == WEIGHTS


def test_a_comparison_says_how_sure_it_is() -> None:
    comparison = Comparison(
        shots=1000,
        none_right=10,
        judge=80,
        free_energy=100,
        votes=150,
        judge_alone=10,
        free_energy_alone=30,
        judge_loss=0.2,
        free_energy_loss=0.25,
    )
    change, low, high = comparison.difference
    assert (change, round(low), round(high)) == (-20, -32, -8)
    assert comparison.p_value == pytest.approx(0.0022, abs=1e-4)
    assert str(comparison) == (
        "judge 80, free energy 100, votes 150 of 1000 (-20; 95 %: -32 to -8; p 0.0022; nats 0.2000, 0.2500)"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"others": ("bb90",)}, "CODE ROUNDS P_MIN P_MAX"),
        ({"others": ("bb90 10 0.6 0.7",)}, "CODE ROUNDS P_MIN P_MAX"),
        ({"others": ("bb90 0 0.005 0.006",)}, "CODE ROUNDS P_MIN P_MAX"),
        ({"others": ("bb90 10 0.005 0.006",), "model": ModelConfig(judges=False)}, "judges alone"),
        ({"coset_weight": 0.1}, "a judge"),
        ({"hard_share": 0.5}, "a judge"),
        ({"stored_shots": 0}, "stored_shots"),
    ],
    ids=["words", "p", "rounds", "alone", "coset_weight", "hard_share", "stored_shots"],
)
def test_impossible_settings_of_judges(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)  # type: ignore[arg-type]
