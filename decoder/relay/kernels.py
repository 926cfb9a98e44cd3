"""`decoder.relay` for CPUs, compiled: one shot after the other, with instructions that work on many checks or faults.

So a shot takes as long as its own iterations, and its answer is the same bits whatever is decoded with it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from decoder.compiled import compiled, in_pieces
from decoder.relay.graph import FaultGraphs, Floats
from decoder.relay.rules import NUM_STRENGTHS, Answers, Rules


def relay(
    events: npt.NDArray[np.bool_],
    graphs: FaultGraphs,
    strengths: tuple[Floats, Floats],
    rules: Rules,
    *,
    threads: int = 1,
) -> Answers:
    """Propagates beliefs for detection events bool (B, 2, C), of the memory basis and of the other check type."""
    answers = Answers.empty(graphs, shots=len(events), solutions=rules.solutions)

    def work(piece: slice) -> None:
        part = answers.of(piece)
        _relay(events[piece], graphs.memory, graphs.other, strengths, graphs.flips, rules, part)

    in_pieces(work, shots=len(events), threads=threads)
    return answers


@compiled
def _relay(events, memory, other, strengths, flips, rules, answers):  # type: ignore[no-untyped-def]
    sides, one, zero = (memory, other), np.float32(1), np.float32(0)
    shots, checks = len(events), len(memory.start) - 1
    sizes = (len(memory.prior), len(other.prior))
    odds = [np.zeros(size, np.float32) for size in sizes]
    arrived = [np.zeros(size, np.float32) for size in sizes]
    prior = [np.zeros(size, np.float32) for size in sizes]
    chances = [np.zeros(size, np.float32) for size in sizes]
    messages = [np.zeros(side.slots.shape, np.float32) for side in sides]
    sent = [np.zeros(side.slots.shape, np.float32) for side in sides]
    sign = np.ones((2, checks), np.float32)  # -1 at events, checks as in `order`
    total = np.zeros(sizes[0], np.float32)
    odd = np.zeros(checks, np.float32)
    scratch = np.zeros((3, checks), np.float32)

    for b in range(shots):
        for s in range(2):
            for c in range(checks):
                sign[s, c] = -one if events[b, s, sides[s].order[c]] else one
        total[:] = zero
        fresh, keep = True, zero  # fresh: starts from the priors; keep 0: messages of the last look do not count
        looks = leg = leg_looks = 0
        while True:
            row = 0 if leg == 0 else 1 + (leg - 1) % NUM_STRENGTHS
            if row and answers.found[b]:
                row += NUM_STRENGTHS
            if fresh:
                for s in range(2):
                    prior[s][:] = sides[s].prior
                    odds[s][:] = sides[s].prior
            else:
                for s in range(2):
                    _chances(odds[s], np.float32(rules.far), chances[s])
                for s in range(2):
                    _exchange(sides[s], chances[1 - s], rules, prior[s])
            for _ in range(rules.iterations):
                for s in range(2):
                    _remember(odds[s], prior[s], strengths[s][row], arrived[s])
                    _check(sides[s], sign[s], keep, rules, odds[s], sent[s], messages[s], scratch)
                    _collect(sides[s].first_edge, sides[s].by_fault, messages[s].ravel(), arrived[s])
                    odds[s], arrived[s] = arrived[s], odds[s]
                keep = one
            unexplained = _look(memory, sign[0], odds[0], odd)

            clip = np.float32(rules.clip)
            for v in range(sizes[0]):
                total[v] += min(max(odds[0][v], -clip), clip)
            looks += 1
            leg_looks += 1
            # Before the second look the sides have not heard of each other.
            solved = unexplained == 0 and looks > 1
            first = solved and answers.found[b] == 0
            if solved:
                _record(b, answers.found[b], memory, odds[0], prior[0], flips, answers)
                answers.found[b] += 1
            ends = looks == rules.looks
            if first or (ends and answers.found[b] == 0):
                answers.effort[b] = looks * rules.iterations
                for v in range(sizes[0]):
                    answers.last[b, v] = odds[0][v]
                    answers.mean[b, v] = total[v] / looks
                for c in range(checks):
                    answers.unexplained[b, memory.order[c]] = one if odd[c] < 0 else zero
                if not first:
                    _record(b, 0, memory, odds[0], prior[0], flips, answers)
            if ends or answers.found[b] == rules.solutions or (first and looks <= rules.easy):
                answers.share[b] /= max(1, answers.found[b])
                break
            fresh = solved
            if solved or leg_looks == (rules.first_leg if leg == 0 else rules.relay_leg):
                leg += 1
                leg_looks = 0
                keep = zero


@compiled
def _record(b, solution, side, odds, prior, flips, answers):  # type: ignore[no-untyped-def]
    """The likelier faults as a solution of shot b."""
    kinds, outputs = flips.shape  # what a fault flips does not depend on its layer
    for v in range(len(side.prior)):
        if odds[v] < 0:
            answers.share[b, v] += np.float32(1)
            answers.weights[b, solution, 0] += side.prior[v]
            answers.weights[b, solution, 1] += prior[v]
            for o in range(outputs):
                answers.flips[b, solution, o] += flips[v % kinds, o]
    for o in range(outputs):
        answers.flips[b, solution, o] %= np.float32(2)


@compiled
def _chances(odds, far, chances):  # type: ignore[no-untyped-def]
    """The probabilities of faults, 0 for those with log-odds of at least `far` against them."""
    faults = len(chances)
    power = np.empty(faults, np.float32)
    bits = power.view(np.int32)
    # exp(x) = 2^i 2^f with |f| <= 1/2: i goes into the exponent's bits, 2^f is its Taylor polynomial (to 3e-6).
    for v in range(faults):
        x = min(max(odds[v], np.float32(-60)), np.float32(60)) * np.float32(1.44269504)
        i = np.floor(x + np.float32(0.5))
        chances[v] = _two_to(x - i)
        bits[v] = (np.int32(i) + np.int32(127)) << np.int32(23)
    for v in range(faults):
        chance = np.float32(1) / (np.float32(1) + chances[v] * power[v])
        chances[v] = chance if odds[v] < far else np.float32(0)


@compiled
def _two_to(f):  # type: ignore[no-untyped-def]
    p = np.float32(0.0096181) + f * np.float32(0.00133336)
    p = np.float32(0.2402265) + f * (np.float32(0.0555041) + f * p)
    return np.float32(1) + f * (np.float32(0.6931472) + f * p)


@compiled
def _exchange(side, others, rules, prior):  # type: ignore[no-untyped-def]
    """New priors from the other side's chances."""
    faults = len(prior)
    ratio = np.empty(faults, np.float32)
    bits = ratio.view(np.int32)
    mantissa = np.empty(faults, np.float32)
    mantissa_bits = mantissa.view(np.int32)
    exponent = np.empty(faults, np.float32)
    least, most, one = np.float32(rules.least_chance), np.float32(rules.most_chance), np.float32(1)
    for v in range(faults):
        known = side.alone[v]
        for s in range(np.uint64(side.first_partner[v]), np.uint64(side.first_partner[v + 1])):
            known += side.share[s] * others[np.uint64(side.partner[s])]
        ratio[v] = known
    for v in range(faults):
        chance = min(max(ratio[v], least), most)
        ratio[v] = (one - chance) / chance
    # log(2^e m), 1 <= m < 2: e from the exponent's bits, log m by the series of artanh around sqrt(2) (to 1e-6).
    for v in range(faults):
        exponent[v] = np.float32((bits[v] >> np.int32(23)) - np.int32(127))
        mantissa_bits[v] = (bits[v] & np.int32(0x7FFFFF)) | np.int32(0x3F800000)
    for v in range(faults):
        s = (mantissa[v] - np.float32(1.41421356)) / (mantissa[v] + np.float32(1.41421356))
        square = s * s
        series = one + square * (np.float32(1 / 3) + square * (np.float32(0.2) + square * np.float32(1 / 7)))
        prior[v] = (exponent[v] + np.float32(0.5)) * np.float32(0.69314718) + np.float32(2) * s * series


@compiled
def _remember(odds, prior, strengths, arrived):  # type: ignore[no-untyped-def]
    """The log-odds to which the messages are added."""
    for v in range(len(prior)):
        arrived[v] = prior[v] + strengths[v] * (odds[v] - prior[v])


@compiled
def _check(side, sign, keep, rules, odds, sent, messages, scratch):  # type: ignore[no-untyped-def]
    """Messages to the checks and back."""
    least, second, parity = scratch[0], scratch[1], scratch[2]
    cap, scale, most = np.float32(rules.cap), np.float32(rules.scale), np.float32(1e30)
    for c in range(len(sign)):
        least[c], second[c], parity[c] = most, most, scale * sign[c]
    for d in range(len(side.width)):
        width = side.width[d]
        _gather(odds, side.slots[d, :width], sent[d, :width])
        _receive(keep, messages[d, :width], sent[d, :width], least, second, parity)
    for c in range(len(sign)):
        second[c] = min(second[c], cap) * parity[c]
        parity[c] = min(least[c], cap) * parity[c]
    for d in range(len(side.width)):
        width = side.width[d]
        _answer(sent[d, :width], least, second, parity, messages[d, :width])


@compiled
def _gather(odds, slots, sent):  # type: ignore[no-untyped-def]
    for c in range(len(slots)):  # alone in its loop, since it is what keeps a loop from being done in vectors
        sent[c] = odds[slots[c]]


@compiled
def _receive(keep, messages, sent, least, second, parity):  # type: ignore[no-untyped-def]
    one = np.float32(1)
    for c in range(len(sent)):
        message = sent[c] - keep * messages[c]
        sent[c] = message
        size = abs(message)
        second[c] = min(second[c], max(least[c], size))
        least[c] = min(least[c], size)
        parity[c] *= one if message >= 0 else -one


@compiled
def _answer(sent, least, second, parity, messages):  # type: ignore[no-untyped-def]
    for c in range(len(sent)):
        back = second[c] if abs(sent[c]) <= least[c] else parity[c]
        messages[c] = back if sent[c] >= 0 else -back


@compiled
def _collect(first_edge, by_fault, messages, arrived):  # type: ignore[no-untyped-def]
    """Adds the messages to the log-odds of their faults."""
    for v in range(len(first_edge) - 1):
        odds = arrived[v]
        for e in range(first_edge[v], first_edge[v + 1]):
            odds += messages[by_fault[e]]
        arrived[v] = odds


@compiled
def _look(side, sign, odds, odd):  # type: ignore[no-untyped-def]
    """How many checks the likelier faults leave unexplained; `odd` (C,) is -1 at these."""
    one = np.float32(1)
    for c in range(len(sign)):
        odd[c] = sign[c]
    for d in range(len(side.width)):
        for c in range(side.width[d]):
            odd[c] *= -one if odds[side.slots[d, c]] < 0 else one
    unexplained = 0
    for c in range(len(sign)):
        unexplained += odd[c] < 0
    return unexplained
