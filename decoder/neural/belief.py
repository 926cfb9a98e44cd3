"""A bounded number of belief-propagation iterations, whose beliefs the network reads beside the detection events.

Min-sum on the memory basis's detectors (Chen and Fossorier 2002, with their normalisation), on the fault lattice of
`decoder.neural.fault_lattice`, for a whole batch at once. A first leg is plain. Shots that it leaves unexplained go on
with legs as in Relay-BP (Mueller et al., arXiv 2506.01779): each fault remembers its last log-odds with a strength of
its own, drawn once, negative for some, which breaks the symmetry that keeps plain iterations going in circles.

Nothing here is learned. Message passing follows chains of faults further than a few of the network's blocks reach,
with a small share of their arithmetic; whether its answer is to be believed is for the network to decide.

Shapes as in `decoder.neural.model`; K kinds of faults, E edges at a check (35 for weight-3 polynomials), V = T K N + 1
variables: the faults, (T, K, N) in a row, and one that never happens.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoder.neural.fault_lattice import FaultLattice
from decoder.neural.geometry import TorusGeometry
from simulation.detectors import Basis

NOMINAL_P = 0.003  # of the priors; the network learns what the beliefs mean at other error rates
SCALE = 0.8  # of min-sum messages; of 0.625, 0.8 and 1 the one with which most shots converge in 10 to 20 iterations
CLIP = 10.0  # of the log-odds that are averaged over the iterations
ABSENT = 30.0  # log-odds against a mechanism that does not exist
FIRST_LEG = (5, 5, 10, 20)  # iterations before each look at whether a shot's faults explain its events, its end
RELAY_LEG = (10, 10, 10)
MEMORY = (-0.24, 0.66)  # strengths of the relay legs' memories, uniform between these (arXiv 2506.01779)
CPU_CHUNK = 64  # shots whose messages stay in a core's cache
BASES: tuple[Basis, Basis] = ("Z", "X")

_lattice = lru_cache(maxsize=16)(FaultLattice)


class Beliefs(NamedTuple):
    features: Tensor
    """(T, N, B, 2 K + 1): the last and the mean probability of each fault, and whether the check is unsatisfied."""
    flips: Tensor
    """(B, O): the outputs that the likelier value of each fault, taken together, flips."""


class FactorGraph(NamedTuple):
    """Index tables of one basis and number of layers."""

    prior: Tensor
    """(V, 1): log-odds against each fault."""
    variable: Tensor
    """(T N, E): the fault at each edge of a check."""
    edges: Tensor
    """(V, D): the edges of each fault, (T N E) in a row, padded with the row of zeros behind them."""
    output_flips: Tensor
    """(K N, O)."""
    memory: Tensor
    """(legs, V, 1): how strongly each fault remembers, 0 in the first leg."""


class State(NamedTuple):
    """Where the iterations of B shots stand."""

    odds: Tensor
    """(V, B): log-odds against each fault."""
    messages: Tensor
    """(T N E + 1, B), from the checks; the last row is zero."""
    total: Tensor
    """(V, B): the log-odds of all iterations so far, clipped and summed."""


class MinSum(nn.Module):
    """One iteration: messages to the checks, back from them, and the new log-odds."""

    def forward(self, state: State, sign: Tensor, graph: FactorGraph, memory: Tensor) -> State:
        """`sign` is -1 at events, else 1: (T N, 1, B); `memory` (V, 1)."""
        checks, degree = graph.variable.shape
        # `embedding` and `embedding_bag` gather rows, and sum them, much faster than indexing does.
        gathered = F.embedding(graph.variable, state.odds)  # (T N, E, B)
        to_check = gathered - state.messages[:-1].view(checks, degree, -1)
        size = to_check.abs()
        own_sign = torch.where(to_check < 0, -1.0, 1.0)
        least = size.amin(1, keepdim=True)
        is_least = size == least
        second = torch.where(is_least, torch.inf, size).amin(1, keepdim=True)
        second = torch.where(torch.where(is_least, 1.0, 0.0).sum(1, keepdim=True) > 1.5, least, second)
        back = torch.where(is_least, second, least) * (SCALE * sign * own_sign.prod(1, keepdim=True)) * own_sign
        messages = torch.cat([back.view(checks * degree, -1), state.messages[-1:]])
        odds = graph.prior + memory * (state.odds - graph.prior) + F.embedding_bag(graph.edges, messages, mode="sum")
        return State(odds, messages, state.total + odds.clamp(-CLIP, CLIP))


class BeliefPropagation(nn.Module):
    def __init__(self, geometry: TorusGeometry, iterations: int) -> None:
        super().__init__()
        self.lattices = [_lattice(geometry, basis, NOMINAL_P) for basis in BASES]
        self.cells = geometry.code.cells
        self.iterations = iterations
        self.min_sum = MinSum()
        self._graphs: dict[tuple[int, int, torch.device], FactorGraph] = {}

    @property
    def num_features(self) -> int:
        return 2 * len(self.lattices[0].patterns) + 1

    @torch.no_grad()
    def forward(self, syndrome: Tensor, *, basis: int) -> Beliefs:
        """Beliefs of the faults of a memory (0: Z, 1: X) from its basis's events, float (T, N, B), 0 or 1."""
        key = basis, len(syndrome), syndrome.device
        if key not in self._graphs:
            graph = self._graph(self.lattices[basis], layers=len(syndrome))
            self._graphs[key] = FactorGraph(*(table.to(syndrome.device) for table in graph))
        graph = self._graphs[key]
        with torch.autocast(syndrome.device.type, enabled=False):
            events = syndrome.flatten(0, 1).float()
            chances, unsatisfied = self._propagate(events, graph, compact=events.device.type == "cpu")
            layers, cells, shots = syndrome.shape
            # What a fault flips does not depend on its layer, so the faults of all layers add up first.
            faults = torch.where(chances[0, :-1] > 0.5, 1.0, 0.0).view(layers, -1, shots).sum(0)  # (K N, B)
            flips = faults.t() @ graph.output_flips % 2
        chances = chances[:, :-1].view(2, layers, -1, cells, shots).transpose(0, 1).flatten(1, 2)  # (T, 2 K, N, B)
        features = torch.cat([chances, unsatisfied.view(layers, 1, cells, shots)], dim=1)
        return Beliefs(features.permute(0, 2, 3, 1), flips)

    def _propagate(self, events: Tensor, graph: FactorGraph, *, compact: bool) -> tuple[Tensor, Tensor]:
        """From events (T N, B) the last and the mean probabilities (2, V, B) and the unsatisfied checks (T N, B).

        Shots that are explained stop there. Compact, for a CPU, the others go on without them; on a GPU, where the
        number of shots left is not known without waiting, all go on to the end and keep what they had when they
        stopped.
        """
        shots = events.shape[-1]
        odds = graph.prior.expand(-1, shots).contiguous()
        state = State(odds, odds.new_zeros(graph.variable.numel() + 1, shots), torch.zeros_like(odds))
        final, unsatisfied = odds.new_zeros(2, *odds.shape), torch.zeros_like(events)
        left = torch.arange(shots, device=events.device)
        running = torch.ones_like(left, dtype=torch.bool)
        done = 0
        for leg, count, starts in self._schedule():
            if starts:
                state = state._replace(messages=torch.zeros_like(state.messages))
            chunk = min(CPU_CHUNK, shots) if compact else shots
            state = self._iterate(state, events, graph, graph.memory[leg], count, chunk=chunk)
            faults = torch.where(state.odds < 0, 1.0, 0.0)
            open_checks = (F.embedding_bag(graph.variable, faults, mode="sum") + events) % 2
            done += count
            now = torch.stack([state.odds, state.total / done])
            if compact:
                final[..., left], unsatisfied[:, left] = now, open_checks
                kept = open_checks.any(0).nonzero().squeeze(1)
                left, events = left[kept], events[:, kept]
                state = State(*(part[:, kept] for part in state))
                if not len(left):
                    break
            else:
                final = torch.where(running, now, final)
                unsatisfied = torch.where(running, open_checks, unsatisfied)
                running = running & open_checks.any(0)
        return torch.sigmoid(-final), unsatisfied

    def _schedule(self) -> list[tuple[int, int, bool]]:
        """Leg, iterations until a look at the shots, and whether a leg starts."""
        schedule, left, leg = [], self.iterations, 0
        while left > 0:
            for i, count in enumerate(RELAY_LEG if leg else FIRST_LEG):
                if left > 0:
                    schedule.append((leg, min(count, left), i == 0))
                    left -= count
            leg += 1
        return schedule

    def _iterate(
        self, state: State, events: Tensor, graph: FactorGraph, memory: Tensor, count: int, *, chunk: int
    ) -> State:
        """`count` iterations in chunks that all have the same number of shots, as compiled code wants it."""
        shots = events.shape[-1]
        missing = -shots % chunk
        if missing:
            state, events = State(*(F.pad(part, (0, missing)) for part in state)), F.pad(events, (0, missing))
        parts = []
        for first in range(0, shots, chunk):
            part = State(*(tensor[:, first : first + chunk].contiguous() for tensor in state))
            sign = (1 - 2 * events[:, None, first : first + chunk]).contiguous()
            for _ in range(count):
                part = self.min_sum(part, sign, graph, memory)
            parts.append(part)
        return State(*(torch.cat(tensors, dim=1)[:, :shots] for tensors in zip(*parts, strict=True)))

    def _graph(self, lattice: FaultLattice, *, layers: int) -> FactorGraph:
        cells, patterns = self.cells, lattice.patterns
        kinds, degree = len(patterns), sum(len(pattern) for pattern in patterns)
        priors = lattice.priors(layers)
        number = np.arange(layers * kinds * cells).reshape(layers, kinds, cells)
        nobody = number.size  # the variable that never fires
        variable = np.full((layers, cells, degree), nobody)
        edges = np.full((nobody + 1, max(map(len, patterns))), layers * cells * degree)
        edge = 0
        for kind, pattern in enumerate(patterns):
            for place, (later, displacement) in enumerate(pattern):
                check = lattice.shifted(np.arange(cells), displacement)  # what the faults of all cells flip
                for layer in np.flatnonzero(priors[:, kind]):
                    variable[layer + later, check, edge] = number[layer, kind]
                    edges[number[layer, kind], place] = ((layer + later) * cells + check) * degree + edge
                edge += 1
        with np.errstate(divide="ignore"):
            odds = np.minimum(np.log1p(-priors) - np.log(priors), ABSENT).repeat(cells)
        legs = 1 + self._schedule()[-1][0]
        memory = torch.empty(legs, nobody + 1, 1).uniform_(*MEMORY, generator=torch.Generator().manual_seed(0))
        memory[0] = memory[:, -1] = 0
        return FactorGraph(
            memory=memory,
            prior=torch.tensor(np.append(odds, ABSENT), dtype=torch.float32)[:, None],
            variable=torch.from_numpy(variable.reshape(layers * cells, degree)),
            edges=torch.from_numpy(edges),
            output_flips=torch.from_numpy(lattice.output_flips).flatten(0, 1).float(),
        )
