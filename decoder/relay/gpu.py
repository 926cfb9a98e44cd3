"""`decoder.relay` in torch, for GPUs: all shots take all looks, and keep what they had when they were done.

How many are left would have to be asked of the device, which is what must not be waited for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoder.relay.graph import FaultGraph, FaultGraphs, Floats
from decoder.relay.rules import NUM_STRENGTHS, Answers, Rules


class Side(NamedTuple):
    """Where the iterations of B shots stand on one check type's graph of V faults and E edges."""

    odds: Tensor
    """(V, B): log-odds against each fault."""
    prior: Tensor
    """(V, B): the same before these checks are looked at."""
    messages: Tensor
    """(E, B): from the checks."""


class TorchGraph(nn.Module):
    """A `FaultGraph` as tables on a device."""

    prior: Tensor
    alone: Tensor
    fault: Tensor
    slots: Tensor
    place: Tensor
    by_fault: Tensor
    first_edge: Tensor
    partner: Tensor
    first_partner: Tensor
    share: Tensor
    strengths: Tensor

    def __init__(self, graph: FaultGraph, strengths: Floats) -> None:
        super().__init__()
        degree, edges = np.diff(graph.start), len(graph.fault)
        place = np.arange(edges) - np.repeat(graph.start[:-1], degree)
        slots = np.full((len(degree), degree.max()), edges)  # edge `edges` is where rows are padded to
        check = np.repeat(np.arange(len(degree)), degree)
        slots[check, place] = np.arange(edges)
        by_fault = np.argsort(graph.fault, kind="stable")
        tables = {
            "prior": graph.prior[:, None],
            "alone": graph.alone[:, None],
            "fault": graph.fault,
            "slots": slots,  # (C, most edges of a check)
            "place": check * slots.shape[1] + place,  # of each edge in `slots`
            "by_fault": by_fault,
            "first_edge": np.searchsorted(graph.fault[by_fault], np.arange(len(graph.prior))),
            "partner": graph.partner,
            "first_partner": graph.first_partner[:-1],
            "share": graph.share,
            "strengths": strengths,
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.from_numpy(table), persistent=False)

    def start(self, shots: int) -> Side:
        prior = self.prior.expand(-1, shots)
        return Side(prior, prior, prior.new_zeros(len(self.fault), shots))

    def told(self, side: Side, other: Tensor, fresh: Tensor, rules: Rules) -> Side:
        """With priors from the other side's log-odds; `fresh` (B,) shots start from the old ones."""
        chances = torch.where(other < rules.far, torch.sigmoid(-other), 0.0)
        known = F.embedding_bag(self.partner, chances, self.first_partner, mode="sum", per_sample_weights=self.share)
        prior = -torch.logit((self.alone + known).clamp(rules.least_chance, rules.most_chance))
        prior = torch.where(fresh, self.prior, prior)
        return Side(torch.where(fresh, self.prior, side.odds), prior, side.messages)

    def iterate(self, side: Side, sign: Tensor, row: Tensor, rules: Rules) -> Side:
        """One iteration with signs (C, B), -1 at events, and each shot's row of strengths (B,)."""
        sent = F.pad(side.odds[self.fault] - side.messages, (0, 0, 0, 1), value=torch.inf)[self.slots]  # (C, D, B)
        negative = (sent < 0).float()
        parity = rules.scale * sign[:, None] * (1 - 2 * (negative.sum(1, keepdim=True) % 2))
        size = sent.abs()
        least, second = size.topk(2, dim=1, largest=False).values[:, :, None].unbind(1)
        back = torch.where(size <= least, second, least).clamp(max=rules.cap) * parity * (1 - 2 * negative)
        messages = back.flatten(0, 1)[self.place]
        arrived = F.embedding_bag(self.by_fault, messages, self.first_edge, mode="sum")
        strength = self.strengths[row].t()
        return Side(side.prior + strength * (side.odds - side.prior) + arrived, side.prior, messages)

    def unexplained(self, odds: Tensor, sign: Tensor) -> Tensor:
        """(C, B), 0 or 1: checks whose event is not what the likelier faults cause."""
        faults = F.pad((odds < 0).float()[self.fault], (0, 0, 0, 1))
        return (faults[self.slots].sum(1) + (1 - sign) / 2) % 2


class TorchRelay(nn.Module):
    prediction_flips: Tensor

    def __init__(self, graphs: FaultGraphs, strengths: tuple[Floats, Floats], rules: Rules) -> None:
        super().__init__()
        self.graphs, self.rules = graphs, rules
        self.memory, self.other = (TorchGraph(g, s) for g, s in zip(graphs[:2], strengths, strict=True))
        self.register_buffer("prediction_flips", torch.from_numpy(graphs.flips), persistent=False)

    def forward(self, events: Tensor) -> dict[str, Tensor]:
        """What `Answers` names, as tensors, for events float (B, 2, C), 0 or 1."""
        rules, shots = self.rules, len(events)
        signs = (1 - 2 * events).permute(1, 2, 0)
        sides = [self.memory.start(shots), self.other.start(shots)]
        answers = {
            name: torch.from_numpy(value).to(events.device)
            for name, value in Answers.empty(self.graphs, shots=shots, solutions=rules.solutions)._asdict().items()
        }
        total, leg, leg_looks = torch.zeros_like(sides[0].odds), answers["found"].clone(), answers["found"].clone()
        fresh, running = leg == 0, leg == 0
        for look in range(1, rules.looks + 1):
            odds = [side.odds for side in sides]
            row = 1 + (leg - 1) % NUM_STRENGTHS + NUM_STRENGTHS * (answers["found"] > 0)
            row = torch.where(leg == 0, 0, row)
            for s, graph in enumerate((self.memory, self.other)):
                side = graph.told(sides[s], odds[1 - s], fresh, rules)
                for _ in range(rules.iterations):
                    side = graph.iterate(side, signs[s], row, rules)
                sides[s] = side
            memory = sides[0]
            total = total + memory.odds.clamp(-rules.clip, rules.clip)
            odd = self.memory.unexplained(memory.odds, signs[0])
            solved = running & (odd.amax(0) < 0.5) & (look > 1)
            none = answers["found"] == 0
            last = running & none & (look == rules.looks)
            self._record(answers, memory, solved | last)
            answers["found"] = answers["found"] + solved
            first = solved & none
            report = (first | last)[:, None]
            answers["effort"] = torch.where(report[:, 0], float(look * rules.iterations), answers["effort"])
            for name, value in {"last": memory.odds, "mean": total / look, "unexplained": odd}.items():
                answers[name] = torch.where(report, value.t(), answers[name])
            enough = (answers["found"] == rules.solutions) | (first & (look <= rules.easy))
            running = running & ~enough
            leg_looks = leg_looks + 1
            new_leg = solved | (leg_looks == torch.where(leg == 0, rules.first_leg, rules.relay_leg))
            leg = torch.where(new_leg, leg + 1, leg)
            leg_looks, fresh = torch.where(new_leg, 0, leg_looks), solved
            sides = [Side(side.odds, side.prior, side.messages.masked_fill(new_leg, 0.0)) for side in sides]
        answers["share"] = answers["share"] / answers["found"].clamp_min(1)[:, None]
        return answers

    def _record(self, answers: dict[str, Tensor], side: Side, which: Tensor) -> None:
        """The likelier faults of these shots (B,) as their next solution."""
        faults = ((side.odds < 0) & which).float()  # (V, B)
        kinds = len(self.prediction_flips)
        flips = faults.view(-1, kinds, faults.shape[-1]).sum(0).t() @ self.prediction_flips % 2
        weights = torch.stack([(faults * self.memory.prior).sum(0), (faults * side.prior).sum(0)], dim=1)
        slot = F.one_hot(answers["found"].clamp_max(self.rules.solutions - 1), self.rules.solutions) * which[:, None]
        answers["share"] = answers["share"] + faults.t()
        answers["flips"] = answers["flips"] + slot[..., None] * flips[:, None]
        answers["weights"] = answers["weights"] + slot[..., None] * weights[:, None]


def relay_torch(
    events: npt.NDArray[np.bool_], graphs: FaultGraphs, strengths: tuple[Floats, Floats], rules: Rules
) -> Answers:
    """`cpu.relay` by way of torch, on the CPU: to compare the two."""
    answers = TorchRelay(graphs, strengths, rules)(torch.from_numpy(events).float())
    return Answers(**{name: value.numpy() for name, value in answers.items()})
