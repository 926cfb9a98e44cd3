import numpy as np
import torch

from decoder.neural.beliefs import EVIDENCE, BeliefPropagation
from decoder.neural.config import ModelConfig
from decoder.neural.geometry import TorusGeometry
from decoder.neural.model import RecurrentTransformer
from decoder.training.sampler import FaultSampler
from simulation.circuits import MemoryExperiment
from simulation.codes import parse_code

LAYERS, CELLS = 4, 36


def some_events(shots: int) -> torch.Tensor:
    events = (torch.rand(LAYERS, 2, CELLS, shots, generator=torch.Generator().manual_seed(1)) < 0.04).float()
    events[0, 1] = events[-1, 1] = 0  # the other basis has no detectors there
    return events


def answers_of(propagation: BeliefPropagation, events: torch.Tensor, *, basis: int) -> dict[str, torch.Tensor]:
    """What `RelayResult` names, as tensors."""
    result = propagation.propagate(np.ascontiguousarray(events.bool().permute(3, 1, 0, 2).numpy()), basis=basis)
    return {name: torch.from_numpy(value) for name, value in result._asdict().items()}


def test_features_are_where_the_faults_are() -> None:
    propagation = BeliefPropagation(TorusGeometry(parse_code("bb72")), iterations=40, solutions=3)
    events = some_events(20)
    beliefs, answers = propagation(events, basis=0), answers_of(propagation, events, basis=0)
    kinds, columns = propagation.kinds, propagation.columns
    assert beliefs.features.shape == (LAYERS, CELLS, 20, columns.total) == (LAYERS, CELLS, 20, 3 * kinds + 3)
    for layer, kind, cell, shot in ((0, 0, 0, 0), (2, 3, 17, 5), (3, kinds - 1, 35, 19)):
        fault, feature = (layer * kinds + kind) * CELLS + cell, beliefs.features[layer, cell, shot]
        torch.testing.assert_close(feature[columns.last + kind], torch.sigmoid(-answers["last"][shot, fault]))
        torch.testing.assert_close(feature[columns.mean + kind], torch.sigmoid(-answers["mean"][shot, fault]))
        assert feature[columns.unexplained] == answers["unexplained"][shot, layer * CELLS + cell]
        assert feature[columns.share + kind] == answers["share"][shot, fault]
        torch.testing.assert_close(10 ** feature[columns.effort], answers["effort"][shot])
        torch.testing.assert_close(feature[columns.found], answers["found"][shot] / 3)


def test_evidence_is_what_the_solutions_say() -> None:
    propagation = BeliefPropagation(TorusGeometry(parse_code("bb72")), iterations=200, solutions=4)
    experiment = MemoryExperiment.create(code="bb72", basis="X", rounds=LAYERS - 1, p=0.004)
    events, _ = FaultSampler(experiment).sample(60, seed=2)
    evidence, answers = propagation(events, basis=1).evidence, answers_of(propagation, events, basis=1)
    torch.testing.assert_close(evidence[..., EVIDENCE.first], 2 * answers["flips"][:, 0] - 1)
    several = answers["found"] > 1
    assert several.sum() > 5
    assert evidence.abs().max() <= 1 + 1e-5
    for shot in several.nonzero().squeeze(1):
        count = int(answers["found"][shot])
        signs, weights = 2 * answers["flips"][shot, :count] - 1, answers["weights"][shot, :count]
        torch.testing.assert_close(evidence[shot, :, EVIDENCE.mean], signs.mean(0))
        for side, column in enumerate((EVIDENCE.by_prior, EVIDENCE.by_exchanged)):
            likelihood = torch.softmax(-weights[:, side], dim=0)
            torch.testing.assert_close(evidence[shot, :, column], likelihood @ signs, rtol=1e-4, atol=1e-4)


def test_beliefs_change_nothing_until_they_are_trained() -> None:
    torch.manual_seed(3)
    plain = RecurrentTransformer(ModelConfig(width=16, bp_iterations=0))
    informed = RecurrentTransformer(ModelConfig(width=16, bp_iterations=8))
    informed.load_state_dict(plain.state_dict(), strict=False)
    events = some_events(8)
    torch.testing.assert_close(informed(events, basis=0), plain(events, basis=0))
    informed.loss(events, torch.zeros(8, 12), basis=0).backward()
    assert informed.read_beliefs.grad is not None
    assert informed.read_beliefs.grad[0].abs().max() > 0
    assert informed.readout.trust_head.weight.grad.abs().max() > 0
