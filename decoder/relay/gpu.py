"""`decoder.relay` in torch, for GPUs: shots take their looks together, as CUDA graphs, until half of them are done.

How many are left has to be asked of the device, and waited for; so it is not asked after each look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoder.cuda_graphs import Capture, filled_up, new_pool
from decoder.relay.graph import FaultGraph, FaultGraphs, Floats
from decoder.relay.rules import NUM_STRENGTHS, Answers, Rules

LOOKS_TOGETHER = 2  # in which most shots are done


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


@dataclass
class Live:
    """B shots that are not done yet, or have been for a few looks, which change nothing of them any more."""

    look: Tensor
    """(): looks so far."""
    shot: Tensor
    """(B,): their numbers."""
    signs: Tensor
    """(2, C, B): -1 at events, else 1."""
    memory: Side
    other: Side
    total: Tensor
    """(V, B): the sum of the memory side's clipped log-odds over the looks."""
    leg: Tensor
    """(B,)."""
    leg_looks: Tensor
    """(B,): looks since the leg started."""
    fresh: Tensor
    """(B,): whether they start from the priors."""
    running: Tensor
    """(B,)."""
    answers: dict[str, Tensor]
    """What `Answers` names, so far."""

    def by_shot(self) -> list[tuple[Tensor, int]]:
        """All that shots have, and the axis of the shots."""
        parts: list[tuple[Tensor, int]] = []

        def note(tensor: Tensor, axis: int) -> Tensor:
            parts.append((tensor, axis))
            return tensor

        self.each(note)
        return parts

    def each(self, change: Callable[[Tensor, int], Tensor]) -> Live:
        """With what a change makes of each tensor and its axis of the shots."""
        return Live(
            look=self.look,
            shot=change(self.shot, 0),
            signs=change(self.signs, 2),
            memory=Side(*(change(part, 1) for part in self.memory)),
            other=Side(*(change(part, 1) for part in self.other)),
            total=change(self.total, 1),
            leg=change(self.leg, 0),
            leg_looks=change(self.leg_looks, 0),
            fresh=change(self.fresh, 0),
            running=change(self.running, 0),
            answers={name: change(value, 0) for name, value in self.answers.items()},
        )

    def copied_from(self, other: Live) -> None:
        """Takes the place of what is here; of fewer shots, as the first ones, and the rest is done."""
        shots = len(other.shot)
        self.look.copy_(other.look)
        for (place, axis), (given, _) in zip(self.by_shot(), other.by_shot(), strict=True):
            if place is not given:
                place.narrow(axis, 0, shots).copy_(given)
        self.running[shots:] = False


class Room(NamedTuple):
    """Shots at addresses that stay."""

    live: Live
    advance: Callable[[], object]
    """Their next looks."""


class TorchRelay(nn.Module):
    prediction_flips: Tensor

    def __init__(
        self,
        graphs: FaultGraphs,
        strengths: tuple[Floats, Floats],
        rules: Rules,
        *,
        capture: Capture | None = None,
    ) -> None:
        """With `capture` looks are captured, once for every power of two of shots, and replayed."""
        super().__init__()
        self.graphs, self.rules = graphs, rules
        self.memory, self.other = (TorchGraph(g, s) for g, s in zip(graphs[:2], strengths, strict=True))
        self.register_buffer("prediction_flips", torch.from_numpy(graphs.flips), persistent=False)
        self._capture = capture
        self._rooms: dict[int, Room] = {}
        self._pool: Any = None

    @torch.no_grad()
    def forward(self, events: Tensor) -> dict[str, Tensor]:
        """What `Answers` names, as tensors, for events float (B, 2, C), 0 or 1."""
        live = self._start(events)
        answers = {name: value.clone() for name, value in live.answers.items()}
        looks = 0
        while shots := len(live.shot):
            room = self._room(live)
            room.live.copied_from(live)
            keep = live.shot
            while looks < self.rules.looks and len(keep) > filled_up(shots) // 2:
                room.advance()
                looks += LOOKS_TOGETHER
                keep = room.live.running.nonzero().squeeze(1)
            for name, value in room.live.answers.items():
                answers[name][live.shot] = value[:shots]  # of those that go on, not for the last time
            if looks >= self.rules.looks:
                break
            live = room.live.each(lambda tensor, axis, keep=keep: tensor.index_select(axis, keep))  # type: ignore[misc]
        answers["share"] /= answers["found"].clamp_min(1)[:, None]
        return answers

    def _room(self, live: Live) -> Room:
        """A room for so many shots."""
        size = filled_up(len(live.shot))
        if size not in self._rooms:
            self._rooms[size] = self._new_room(live, size)
        return self._rooms[size]

    @torch.inference_mode(False)  # so that training and decoding can share it
    @torch.no_grad()
    def _new_room(self, live: Live, size: int) -> Room:
        def empty(tensor: Tensor, axis: int) -> Tensor:
            shape = list(tensor.shape)
            shape[axis] = size
            return torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)

        room = live.each(empty)
        room.look = torch.zeros_like(room.look)
        advance: Callable[[], object] = partial(self._advance, room)
        if self._capture is not None:
            device = live.shot.device
            self._pool = self._pool or new_pool(device)
            advance = self._capture(advance, device, self._pool).replay
        return Room(room, advance)

    def _advance(self, room: Live) -> None:
        """The next looks, in place."""
        live = room.each(lambda tensor, axis: tensor)
        for _ in range(LOOKS_TOGETHER):
            self._look(live)
        room.copied_from(live)

    def _start(self, events: Tensor) -> Live:
        shots, device = len(events), events.device
        empty = Answers.empty(self.graphs, shots=shots, solutions=self.rules.solutions)
        memory, none = self.memory.start(shots), torch.zeros(shots, dtype=torch.int64, device=device)
        return Live(
            look=torch.zeros((), dtype=torch.int64, device=device),
            shot=torch.arange(shots, device=device),
            signs=(1 - 2 * events).permute(1, 2, 0),
            memory=memory,
            other=self.other.start(shots),
            total=torch.zeros_like(memory.odds),
            leg=none,
            leg_looks=none,
            fresh=none == 0,
            running=none == 0,
            answers={
                name: torch.zeros(
                    value.shape, dtype=none.dtype if name == "found" else memory.odds.dtype, device=device
                )
                for name, value in empty._asdict().items()
            },
        )

    def _look(self, live: Live) -> None:
        """The iterations of both sides until the next look, and what is seen then."""
        rules, answers = self.rules, live.answers
        live.look = look = live.look + 1
        row = 1 + (live.leg - 1) % NUM_STRENGTHS + NUM_STRENGTHS * (answers["found"] > 0)
        row = torch.where(live.leg == 0, 0, row)
        memory = self.memory.told(live.memory, live.other.odds, live.fresh, rules)
        other = self.other.told(live.other, live.memory.odds, live.fresh, rules)
        for _ in range(rules.iterations):
            memory = self.memory.iterate(memory, live.signs[0], row, rules)
            other = self.other.iterate(other, live.signs[1], row, rules)
        live.total = live.total + memory.odds.clamp(-rules.clip, rules.clip)
        odd = self.memory.unexplained(memory.odds, live.signs[0])
        # Before the second look the sides have not heard of each other.
        solved = live.running & (odd.amax(0) < 0.5) & (look > 1)
        none = answers["found"] == 0
        first, last = solved & none, live.running & none & (look == rules.looks) & ~solved
        self._record(answers, memory, solved | last)
        answers["found"] = answers["found"] + solved
        report = (first | last)[:, None]
        answers["effort"] = torch.where(report[:, 0], (look * rules.iterations).float(), answers["effort"])
        for name, value in {"last": memory.odds, "mean": live.total / look, "unexplained": odd}.items():
            answers[name] = torch.where(report, value.t(), answers[name])
        enough = (answers["found"] == rules.solutions) | (first & (look <= rules.easy)) | (look == rules.looks)
        live.running = live.running & ~enough
        live.leg_looks = live.leg_looks + 1
        new_leg = solved | (live.leg_looks == torch.where(live.leg == 0, rules.first_leg, rules.relay_leg))
        live.leg, live.leg_looks = torch.where(new_leg, live.leg + 1, live.leg), live.leg_looks * ~new_leg
        live.fresh = solved
        live.memory, live.other = (
            Side(side.odds, side.prior, side.messages.masked_fill(new_leg, 0.0)) for side in (memory, other)
        )

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
