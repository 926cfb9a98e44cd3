"""`decoder.relay` for CPUs, compiled: many shots side by side, each at its own pace.

A lane is a column of the working arrays and holds one shot. Instructions work on all lanes at once, and a lane whose
shot is done takes the next one, so shots that need hundreds of iterations do not hold up those that need four.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from decoder.relay.graph import FaultGraphs, Floats
from decoder.relay.rules import NUM_STRENGTHS, Answers, Rules

MOST_LANES = 32  # more would not fit into a core's second cache
# Not arcp nor reassoc: vectors would then be divided otherwise than single numbers, and a shot's answer would depend on
# how many are decoded with it, since long runs amplify each rounding.
FAST = {"nnan", "ninf", "nsz", "contract"}


def compiled(function: Any) -> Any:
    """The function, compiled at its first call, and kept for later processes where there is a place to write to."""
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(**options)(function)


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
    lanes = 1
    while lanes < min(len(events), MOST_LANES):
        lanes *= 2
    share = max(lanes, -(-len(events) // threads))
    pieces = [slice(first, first + share) for first in range(0, len(events), share)]

    def work(piece: slice) -> None:
        part = answers.of(piece)
        _relay(events[piece], graphs.memory, graphs.other, strengths, graphs.flips, rules, part, lanes)

    if len(pieces) <= 1:
        for piece in pieces:
            work(piece)
    else:
        with ThreadPoolExecutor(len(pieces)) as pool:
            list(pool.map(work, pieces))
    return answers


@compiled
def _relay(events, memory, other, strengths, flips, rules, answers, lanes):  # type: ignore[no-untyped-def]
    sides, one, zero = (memory, other), np.float32(1), np.float32(0)
    shots, checks = len(events), len(memory.start) - 1
    sizes = (len(memory.prior), len(other.prior))
    most = 0  # edges of a check
    for side in sides:
        for c in range(checks):
            most = max(most, side.start[c + 1] - side.start[c])

    odds = [np.zeros((size, lanes), np.float32) for size in sizes]
    arrived = [np.zeros((size, lanes), np.float32) for size in sizes]
    prior = [np.zeros((size, lanes), np.float32) for size in sizes]
    remembered = [np.zeros((size, lanes), np.float32) for size in sizes]
    chances = [np.zeros((size, lanes), np.float32) for size in sizes]
    messages = [np.zeros((len(side.fault), lanes), np.float32) for side in sides]
    sign = [np.ones((checks, lanes), np.float32) for _ in sides]  # -1 at events
    total = np.zeros((sizes[0], lanes), np.float32)
    odd = np.zeros((checks, lanes), np.float32)
    scratch = np.zeros((3 + most, lanes), np.float32)
    unexplained = np.zeros(lanes, np.float32)

    shot = np.full(lanes, -1, np.int64)
    looks = np.zeros(lanes, np.int64)
    leg = np.zeros(lanes, np.int64)
    leg_looks = np.zeros(lanes, np.int64)
    loaded = np.full(lanes, -1, np.int64)  # the row of the strengths in `remembered`
    fresh = np.ones(lanes, np.bool_)  # starts from the priors
    keep = np.zeros(lanes, np.float32)  # 0: messages of the last look do not count
    upcoming = done = 0

    while done < shots:
        for j in range(lanes):
            if shot[j] < 0 and upcoming < shots:
                shot[j], fresh[j], keep[j], looks[j], leg[j], leg_looks[j] = upcoming, True, zero, 0, 0, 0
                upcoming += 1
                for s in range(2):
                    for c in range(checks):
                        sign[s][c, j] = -one if events[shot[j], s, c] else one
            row = 0 if leg[j] == 0 else 1 + (leg[j] - 1) % NUM_STRENGTHS
            if row and answers.found[shot[j]]:
                row += NUM_STRENGTHS
            if loaded[j] != row:
                loaded[j] = row
                for s in range(2):
                    for v in range(sizes[s]):
                        remembered[s][v, j] = strengths[s][row, v]

        for s in range(2):
            _chances(odds[s], np.float32(rules.far), chances[s])
        for s in range(2):
            _exchange(sides[s], chances[1 - s], fresh, rules, prior[s], odds[s])
        for i in range(rules.iterations):
            for s in range(2):
                _iterate(
                    sides[s], sign[s], prior[s], remembered[s], keep, rules, odds[s], messages[s], arrived[s], scratch
                )
                odds[s], arrived[s] = arrived[s], odds[s]
            if i == 0:
                keep[:] = one
        _look(memory, sign[0], odds[0], odd, unexplained)

        for j in range(lanes):
            if looks[j] == 0:
                total[:, j] = 0
        clip = np.float32(rules.clip)
        for v in range(sizes[0]):
            for j in range(lanes):
                total[v, j] += min(max(odds[0][v, j], -clip), clip)
        fresh[:] = False
        for j in range(lanes):
            b = shot[j]
            if b < 0:
                continue
            looks[j] += 1
            leg_looks[j] += 1
            # Before the second look the sides have not heard of each other.
            solved = unexplained[j] == 0 and looks[j] > 1
            first = solved and answers.found[b] == 0
            if solved:
                _record(b, answers.found[b], j, memory, odds[0], prior[0], flips, answers)
                answers.found[b] += 1
            ends = looks[j] == rules.looks
            if first or (ends and answers.found[b] == 0):
                answers.effort[b] = looks[j] * rules.iterations
                for v in range(sizes[0]):
                    answers.last[b, v] = odds[0][v, j]
                    answers.mean[b, v] = total[v, j] / looks[j]
                for c in range(checks):
                    answers.unexplained[b, c] = one if odd[c, j] < 0 else zero
                if not first:
                    _record(b, 0, j, memory, odds[0], prior[0], flips, answers)
            if ends or answers.found[b] == rules.solutions or (first and looks[j] <= rules.easy):
                answers.share[b] /= max(1, answers.found[b])
                shot[j] = -1
                done += 1
            elif solved or leg_looks[j] == (rules.first_leg if leg[j] == 0 else rules.relay_leg):
                leg[j] += 1
                leg_looks[j] = 0
                keep[j] = zero
                fresh[j] = solved


@compiled
def _record(b, solution, lane, side, odds, prior, flips, answers):  # type: ignore[no-untyped-def]
    """The likelier faults of a lane as a solution of shot b."""
    kinds, outputs = flips.shape  # what a fault flips does not depend on its layer
    for v in range(len(side.prior)):
        if odds[v, lane] < 0:
            answers.share[b, v] += np.float32(1)
            answers.weights[b, solution, 0] += side.prior[v]
            answers.weights[b, solution, 1] += prior[v, lane]
            for o in range(outputs):
                answers.flips[b, solution, o] += flips[v % kinds, o]
    for o in range(outputs):
        answers.flips[b, solution, o] %= np.float32(2)


@compiled
def _chances(odds, far, chances):  # type: ignore[no-untyped-def]
    """The probabilities of faults, 0 for those with log-odds of at least `far` against them."""
    faults, lanes = odds.shape
    power = np.empty(lanes, np.float32)
    bits = power.view(np.int32)
    for v in range(faults):
        # exp(x) = 2^i 2^f with |f| <= 1/2: i goes into the exponent's bits, 2^f is its Taylor polynomial (to 3e-6).
        for j in range(lanes):
            x = min(max(odds[v, j], np.float32(-60)), np.float32(60)) * np.float32(1.44269504)
            i = np.floor(x + np.float32(0.5))
            chances[v, j] = _two_to(x - i)
            bits[j] = (np.int32(i) + np.int32(127)) << np.int32(23)
        for j in range(lanes):
            chance = np.float32(1) / (np.float32(1) + chances[v, j] * power[j])
            chances[v, j] = chance if odds[v, j] < far else np.float32(0)


@compiled
def _two_to(f):  # type: ignore[no-untyped-def]
    p = np.float32(0.0096181) + f * np.float32(0.00133336)
    p = np.float32(0.2402265) + f * (np.float32(0.0555041) + f * p)
    return np.float32(1) + f * (np.float32(0.6931472) + f * p)


@compiled
def _exchange(side, others, fresh, rules, prior, odds):  # type: ignore[no-untyped-def]
    """New priors from the other side's chances; fresh lanes start from the old ones."""
    faults, lanes = prior.shape
    ratio = np.empty(lanes, np.float32)
    bits = ratio.view(np.int32)
    mantissa = np.empty(lanes, np.float32)
    mantissa_bits = mantissa.view(np.int32)
    exponent = np.empty(lanes, np.float32)
    least, most, one = np.float32(rules.least_chance), np.float32(rules.most_chance), np.float32(1)
    for v in range(faults):
        for j in range(lanes):
            ratio[j] = side.alone[v]
        for s in range(np.uint64(side.first_partner[v]), np.uint64(side.first_partner[v + 1])):
            partner, share = np.uint64(side.partner[s]), side.share[s]
            for j in range(lanes):
                ratio[j] += share * others[partner, j]
        for j in range(lanes):
            chance = min(max(ratio[j], least), most)
            ratio[j] = (one - chance) / chance
        # log(2^e m), 1 <= m < 2: e from the exponent's bits, log m by the series of artanh around sqrt(2) (to 1e-6).
        for j in range(lanes):
            exponent[j] = np.float32((bits[j] >> np.int32(23)) - np.int32(127))
            mantissa_bits[j] = (bits[j] & np.int32(0x7FFFFF)) | np.int32(0x3F800000)
        for j in range(lanes):
            s = (mantissa[j] - np.float32(1.41421356)) / (mantissa[j] + np.float32(1.41421356))
            square = s * s
            series = one + square * (np.float32(1 / 3) + square * (np.float32(0.2) + square * np.float32(1 / 7)))
            log_odds = (exponent[j] + np.float32(0.5)) * np.float32(0.69314718) + np.float32(2) * s * series
            prior[v, j] = side.prior[v] if fresh[j] else log_odds
            odds[v, j] = side.prior[v] if fresh[j] else odds[v, j]


@compiled
def _iterate(  # type: ignore[no-untyped-def]
    side, sign, prior, remembered, keep, rules, odds, messages, arrived, scratch
):
    """One iteration: messages to the checks and back, and the new log-odds in `arrived`."""
    faults, lanes = odds.shape
    least, second, parity, sent = scratch[0], scratch[1], scratch[2], scratch[3:]
    one, cap, scale = np.float32(1), np.float32(rules.cap), np.float32(rules.scale)
    for v in range(faults):
        for j in range(lanes):
            arrived[v, j] = prior[v, j] + remembered[v, j] * (odds[v, j] - prior[v, j])
    for check in range(len(side.start) - 1):
        first = np.uint64(side.start[check])  # numba checks whether signed indices count from the end
        degree = np.uint64(side.start[check + 1]) - first
        for j in range(lanes):
            least[j] = second[j] = np.float32(1e30)
            parity[j] = scale * sign[check, j]
        for e in range(degree):
            fault = np.uint64(side.fault[first + e])
            for j in range(lanes):
                message = odds[fault, j] - keep[j] * messages[first + e, j]
                sent[e, j] = message
                size = abs(message)
                second[j] = min(second[j], max(least[j], size))
                least[j] = min(least[j], size)
                parity[j] *= one if message >= 0 else -one
        for j in range(lanes):
            second[j] = min(second[j], cap) * parity[j]
            parity[j] = min(least[j], cap) * parity[j]
        for e in range(degree):
            fault = np.uint64(side.fault[first + e])
            for j in range(lanes):
                back = second[j] if abs(sent[e, j]) <= least[j] else parity[j]
                back = back if sent[e, j] >= 0 else -back
                messages[first + e, j] = back
                arrived[fault, j] += back


@compiled
def _look(side, sign, odds, odd, unexplained):  # type: ignore[no-untyped-def]
    """How many checks of each lane the likelier faults leave unexplained; `odd` (C, lanes) is -1 at these."""
    lanes = odds.shape[1]
    one = np.float32(1)
    unexplained[:] = 0
    for check in range(len(side.start) - 1):
        for j in range(lanes):
            odd[check, j] = sign[check, j]
        for e in range(side.start[check], side.start[check + 1]):
            fault = np.uint64(side.fault[e])
            for j in range(lanes):
                odd[check, j] *= -one if odds[fault, j] < 0 else one
        for j in range(lanes):
            unexplained[j] += one if odd[check, j] < 0 else np.float32(0)
