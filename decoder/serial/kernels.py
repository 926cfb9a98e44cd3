"""Serial belief propagation compiled for CPUs: one shot after the other, sixteen rows at once.

So a shot takes as long as its own passes, and its answer is the same bits whatever is decoded with it.

The words are those of Relay-BP (Mueller et al., arXiv 2506.01779), of which this is the serial form. For fault j and
check i:

* the posterior M_j, log-odds against the fault given all messages, equation (3). Here it is always up to date: a check
  that speaks anew takes its old message out of M_j and puts the new one in (layered decoding, Hocevar, SiPS 2004);
* the bias Lambda_j = (1 - gamma_j) Lambda_j(0) + gamma_j M_j, the prior mixed with the posterior at the end of the last
  pass by the memory strength gamma_j, algorithm 1, line 5;
* nu_{j->i} = M_j - mu_{i->j}, the message from a fault to a check, equation (2);
* mu_{i->j}, the message from a check to a fault, equation (1), normalised by a factor (Chen and Fossorier, IEEE Trans.
  Commun. 50, 406, 2002).

Here Lambda_j(0) is the prior by the fault's own mechanisms and by what the other side says of its links: sum-product on
the rows which GARI (arXiv 2510.14060) adds to the graph, each of which says that a fault is the parity of its own part
and of its links. See `decoder.serial.links.tell`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder.compiled import compiled, in_pieces
from decoder.serial.graph import FAR, Floats, JointGraph
from decoder.serial.links import HEARERS, INFORMED, exchange, forget
from decoder.serial.osd import explain_by_order
from decoder.serial.rows import LANES, Rows
from decoder.serial.rules import Schedule, SerialResult, SerialRules
from decoder.serial.vectors import any_unexplained, visit_rows


class Beliefs(NamedTuple):
    """What is believed in the course of a shot: V faults, K links."""

    posterior: Floats
    """(V + 1,): M_j; the last one is that of the fault that pads rows, here and below."""
    bias: Floats
    """(V + 1,): Lambda_j."""
    prior: Floats
    """(V + 1,): Lambda_j(0)."""
    heard: Floats
    """(V,): the probability that Lambda_j(0) stands for."""
    told: Floats
    """(2 K,): along each link into a fault, the probability that its mechanism happened, by what the partner knows from
    elsewhere; 0 if the partner says nothing."""
    speakers: npt.NDArray[np.int32]
    """(V,): the faults that tell their partners anything, those of each side from the place of its first fault on."""
    hearers: npt.NDArray[np.int32]
    """(4 K,): the faults that were told something, from twice the place of the first link into the side on."""
    counts: npt.NDArray[np.int64]
    """(2, 4): how many these are on each side; see `links.SPEAKERS`."""
    messages: Floats
    """(slots of an order,): mu_{i->j}, as the slots of the order in use."""
    sent: Floats
    """(slots of a group,): nu_{j->i}."""
    signs: Floats
    """(G, LANES): -1 for rows with an event, of the order in use."""
    test_signs: Floats
    """(groups, LANES): the same of the rows that a solution has to explain."""
    faults: npt.NDArray[np.bool_]
    """(V,): those that are taken for a solution."""

    @classmethod
    def room(cls, graph: JointGraph, orders: Rows, test: Rows) -> Beliefs:
        """Buffers for one shot after the other."""
        faults, links = len(graph.chance), len(graph.partner)
        return cls(
            posterior=np.zeros(faults + 1, np.float32),
            bias=np.zeros(faults + 1, np.float32),
            prior=np.zeros(faults + 1, np.float32),
            heard=np.zeros(faults, np.float32),
            told=np.zeros(links, np.float32),
            speakers=np.zeros(faults, np.int32),
            hearers=np.zeros(2 * links, np.int32),
            counts=np.zeros((2, 4), np.int64),
            messages=np.zeros(orders.most_slots, np.float32),
            sent=np.zeros(orders.widest, np.float32),
            signs=np.ones(orders.detector.shape[1:], np.float32),
            test_signs=np.ones(test.detector.shape[1:], np.float32),
            faults=np.zeros(faults, np.bool_),
        )


def propagate(
    events: npt.NDArray[np.bool_],
    graph: JointGraph,
    schedule: Schedule,
    rules: SerialRules,
    *,
    keep_faults: bool = False,
    threads: int = 1,
) -> SerialResult:
    """Propagates beliefs for some shots.

    Args:
        events: bool (B, detectors), C-contiguous.
        graph: the two sides' linked graphs.
        schedule: orders of rows, and memory strengths.
        rules: when legs and shots end.
        keep_faults: whether the result has the faults of each solution: B S V bytes.
        threads: how many share the shots.
    """
    kept = len(graph.chance) if keep_faults else 0
    result = SerialResult.zeros(shots=len(events), solutions=rules.solutions, faults=kept)

    def work(piece: slice) -> None:
        beliefs = Beliefs.room(graph, schedule.orders, schedule.test)
        _propagate(events[piece], graph, schedule, rules, beliefs, result.of(piece))

    in_pieces(work, shots=len(events), threads=threads)
    return result


@compiled
def _propagate(events, graph, schedule, rules, beliefs, result):  # type: ignore[no-untyped-def]
    """All shots of a piece."""
    for b in range(len(events)):
        _decode(b, events[b], graph, schedule, rules, beliefs, result)


@compiled
def _decode(b, events, graph, schedule, rules, beliefs, result):  # type: ignore[no-untyped-def]
    """Shot b of the piece, leg by leg."""
    orders, strengths = schedule.orders, schedule.strengths
    read_events(events, schedule.test, 0, beliefs.test_signs)
    passes = 0
    solved = True  # by the last leg, or no leg yet
    for leg in range(rules.legs):
        # 1. A leg begins with the priors of the model, or, if the one before it found nothing, with the beliefs of that
        # one, but without its messages.
        gamma = strengths[0 if leg == 0 else 1 + (leg - 1) % (len(strengths) - 1)]
        if solved:
            restart(graph, beliefs)
        else:
            _carry_on(gamma, beliefs)
        forgets = not np.any(gamma)
        beliefs.messages[:] = np.float32(0)
        order = leg % len(orders.groups)
        read_events(events, orders, order, beliefs.signs)
        # 2. Passes, until the likelier faults explain the memory basis's events.
        solved = False
        for turn in range(min(rules.first_leg if leg == 0 else rules.leg, rules.passes - passes)):
            if turn > 0:
                informed = beliefs.counts[0, INFORMED] != 0
                exchange(graph, beliefs)
                if forgets and informed:
                    _renew_prior(graph, beliefs)
                else:
                    _remember(gamma, beliefs)
            visit_all(orders, order, rules, beliefs)
            passes += 1
            # After the first pass the sides have not heard of each other.
            if turn > 0 and explained(schedule.test, beliefs):
                solved = True
                break
        # 3. What was found, and whether it is enough.
        _likelier(beliefs)
        if solved or (rules.osd_legs and explain_by_order(events, schedule.columns, beliefs.posterior, beliefs.faults)):
            _record(b, result.found[b], passes, graph, beliefs, result)
            result.found[b] += 1
            if _enough(result.cosets[b], result.found[b], passes, rules):
                break
        if passes >= rules.passes:
            break
    if result.found[b] == 0:
        if not explain_by_order(events, schedule.columns, beliefs.posterior, beliefs.faults):
            _likelier(beliefs)
        _record(b, 0, passes, graph, beliefs, result)
    result.passes[b] = passes


@compiled
def read_events(events, rows, order, signs):  # type: ignore[no-untyped-def]
    """The signs of an order's rows (G, LANES) from a shot's events (detectors,): -1 at events."""
    one = np.float32(1)
    for g in range(rows.groups[order]):
        for lane in range(LANES):
            detector = rows.detector[order, g, lane]
            signs[g, lane] = -one if detector >= 0 and events[detector] else one


@compiled
def restart(graph, beliefs):  # type: ignore[no-untyped-def]
    """Beliefs as the model has them, and no fault that speaks to the other side."""
    beliefs.prior[:] = graph.prior
    beliefs.bias[:] = graph.prior
    beliefs.posterior[:] = graph.prior
    forget(graph, beliefs)


@compiled
def _carry_on(gamma, beliefs):  # type: ignore[no-untyped-def]
    """The bias of a leg that starts from the last one's posteriors, without any messages yet."""
    for v in range(len(gamma)):
        prior = beliefs.prior[v]
        beliefs.bias[v] = prior + gamma[v] * (beliefs.posterior[v] - prior)
        beliefs.posterior[v] = beliefs.bias[v]
    beliefs.posterior[len(gamma) - 1] = np.float32(FAR)


@compiled
def _remember(gamma, beliefs):  # type: ignore[no-untyped-def]
    """Algorithm 1, line 5: the new Lambda_j, which takes the place of the old one in M_j."""
    prior, posterior, bias = beliefs.prior, beliefs.posterior, beliefs.bias
    for v in range(len(gamma)):
        new = prior[v] + gamma[v] * (posterior[v] - prior[v])
        posterior[v] += new - bias[v]
        bias[v] = new


@compiled
def _renew_prior(graph, beliefs):  # type: ignore[no-untyped-def]
    """`_remember` where no fault has a memory: the priors of all but those who hear something are as they were."""
    prior, posterior, bias = beliefs.prior, beliefs.posterior, beliefs.bias
    for side in range(2):
        room = 2 * graph.first_link[0 if side == 0 else len(graph.flips)]
        for n in range(beliefs.counts[side, HEARERS]):
            v = beliefs.hearers[room + n]
            posterior[v] += prior[v] - bias[v]
            bias[v] = prior[v]


@compiled
def visit_all(rows, order, rules, beliefs):  # type: ignore[no-untyped-def]
    """A pass: every group of an order's rows, equations (2), (1) and (3)."""
    scale, cap = np.float32(rules.scale), np.float32(rules.message_cap)
    first = rows.start[order, 0]
    signs = beliefs.signs.ravel()
    for g in range(rows.groups[order]):
        at = rows.start[order, g]
        steps = (rows.start[order, g + 1] - at) // LANES
        group, rows_signs, said = (rows.slots, at, steps), (signs, g * LANES), (beliefs.messages, at - first)
        visit_rows(group, rows_signs, beliefs.posterior, said, beliefs.sent, scale, cap)


@compiled
def explained(test, beliefs):  # type: ignore[no-untyped-def]
    """Whether the likelier faults explain the events of all rows of `test`, whose signs are `test_signs`."""
    signs = beliefs.test_signs.ravel()
    for g in range(test.groups[0]):
        at = test.start[0, g]
        steps = (test.start[0, g + 1] - at) // LANES
        if any_unexplained((test.slots, at, steps), (signs, g * LANES), beliefs.posterior):
            return False
    return True


@compiled
def _enough(cosets, found, passes, rules):  # type: ignore[no-untyped-def]
    """Whether a shot stops: at a quorum of solutions in one coset that came easily, or at the most solutions."""
    if found >= rules.solutions:
        return True
    if found < rules.quorum or passes > rules.easy:
        return False
    agreeing = 0
    for n in range(found):
        agreeing += cosets[n] == cosets[0]
    return agreeing == found


@compiled
def _likelier(beliefs):  # type: ignore[no-untyped-def]
    """Takes the likelier faults for a solution."""
    for v in range(len(beliefs.faults)):
        beliefs.faults[v] = beliefs.posterior[v] < 0


@compiled
def _record(b, n, passes, graph, beliefs, result):  # type: ignore[no-untyped-def]
    """The faults taken as solution n of shot b."""
    coset, weight, informed = np.int64(0), np.float32(0), np.float32(0)
    for v in range(len(graph.flips)):
        if beliefs.faults[v]:
            coset ^= graph.flips[v]
            weight += graph.prior[v]
            informed += beliefs.prior[v]
    result.cosets[b, n] = coset
    result.weights[b, n, 0], result.weights[b, n, 1] = weight, informed
    result.solved_at[b, n] = passes
    for v in range(result.faults.shape[2]):
        result.faults[b, n, v] = beliefs.faults[v]
