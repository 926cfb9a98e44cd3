"""Whether the faults found for a shot explain its events.

The *surprise* of anything is -log of its probability, in nats. Events that faults have made come in groups, so that
some faults are less surprising than the events would be if detectors fired independently, each as often as it does. By
how much is what the faults explain. Where noise has more entropy than the events can have (Shannon's bound), faults can
be found for any events, and explain nothing: whether they flip the right observables is a matter of chance.

So what is explained are the log-odds of the faults against independent events, as which the events of such noise
appear. The soft output of guessing random additive noise decoding (Yuan, Medard, Galligan and Duffy, arXiv 2310.10737)
is of this kind, with events that are all equally likely.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder.serial.graph import JointFaults
from decoder.serial.rules import SerialResult
from decoder.serial.solutions.choice import filled


class Surprise(NamedTuple):
    """How surprising events and faults of the memory side are."""

    event: npt.NDArray[np.float64]
    """(detectors,): how much more surprising it is that a detector fires than that it does not; 0 on the other side."""
    silence: float
    """The surprise of no event, less that of no fault."""
    spread: float
    """The square root of the number of detectors of the memory side, as what is explained adds up over them."""

    @classmethod
    def of(cls, joint: JointFaults) -> Surprise:
        """Of the model whose graph is given."""
        memory = len(joint.graph.flips)
        chance = joint.graph.chance[:memory].astype(np.float64)
        # An odd number of independent faults: 1 - 2 P is the product of theirs.
        fires = -np.expm1(joint.checks[:, :memory] @ np.log1p(-2 * chance)) / 2
        seen = joint.memory_basis & (fires > 0)
        event = np.zeros(len(seen))
        event[seen] = np.log1p(-fires[seen]) - np.log(fires[seen])
        silence = np.log1p(-chance).sum() - np.log1p(-fires[seen]).sum()
        return cls(event, float(silence), float(np.sqrt(max(1, seen.sum()))))

    def explained(self, events: npt.NDArray[np.bool_], result: SerialResult) -> npt.NDArray[np.float64]:
        """(B,): what the lightest solution of each shot explains of its events, bool (B, detectors), in `spread`."""
        lightest = np.where(filled(result), result.weights[..., 0], np.inf).min(axis=1)
        # Row by row, and not as a product, whose bits would depend on how many shots there are.
        fired = np.where(events, self.event, 0.0).sum(axis=1)
        return np.asarray((fired + self.silence - lightest) / self.spread)
