from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import decoder.neural.blue as blue
from decoder.neural.blue import BlueNetwork, cooccurrence
from decoder.neural.config import ModelConfig
from decoder.neural.decoder import NeuralDecoder
from decoder.neural.network import coset_number
from decoder.neural.weights import build_network, load_weights
from decoder.training.config import TrainingConfig
from decoder.training.log import Progress
from decoder.training.trainer import train
from simulation.bases import Basis
from simulation.circuits import MemoryExperiment
from simulation.codes import parse_code

SMALL = "3,3,x+1+y,x+1+xy^2"
TINY = TrainingConfig(
    model=ModelConfig(code=SMALL, architecture="blue", width=32, heads=2, readout_blocks=1, judges=False),
    rounds=(1, 2),
    steps=320,
    micro_batch=64,
    p_min=0.003,
    p_max=0.006,
    p_points=2,
    curriculum_shots=64,
    muon_lr=0.02,
    adam_lr=0.01,
    log_every=20,
    validate_every=0,
    validation_shots=16,
    validation_p=(0.01,),
    threads=1,
)


def network(code: str = SMALL, **settings: object) -> BlueNetwork:
    """A network in float64 whose bits are far from fair and depend on each other."""
    config = ModelConfig(code=code, architecture="blue", heads=2, judges=False, **({"width": 16} | settings))  # type: ignore[arg-type]
    torch.manual_seed(3)
    model = build_network(config).double()
    assert isinstance(model, BlueNetwork)
    with torch.no_grad():
        model.head.logit.weight *= 8
    return model


def random_events(code: str, layers: int, shots: int) -> Tensor:
    events = (torch.rand(layers, 2, parse_code(code).cells, shots) < 0.2).double()
    events[[0, -1], 1] = 0
    return events


@pytest.mark.parametrize("basis", ["Z", "X"])
def test_56_of_72_detectors_of_a_round_share_a_mechanism(basis: Basis) -> None:
    counts = cooccurrence(parse_code("bb72"), basis)
    for own in (slice(0, 36), slice(36, 72)):
        other = slice(36 - own.start, 72 - own.start)
        assert ((counts[own, own] > 0).sum(axis=1) == 25).all()
        assert ((counts[own, other] > 0).sum(axis=1) == 31).all()
    np.testing.assert_array_equal(counts, counts.T)
    assert (np.diag(counts) == 242).all()
    assert set(np.unique(counts)) == {0, 2, 4, 6, 8, 12, 22, 28, 34, 40, 46, 48, 242}


def test_counts_agree_with_a_longer_experiment_mechanism_by_mechanism() -> None:
    made = MemoryExperiment.create(code=SMALL, basis="Z", rounds=5, p=0.02)
    # Z memory: the frame is the code itself, and type 1, the Z checks, is slot 0.
    token = {d: (1 - kind) * 9 + 3 * x + y for d, (x, y, t, kind) in enumerate(made.grid.coordinates) if t == 3}
    counts = np.zeros((18, 18), dtype=int)
    for detectors, _ in made.fault_model.symptoms():
        here = [token[d] for d in detectors if d in token]
        for a in here:
            for b in here:
                counts[a, b] += 1
    np.testing.assert_array_equal(cooccurrence(parse_code(SMALL), "Z"), counts)


def test_the_bases_have_the_same_mask_but_other_counts() -> None:
    z, x = (cooccurrence(parse_code("bb72"), basis) for basis in ("Z", "X"))
    np.testing.assert_array_equal(z > 0, x > 0)
    assert (z != x).any()
    model = network("bb72")
    assert model.couplings[:, 0].exp().sum() == pytest.approx((z + x).sum() + 2 * (z == 0).sum())


def test_detectors_hear_only_those_that_share_a_mechanism() -> None:
    model = network("bb72", round_blocks=1)
    h = torch.randn(1, 72, 16, dtype=torch.float64, requires_grad=True)
    model.blocks[0](h, model.couplings[0])[0, 50].sum().backward()
    assert h.grad is not None
    heard = h.grad[0].abs().sum(1) > 0
    np.testing.assert_array_equal(heard.numpy(), cooccurrence(model.geometry.code, "Z")[50] > 0)


@pytest.mark.parametrize(("code", "shots"), [(SMALL, 50), ("bb72", 5)])
@pytest.mark.parametrize("basis", [0, 1])
@pytest.mark.parametrize("layers", [2, 5])
def test_scores_are_the_logarithms_of_probabilities(code: str, shots: int, basis: int, layers: int) -> None:
    model = network(code)
    scores = model.scores(random_events(code, layers, shots), basis=basis)
    assert scores.shape == (shots, 2**model.geometry.code.k)
    torch.testing.assert_close(scores.logsumexp(1), torch.zeros(shots).double(), atol=1e-6, rtol=0)
    assert scores.std() > 0.2


def test_teacher_forcing_gives_the_scores_of_every_coset() -> None:
    model = network()
    events = random_events(SMALL, 4, 3)
    scores, pooled = model.scores(events, basis=0), model(events, basis=0)
    for j, flips in enumerate(model.cosets.double()):
        logits = model.head(pooled, flips.expand(3, -1))
        # Written out: observable i is flipped in coset j if bit i of j is set.
        signs = torch.tensor([1.0 if j >> i & 1 else -1.0 for i in range(model.geometry.code.k)]).double()
        torch.testing.assert_close(scores[:, j], torch.log(torch.sigmoid(signs * logits)).sum(1))


def test_a_bit_depends_on_those_before_it_and_on_no_later_one() -> None:
    model = network("bb72")
    pooled, flips = model(random_events("bb72", 3, 1), basis=1), torch.zeros(1, 12).double()
    logits = model.head(pooled, flips)
    for i in range(12):
        changed = flips.clone()
        changed[0, i] = 1
        difference = (model.head(pooled, changed) - logits)[0] != 0
        assert not difference[: i + 1].any()
        assert difference[i + 1 :].all()


def test_the_loss_is_the_negative_log_likelihood_of_the_coset_for_each_bit() -> None:
    model = network("bb72")
    events, flips = random_events("bb72", 3, 6), (torch.rand(6, 12) < 0.5).double()
    joint = torch.nn.functional.cross_entropy(model.scores(events, basis=1), coset_number(flips))
    torch.testing.assert_close(model.loss(events, flips, basis=1), joint / 12)
    with pytest.raises(ValueError, match="the loss of blue is that of the coset"):
        model.loss(events, flips, basis=1, coset_weight=0.5)


def test_scores_in_chunks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    events = random_events(SMALL, 3, 7)
    whole = model.scores(events, basis=0)
    monkeypatch.setattr(blue, "SCORED_AT_ONCE", 2 * 8 * 8)  # two shots of k = 4 and 8 channels
    torch.testing.assert_close(model.scores(events, basis=0), whole)


def test_every_weight_learns_from_both_bases() -> None:
    model = network("bb72")
    events, flips = random_events("bb72", 4, 8), (torch.rand(8, 12) < 0.5).double()
    for basis in (0, 1):
        model.loss(events, flips, basis=basis).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


def test_other_codes_and_rounds() -> None:
    model = network("bb144", round_blocks=2).float()
    events = random_events("bb144", 8, 2).float()
    assert model.scores(events, basis=0).exp().sum(1).tolist() == pytest.approx([1, 1], abs=1e-4)


def test_reduced_precision_stays_close_and_normalised() -> None:
    model = network().float()
    events, flips = random_events(SMALL, 4, 16).float(), (torch.rand(16, 4) < 0.5).float()
    exact = model.loss(events, flips, basis=0)
    with torch.autocast("cpu", torch.bfloat16):
        loss, scores = model.loss(events, flips, basis=0), model.scores(events, basis=0)
    assert scores.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(scores.logsumexp(1), torch.zeros(16), atol=1e-5, rtol=0)
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Progress]]:
    reports: list[Progress] = []
    return train(TINY, out=tmp_path_factory.mktemp("blue") / "run", progress=reports.append), reports


def test_training_lowers_the_loss(trained: tuple[Path, list[Progress]]) -> None:
    weights, reports = trained
    assert reports[-1].loss < 0.6 * reports[0].loss
    model, info = load_weights(weights)
    assert isinstance(model, BlueNetwork)
    assert info.config == TINY.model


@pytest.mark.parametrize("basis", ["Z", "X"])
def test_trained_weights_decode(trained: tuple[Path, list[Progress]], basis: Basis) -> None:
    experiment = MemoryExperiment.create(code=SMALL, basis=basis, rounds=2, p=0.004)
    decoder = NeuralDecoder.load(experiment, weights=trained[0])
    shots, flips = experiment.circuit.compile_detector_sampler(seed=1).sample(2000, separate_observables=True)
    decoding = decoder.decode_soft(shots)
    assert (decoding.predictions != flips).any(axis=1).sum() < 0.8 * flips.any(axis=1).sum()
    assert ((decoding.confidence > 0) & (decoding.confidence <= 1 + 1e-6)).all()


def test_a_coset_weight_is_refused_by_training_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="coset_weight"):
        train(replace(TINY, coset_weight=1.0), out=tmp_path)
