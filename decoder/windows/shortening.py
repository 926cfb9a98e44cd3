"""Long experiments with fewer repetitions, in which every window of the long one has its like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt
import stim

from simulation.foreign.experiment import ForeignExperiment, Source
from simulation.foreign.layers import layer_of_detectors

Indices = npt.NDArray[np.int64]
RepeatBlock: TypeAlias = "stim.CircuitRepeatBlock | stim.DemRepeatBlock"


@dataclass(frozen=True, eq=False)
class Shortened:
    """An experiment whose longest loop is repeated just often enough.

    Everything about a window in the midst of the loop is as in any other window that begins a whole number of
    repetitions later. So the windows of the long experiment are those of this one, moved.
    """

    experiment: ForeignExperiment
    """The short one."""
    layer_of: Indices
    """(detectors of the long one,): the layer of each."""
    layer_of_short: Indices
    """(detectors of the short one,): the same there."""
    first: int
    """The windows of both that begin at most here are the same."""
    period: int
    """Layers in a repetition; 1 where nothing was left out."""
    last: int
    """The first window of the long one that is counted from the end."""

    @property
    def layers(self) -> int:
        """Of the long one."""
        return int(self.layer_of.max(initial=-1)) + 1

    def first_like(self, start: int) -> int:
        """The first layer of the long experiment at which a window begins that is as the one at a layer of it."""
        return start if start >= self.last else min(start, self.first + max(0, start - self.first) % self.period)

    def place(self, start: int) -> int:
        """Where in the short experiment the window is that begins at a layer of the long one."""
        left_out = self.layers - 1 - int(self.layer_of_short.max(initial=-1))
        return start - left_out if start >= self.last else self.first_like(start)

    def looked_at(self, used: Indices | None) -> tuple[npt.NDArray[np.bool_], ...]:
        """For each layer of the short experiment which of its detectors, ascending, are among `used`; None for all."""
        chosen = np.full(len(self.layer_of_short), used is None)
        if used is not None:
            chosen[used] = True
        return tuple(chosen[detectors] for detectors in by_layer(self.layer_of_short))


def shortened(source: Source, *, window: int, margin: int) -> Shortened:
    """Shortens an experiment, if that pays.

    Args:
        source: its circuit or its detector error model.
        window: layers in each window.
        margin: layers around a loop's ends in which what happens may depend on what comes before or after the loop.
    """
    loop = _longest_loop(source)
    if loop is not None:
        fewer = math.ceil((window + 2 * margin + 2) / loop.period) + 4
        if fewer < loop.repetitions:
            short = loop.source(fewer)
            return Shortened(
                experiment=ForeignExperiment.of(short, name="the experiment with fewer rounds"),
                layer_of=loop.layer_of(loop.repetitions),
                layer_of_short=loop.layer_of(fewer),
                first=loop.first_layer + margin,
                period=loop.period,
                last=loop.first_layer + loop.period * loop.repetitions - margin - window,
            )
    layer_of = layer_of_detectors(source)
    whole = int(layer_of.max(initial=-1)) + 1
    experiment = ForeignExperiment.of(source, name="the experiment")
    return Shortened(experiment, layer_of, layer_of, first=whole, period=1, last=whole)


@dataclass(frozen=True, eq=False)
class _Loop:
    """A loop of an experiment, and what each repetition adds."""

    before: Source
    block: RepeatBlock
    after: Source
    begins: int
    """The first detector of the loop."""
    layers_of_three: Indices
    """The layer of each detector if there are three repetitions."""
    detectors: int
    """In each repetition."""
    period: int
    """Layers in each repetition."""

    @property
    def repetitions(self) -> int:
        return _repetitions(self.block)

    @property
    def first_layer(self) -> int:
        """Of the loop."""
        return int(self.layers_of_three[self.begins : self.begins + self.detectors].min())

    def source(self, repetitions: int) -> Source:
        """The experiment with another number of repetitions."""
        return self.before + _loop(self.block, repetitions) + self.after

    def layer_of(self, repetitions: int) -> Indices:
        """The layer of each detector with so many repetitions, at least three: as the second one, but later."""
        three, second = self.layers_of_three, self.begins + self.detectors
        later = np.arange(1, repetitions - 2)[:, None] * self.period
        repeated = three[second : second + self.detectors] + later
        rest = three[second + self.detectors :] + (repetitions - 3) * self.period
        return np.concatenate([three[: second + self.detectors], repeated.ravel(), rest])


def _longest_loop(source: Source) -> _Loop | None:
    """The loop with the most repetitions, if each of them adds as many layers, and the same detectors in each."""
    index = max(range(len(source)), key=lambda i: _repetitions(source[i]), default=0)
    if not len(source) or _repetitions(source[index]) <= 4:
        return None
    before, block, after = source[:index], cast(RepeatBlock, source[index]), source[index + 1 :]
    three, four = (before + _loop(block, repetitions) + after for repetitions in (3, 4))
    layers, with_four = layer_of_detectors(three), layer_of_detectors(four)
    detectors = len(with_four) - len(layers)
    period = int(with_four.max(initial=0) - layers.max(initial=0))
    begins = before.num_detectors if isinstance(before, stim.Circuit) else _shift(before)
    loop = _Loop(before, block, after, begins, layers, detectors, period)
    if detectors == 0 or period == 0 or not np.array_equal(loop.layer_of(4), with_four):
        return None
    return loop


def _shift(model: stim.DetectorErrorModel) -> int:
    """By how much the numbers of detectors behind a model are shifted."""
    shift: int = 0
    for instruction in model:
        if isinstance(instruction, stim.DemRepeatBlock):
            shift += int(instruction.repeat_count) * _shift(instruction.body_copy())
        elif instruction.type == "shift_detectors":
            shift += int(instruction.targets_copy()[0])
    return shift


def by_layer(layer_of: Indices) -> list[Indices]:
    """The detectors of each layer, ascending."""
    order = np.argsort(layer_of, kind="stable")
    return np.split(order, np.cumsum(np.bincount(layer_of))[:-1])


def _repetitions(part: object) -> int:
    is_loop = isinstance(part, stim.CircuitRepeatBlock | stim.DemRepeatBlock)
    return int(cast(RepeatBlock, part).repeat_count) if is_loop else 0


def _loop(block: RepeatBlock, repetitions: int) -> Source:
    """The loop alone, with another number of repetitions."""
    if isinstance(block, stim.CircuitRepeatBlock):
        circuit = stim.Circuit()
        circuit.append(stim.CircuitRepeatBlock(repetitions, block.body_copy()))
        return circuit
    model = stim.DetectorErrorModel()
    model.append(stim.DemRepeatBlock(repetitions, block.body_copy()))
    return model
