import numpy as np
import torch

from decoder.neural.geometry import TorusGeometry
from decoder.neural.vote import CosetVote
from simulation.codes import CODES

COSETS = ((torch.arange(4096)[:, None] >> torch.arange(12)) & 1).float()


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
