"""Stored shots: what a judge is trained on, with one set of weights for several codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from decoder.neural.backends.events import as_tensors
from decoder.neural.geometry import NETWORK_BASES, TorusGeometry
from decoder.neural.judge import CandidateDecoder, Case
from decoder.neural.network import Network
from decoder.neural.weights import build_network
from decoder.training.config import Experiments, TrainingConfig
from decoder.training.store import Point, Shots, ShotStore
from simulation.bases import Basis
from simulation.bits import unpack_bits

Preparing = Callable[[str, float], None]
"""Called with what is being done besides training, and how much of it is done, from 0 to 1."""


@dataclass(frozen=True, eq=False)
class Bench:
    """Shots of one code, basis and number of rounds, whose solutions disagree, as a judge sees them."""

    decoder: CandidateDecoder
    """Knows the experiment; its error rate may be another one."""
    basis: int
    """As networks count them."""
    shots: Shots

    @classmethod
    def of(cls, points: Sequence[Point], shots: Shots, *, candidates: int) -> Bench:
        """The bench for shots of some points that differ in p alone."""
        experiment = points[0].experiment
        geometry = TorusGeometry(experiment.code)
        decoder = CandidateDecoder.of(experiment, geometry, candidates=candidates)
        return cls(decoder, NETWORK_BASES.index(points[0].basis), shots)

    def case(self, chosen: npt.NDArray[np.integer]) -> Case:
        """What a judge sees of some of the shots."""
        shots = self.shots.of(chosen)
        events = unpack_bits(shots.events, self.decoder.num_detectors)
        return self.decoder.shown(events, shots.whole(places=self.decoder.places.size))

    def opinions(
        self, network: Network, chosen: npt.NDArray[np.integer], *, device: torch.device, autocast: bool = False
    ) -> tuple[Tensor, Tensor]:
        """What the candidates of some shots are thought of, by a network and by their free energies alone.

        Returns:
            Floats (b, C) that are added up: the network's, and the negative free energies over the temperature of
            `decoder.serial.solutions.choice.Doubt`, -inf where there is no candidate; see
            `decoder.neural.judge.JudgedDecoder`.
        """
        case = self.case(chosen)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            log_odds = network(*as_tensors(case.events, case.beliefs, device), basis=self.basis).float()  # (b, O)
        flipped = torch.from_numpy(case.flipped).to(device).float()  # (b, C, O)
        learned = self.decoder.num_observables / log_odds.shape[1] * (log_odds[:, None] * flipped).sum(dim=2)
        energies = case.candidates.energies
        given = (energies[:, :1] - energies) / self.decoder.doubt.temperature
        return learned, torch.from_numpy(given).to(device).float()


def sharing(network: Network, codes: Sequence[str]) -> dict[str, Network]:
    """Networks for several codes that have one set of weights, those of the given one, by code."""
    networks = {network.config.code: network}
    for code in codes:
        if code not in networks:
            other = build_network(replace(network.config, code=code)).to(next(network.parameters()).device)
            for name, parameter in network.named_parameters():
                module, _, leaf = name.rpartition(".")
                setattr(other.get_submodule(module), leaf, parameter)
            networks[code] = other.train(network.training)
    return networks


def points_of(experiments: Experiments, basis: Basis, *, points: int, seed: int) -> list[Point]:
    """One point for each error rate of some experiments, evenly spaced in the logarithm."""
    rates = np.geomspace(experiments.p_min, experiments.p_max, points).tolist()
    rounded = dict.fromkeys(float(f"{p:.6g}") for p in rates)  # so that a folder's name can say it
    return [Point(code=experiments.code, basis=basis, rounds=experiments.rounds, p=p, seed=seed) for p in rounded]


class StoredShots:
    """The shots of a training run, and its loss."""

    def __init__(
        self,
        config: TrainingConfig,
        model: Network,
        folder: Path,
        *,
        rank: int = 0,
        world: int = 1,
        preparing: Preparing | None = None,
    ) -> None:
        """Makes what is missing in the store, which may take hours, and reads all of it.

        Args:
            config: of the run.
            model: the network to train.
            folder: the store.
            rank: which of so many processes this is. Each makes others first, and finds what those have made.
            world: so many.
            preparing: see `Preparing`.
        """
        self.config, self.device = config, next(model.parameters()).device
        self.networks = sharing(model, [other.code for other in config.experiments])
        store = ShotStore(folder, candidates=config.model.candidates, threads=torch.get_num_threads())
        groups = [
            points_of(experiments, basis, points=config.p_points, seed=config.seed)
            for experiments in config.experiments
            for basis in config.memory_bases
        ]
        points = [point for group in groups for point in group]
        begin = rank * len(points) // world
        wanted = -(-config.stored_shots // max(map(len, groups)))
        found = prepared(store, points[begin:] + points[:begin], wanted=wanted, preparing=preparing)
        benches = [
            Bench.of(group, _judged(Shots.joined([found[point] for point in group])), candidates=store.most)
            for group in groups
        ]
        bases = len(config.memory_bases)
        self.benches = [benches[i : i + bases] for i in range(0, len(benches), bases)]
        """Of each code one bench for each basis."""

    def loss(self, micro: int, *, step: int, shots: int) -> Tensor:
        """The cross-entropy of the true candidate in a micro-batch, a pure function of the seed, `step` and `micro`."""
        config = self.config
        # One experiment for the whole step, so that no process waits for another's longer ones; all shots count alike.
        sizes = np.array([sum(len(bench.shots.truth) for bench in benches) for benches in self.benches])
        which = int(np.random.default_rng((config.seed, step)).choice(len(sizes), p=sizes / sizes.sum()))
        bench = self.benches[which][micro % len(self.benches[which])]
        random = np.random.default_rng((config.seed, step, micro))
        size = min(config.micro_batch, len(bench.shots.truth))
        chosen = random.choice(len(bench.shots.truth), size=size, replace=False)
        network = self.networks[config.experiments[which].code]
        learned, given = bench.opinions(network, chosen, device=self.device, autocast=config.autocast)
        right = torch.from_numpy(bench.shots.of(chosen).right.argmax(axis=1)).to(self.device)
        return F.cross_entropy(learned + given, right)


def prepared(
    store: ShotStore, points: Sequence[Point], *, wanted: int, preparing: Preparing | None = None
) -> dict[Point, Shots]:
    """So many shots of each point, from a store that makes what it lacks."""
    found: dict[Point, Shots] = {}
    for number, point in enumerate(points):
        what = f"shots of {point.code} to judge: {point.basis}, {point.rounds} rounds, p = {point.p:g}"

        def tell(shots: int, number: int = number, what: str = what) -> None:
            if preparing is not None:
                made = min(shots, wanted)
                preparing(f"{what} ({made:,} of {wanted:,})", (number + made / wanted) / len(points))

        found[point] = store.shots(point, wanted=wanted, progress=tell)
    return found


def _judged(shots: Shots) -> Shots:
    """Those that a judge can learn from: one of the candidates is right."""
    return shots.of(np.flatnonzero(shots.right.any(axis=1)))
