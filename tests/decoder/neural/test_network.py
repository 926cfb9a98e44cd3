import numpy as np
import torch

from decoder.neural.geometry import TorusGeometry
from decoder.neural.network import CosetVote, Phase, coset_bits, coset_number
from simulation.codes import CODES

COSETS = coset_bits(12)


def test_bit_i_of_a_cosets_number_is_the_flip_of_observable_i() -> None:
    assert COSETS.shape == (4096, 12)
    assert COSETS[0b100000000101].nonzero().squeeze(1).tolist() == [0, 2, 11]
    torch.testing.assert_close(coset_number(COSETS), torch.arange(4096))


def test_phases_of_layers() -> None:
    assert [Phase.of(t, 4) for t in range(4)] == [Phase.FIRST, Phase.MIDDLE, Phase.MIDDLE, Phase.LAST]
    assert [Phase.of(t, 2) for t in range(2)] == [Phase.FIRST, Phase.LAST]


def test_the_vote_with_certain_outputs_finds_the_coset() -> None:
    vote = CosetVote(TorusGeometry(CODES["bb72"]))
    torch.manual_seed(3)
    events = (torch.rand(7, 2, 36, 50) < 0.1).float()
    flips = (torch.rand(50, 12) < 0.5).float()
    labels = vote.labels(events, flips)
    best = vote.scores(4 * (2 * labels - 1), events).argmax(1)
    torch.testing.assert_close(COSETS[best], flips)


def test_scores_are_the_sum_of_votes() -> None:
    vote = CosetVote(TorusGeometry(CODES["bb72"]))
    torch.manual_seed(4)
    events = (torch.rand(7, 2, 36, 2) < 0.1).float()
    logits = torch.randn(2, 108)
    scores = vote.scores(logits, events)
    for coset in (0, 1, 77, 4095):
        score = (logits * vote.labels(events, COSETS[coset].repeat(2, 1))).sum(1)
        reference = (logits * vote.labels(events, torch.zeros(2, 12))).sum(1)
        np.testing.assert_allclose((scores[:, coset] - scores[:, 0]).numpy(), (score - reference).numpy(), atol=1e-3)
