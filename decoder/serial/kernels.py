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
and of its links. See `tell`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder.compiled import compiled, in_pieces
from decoder.serial.graph import FAR, LEAST_PRIOR, MOST_PRIOR, Floats, JointGraph
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
    speaks: npt.NDArray[np.bool_]
    """(V,): whether the fault tells its partners anything."""
    hearers: npt.NDArray[np.int32]
    """(2 K,): room for the faults that were told something."""
    messages: Floats
    """(slots of an order,): mu_{i->j}, as the slots of the order in use."""
    sent: Floats
    """(slots of a group,): nu_{j->i}."""
    signs: Floats
    """(G, LANES): -1 for rows with an event, of the order in use."""
    test_signs: Floats
    """(groups, LANES): the same of the rows that a solution has to explain."""

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
            speaks=np.zeros(faults, np.bool_),
            hearers=np.zeros(links, np.int32),
            messages=np.zeros(orders.most_slots, np.float32),
            sent=np.zeros(orders.widest, np.float32),
            signs=np.ones(orders.detector.shape[1:], np.float32),
            test_signs=np.ones(test.detector.shape[1:], np.float32),
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
    heard = False  # whether the sides have heard of each other since the priors of the model
    solved = True  # by the last leg, or no leg yet
    for leg in range(rules.legs):
        # 1. A leg begins with the priors of the model, or, if the one before it found nothing, with the beliefs of that
        # one, but without its messages.
        gamma = strengths[0 if leg == 0 else 1 + (leg - 1) % (len(strengths) - 1)]
        if solved:
            restart(graph, beliefs)
            heard = False
        else:
            _carry_on(gamma, beliefs)
        beliefs.messages[:] = np.float32(0)
        order = leg % len(orders.groups)
        read_events(events, orders, order, beliefs.signs)
        # 2. Passes, until the likelier faults explain the memory basis's events.
        solved = False
        for turn in range(min(rules.first_leg if leg == 0 else rules.leg, rules.passes - passes)):
            if turn > 0:
                _exchange(graph, not heard, beliefs)
                heard = True
                _remember(gamma, beliefs)
            visit_all(orders, order, rules, beliefs)
            passes += 1
            # After the first pass the sides have not heard of each other.
            if turn > 0 and explained(schedule.test, beliefs):
                solved = True
                break
        # 3. What was found, and whether it is enough.
        if solved:
            _record(b, result.found[b], passes, graph, beliefs, result)
            result.found[b] += 1
            if _enough(result.cosets[b], result.found[b], passes, rules):
                break
        if passes >= rules.passes:
            break
    if result.found[b] == 0:
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
    for v in range(len(beliefs.speaks)):
        if beliefs.speaks[v]:
            fall_silent(v, graph, beliefs)


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
def _record(b, n, passes, graph, beliefs, result):  # type: ignore[no-untyped-def]
    """The likelier faults as solution n of shot b."""
    posterior = beliefs.posterior
    coset, weight, informed = np.int64(0), np.float32(0), np.float32(0)
    for v in range(len(graph.flips)):
        if posterior[v] < 0:
            coset ^= graph.flips[v]
            weight += graph.prior[v]
            informed += beliefs.prior[v]
    result.cosets[b, n] = coset
    result.weights[b, n, 0], result.weights[b, n, 1] = weight, informed
    result.solved_at[b, n] = passes
    for v in range(result.faults.shape[2]):
        result.faults[b, n, v] = posterior[v] < 0


@compiled
def _exchange(graph, first, beliefs):  # type: ignore[no-untyped-def]
    """The other side tells the memory side, which tells the other one; `first` after the priors of the model."""
    memory, faults = len(graph.flips), len(graph.chance)
    tell(memory, faults, 0, memory, first, graph, beliefs)
    tell(0, memory, memory, faults, False, graph, beliefs)


@compiled
def tell(teller, tellers_end, hearer, hearers_end, first, graph, beliefs):  # type: ignore[no-untyped-def]
    """The faults of one side tell those of the other how likely their links are; the new Lambda_j(0) of the others.

    Fault b is the parity of link k and of all else: b = e_k + rest. The messages of its detectors say
    L = P(events | b = 1) / P(events | b = 0); its memory is left out, since it says nothing new. Its own part and what
    b hears along its other links say q = P(rest = 1). By Bayes the odds that the mechanism of k happened are

        p_k / (1 - p_k) * ((1 - q) L + q) / ((1 - q) + q L),

    where p_k is its prior: the sum-product message of GARI's row. Fault a at the far end adds it to what it hears from
    elsewhere; the sum stands for a parity, which it is up to products of small probabilities.

    A fault whose detectors deny it (L <= 1) tells nothing, as if its links had not happened. Nearly all faults are of
    this kind, so nearly all work is saved, and it changes hardly any answer.
    """
    posterior, bias, told, speaks = beliefs.posterior, beliefs.bias, beliefs.told, beliefs.speaks
    heard, prior, hearers = beliefs.heard, beliefs.prior, beliefs.hearers
    one, least, most = np.float32(1), np.float32(LEAST_PRIOR), np.float32(MOST_PRIOR)
    # What faults know that hear nothing.
    heard[hearer:hearers_end] = graph.own[hearer:hearers_end]
    prior[hearer:hearers_end] = graph.own_prior[hearer:hearers_end]
    count = 0
    for v in range(teller, tellers_end):
        log_odds = posterior[v] - bias[v]  # the detectors' messages alone: -ln L
        if log_odds < 0:
            likelihood = np.exp(-max(log_odds, np.float32(-60)))
            for k in range(graph.first_link[v], graph.first_link[v + 1]):
                # Before anything was heard, all is as likely as in the model.
                rest = graph.chance[v] - graph.link_odds[k] if first else heard[v] - told[k]
                rest = min(max(rest, least), np.float32(0.5))
                odds = graph.link_odds[k] * (likelihood + rest * (one - likelihood))
                chance = odds / (odds + (one + rest * (likelihood - one)))
                told[graph.back[k]] = chance
                partner = graph.partner[k]
                if heard[partner] == graph.own[partner]:
                    hearers[count] = partner
                    count += 1
                heard[partner] += chance
            speaks[v] = True
        elif speaks[v]:
            fall_silent(v, graph, beliefs)
    for n in range(count):
        v = hearers[n]
        chance = min(max(heard[v], least), most)
        prior[v] = np.log((one - chance) / chance)


@compiled
def fall_silent(v, graph, beliefs):  # type: ignore[no-untyped-def]
    """Takes back what fault v has told."""
    for k in range(graph.first_link[v], graph.first_link[v + 1]):
        beliefs.told[graph.back[k]] = np.float32(0)
    beliefs.speaks[v] = False
