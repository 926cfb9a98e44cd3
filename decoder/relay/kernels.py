"""Relay belief propagation compiled for CPUs: one shot after the other, many checks or faults in one instruction.

So a shot takes as long as its own iterations, and its answer is the same bits whatever is decoded with it.

The words are those of Relay-BP (Mueller et al., arXiv 2506.01779) and its algorithm 1. For fault j and check i:

* the posterior M_j, log-odds against the fault given all messages, equation (3);
* the bias Lambda_j = (1 - gamma_j) Lambda_j(0) + gamma_j M_j, the prior mixed with the last posterior by the memory
  strength gamma_j, line 5;
* nu_{j->i}, the message from a fault to a check: the posterior without what this check itself has said, equation (2);
* mu_{i->j}, the message from a check to a fault, equation (1): its sign is the parity of the event and of the signs of
  the messages from all other faults, and its size the least of their sizes. Scaled by a factor, this is the normalised
  min-sum of Chen and Fossorier (IEEE Trans. Commun. 50, 406, 2002).

Here Lambda_j(0) is the prior that the last exchange with the other check type gave.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from decoder.compiled import compiled, in_pieces
from decoder.relay.graph import FaultGraphs, Floats
from decoder.relay.rules import RelayResult, Rules


def relay(
    events: npt.NDArray[np.bool_],
    graphs: FaultGraphs,
    strengths: tuple[Floats, Floats],
    rules: Rules,
    *,
    threads: int = 1,
) -> RelayResult:
    """Propagates beliefs for some shots.

    Args:
        events: bool (B, 2, C), detection events of the memory basis and of the other check type.
        graphs: the two check types' graphs.
        strengths: the memory strengths of each, as `decoder.relay.rules.strengths` gives them.
        rules: when legs begin and shots stop.
        threads: how many share the shots.
    """
    memory = graphs.memory
    faults, checks, outputs = len(memory.prior), len(memory.order), graphs.flips.shape[1]
    result = RelayResult.zeros(
        shots=len(events), faults=faults, checks=checks, outputs=outputs, solutions=rules.solutions
    )

    def work(piece: slice) -> None:
        _relay(events[piece], (memory, graphs.other), strengths, graphs.flips, rules, result.of(piece))

    in_pieces(work, shots=len(events), threads=threads)
    return result


@compiled
def _relay(events, sides, strengths, flips, rules, result):  # type: ignore[no-untyped-def]
    """All shots of a piece. `sides` are the graphs of the memory basis and of the other check type."""
    one, zero = np.float32(1), np.float32(0)
    memory, checks = sides[0], len(sides[0].order)
    # Buffers for one shot; lists have an entry a side.
    posterior = [np.zeros(len(side.prior), np.float32) for side in sides]  # M_j
    following = [np.zeros(len(side.prior), np.float32) for side in sides]  # the next M_j, of which Lambda_j comes first
    prior = [np.zeros(len(side.prior), np.float32) for side in sides]  # Lambda_j(0)
    chance = [np.zeros(len(side.prior), np.float32) for side in sides]  # the probability that the posterior stands for
    messages = [np.zeros(side.slots.shape, np.float32) for side in sides]  # mu_{i->j}, at the places of `slots`
    sent = [np.zeros(side.slots.shape, np.float32) for side in sides]  # nu_{j->i}
    sign = np.ones((2, checks), np.float32)  # -1 at events, checks as in `order`
    total = np.zeros(len(memory.prior), np.float32)
    left = np.zeros(checks, np.float32)
    by_check = np.zeros((3, checks), np.float32)
    most = max(len(sides[0].prior), len(sides[1].prior))
    scratch = np.zeros((3, most), np.float32)

    for b in range(len(events)):
        _read_events(events[b], sides, sign)
        total[:] = zero
        restart = True  # whether the next block starts from the priors of the model
        heard = zero  # 0 in a leg's first iteration, when no messages have come yet, else 1
        blocks = leg = leg_blocks = 0
        while True:
            # 1. Priors: those of the model, or those that the other side's posteriors give.
            if restart:
                _restart(sides, prior, posterior)
            else:
                _exchange(sides, posterior, rules, chance, prior, scratch)
            # 2. A block of iterations with this leg's memory strengths.
            row = _strengths_row(leg, result.found[b], len(strengths[0]))
            for _ in range(rules.iterations):
                for s in range(2):
                    _bias(posterior[s], prior[s], strengths[s][row], following[s])
                    _check_update(sides[s], sign[s], heard, rules, posterior[s], sent[s], messages[s], by_check)
                    _fault_update(sides[s], messages[s].ravel(), following[s])
                    posterior[s], following[s] = following[s], posterior[s]
                heard = one
            # 3. Do the likelier faults explain the memory basis's events?
            unexplained = _syndrome_left(memory, sign[0], posterior[0], left)
            _add_clipped(posterior[0], np.float32(rules.mean_clip), total)
            blocks += 1
            leg_blocks += 1
            # Before the second block the sides have not heard of each other.
            solved = unexplained == 0 and blocks > 1
            first = solved and result.found[b] == 0
            if solved:
                _record(b, result.found[b], memory, posterior[0], prior[0], flips, result)
                result.found[b] += 1
            # 4. What is reported is from the first solution, or from the end.
            ends = blocks == rules.blocks
            if first or (ends and result.found[b] == 0):
                result.effort[b] = blocks * rules.iterations
                _report(b, blocks, memory, posterior[0], total, left, result)
                if not first:
                    _record(b, 0, memory, posterior[0], prior[0], flips, result)
            if ends or result.found[b] == rules.solutions or (first and blocks <= rules.settled):
                result.share[b] /= max(1, result.found[b])
                break
            # 5. The next leg starts without messages; from the last posteriors, or after a solution from the priors.
            restart = solved
            if solved or leg_blocks == (rules.first_leg if leg == 0 else rules.relay_leg):
                leg += 1
                leg_blocks = 0
                heard = zero


@compiled
def _read_events(events, sides, sign):  # type: ignore[no-untyped-def]
    """The signs of both sides' checks from a shot's events (2, C): -1 at events, checks as in `order`."""
    one = np.float32(1)
    for s in range(2):
        for c in range(sign.shape[1]):
            sign[s, c] = -one if events[s, sides[s].order[c]] else one


@compiled
def _restart(sides, prior, posterior):  # type: ignore[no-untyped-def]
    """Priors and posteriors as the model has them."""
    for s in range(2):
        prior[s][:] = sides[s].prior
        posterior[s][:] = sides[s].prior


@compiled
def _strengths_row(leg, found, rows):  # type: ignore[no-untyped-def]
    """Which row of `strengths` a leg uses: the first, then one set after the other; others after a solution."""
    sets = (rows - 1) // 2
    if leg == 0:
        return 0
    return 1 + (leg - 1) % sets + (sets if found else 0)


@compiled
def _bias(posterior, prior, strengths, bias):  # type: ignore[no-untyped-def]
    """Algorithm 1, line 5: Lambda = Lambda(0) + gamma (M - Lambda(0)), the log-odds to which messages are added."""
    for v in range(len(prior)):
        bias[v] = prior[v] + strengths[v] * (posterior[v] - prior[v])


@compiled
def _check_update(side, sign, heard, rules, posterior, sent, messages, by_check):  # type: ignore[no-untyped-def]
    """Equations (2) and (1): messages to all checks and back.

    `slots` has the first faults of all checks in its first row, the second ones in its second row, and so on, so that
    each loop below runs over checks side by side.
    """
    # Of each check so far: the least size of a message, the second least, and the scaled product of the signs.
    least, second, parity = by_check[0], by_check[1], by_check[2]
    cap, scale, huge = np.float32(rules.message_cap), np.float32(rules.scale), np.float32(1e30)
    for c in range(len(sign)):
        least[c], second[c], parity[c] = huge, huge, scale * sign[c]
    for d in range(len(side.width)):
        width = side.width[d]
        _gather(posterior, side.slots[d, :width], sent[d, :width])
        _receive(heard, messages[d, :width], sent[d, :width], least, second, parity)
    # A fault hears the least size among the others: the second least if its own is the least, else the least. From
    # here on `second` is what the faults with the least size hear, with the check's sign, and `parity` what others do.
    for c in range(len(sign)):
        second[c] = min(second[c], cap) * parity[c]
        parity[c] = min(least[c], cap) * parity[c]
    for d in range(len(side.width)):
        width = side.width[d]
        _answer(sent[d, :width], least, second, parity, messages[d, :width])


@compiled
def _gather(posterior, slots, sent):  # type: ignore[no-untyped-def]
    """The posterior of each fault in a row of `slots`."""
    for c in range(len(slots)):  # alone in its loop, since it is what keeps a loop from being done in vectors
        sent[c] = posterior[slots[c]]


@compiled
def _receive(heard, messages, sent, least, second, parity):  # type: ignore[no-untyped-def]
    """Turns a row of posteriors into messages nu_{j->i}, and keeps what their checks need to know of them."""
    one = np.float32(1)
    for c in range(len(sent)):
        message = sent[c] - heard * messages[c]  # equation (2): without what this check has said
        sent[c] = message
        size = abs(message)
        # The two least of the old two and the new one, without a branch.
        second[c] = min(second[c], max(least[c], size))
        least[c] = min(least[c], size)
        parity[c] *= one if message >= 0 else -one


@compiled
def _answer(sent, least, second, parity, messages):  # type: ignore[no-untyped-def]
    """A row of messages mu_{i->j}."""
    for c in range(len(sent)):
        back = second[c] if abs(sent[c]) <= least[c] else parity[c]
        # The check's sign has this fault's own in it; multiplied with it once more, it is gone.
        messages[c] = back if sent[c] >= 0 else -back


@compiled
def _fault_update(side, messages, posterior):  # type: ignore[no-untyped-def]
    """Equation (3): adds to the biases, in place, all messages to their faults."""
    first_edge, by_fault = side.first_edge, side.by_fault
    for v in range(len(first_edge) - 1):
        odds = posterior[v]
        for e in range(first_edge[v], first_edge[v + 1]):
            odds += messages[by_fault[e]]
        posterior[v] = odds


@compiled
def _syndrome_left(side, sign, posterior, left):  # type: ignore[no-untyped-def]
    """How many checks the hard decision leaves unexplained; `left` (C,) is -1 at these, else 1."""
    one = np.float32(1)
    for c in range(len(sign)):
        left[c] = sign[c]
    for d in range(len(side.width)):
        for c in range(side.width[d]):
            left[c] *= -one if posterior[side.slots[d, c]] < 0 else one
    unexplained = 0
    for c in range(len(sign)):
        unexplained += left[c] < 0
    return unexplained


@compiled
def _add_clipped(posterior, clip, total):  # type: ignore[no-untyped-def]
    """Adds the clipped posteriors to their sum over the blocks."""
    for v in range(len(total)):
        total[v] += min(max(posterior[v], -clip), clip)


@compiled
def _report(b, blocks, side, posterior, total, left, result):  # type: ignore[no-untyped-def]
    """The posteriors, their mean and the unexplained checks as those of shot b."""
    for v in range(len(total)):
        result.last[b, v] = posterior[v]
        result.mean[b, v] = total[v] / blocks
    for c in range(len(left)):
        result.unexplained[b, side.order[c]] = np.float32(1) if left[c] < 0 else np.float32(0)


@compiled
def _record(b, solution, side, posterior, prior, flips, result):  # type: ignore[no-untyped-def]
    """The hard decision as a solution of shot b: its faults, its weights and the outputs that it flips."""
    kinds, outputs = flips.shape  # what a fault flips does not depend on its layer
    for v in range(len(side.prior)):
        if posterior[v] < 0:
            result.share[b, v] += np.float32(1)
            result.weights[b, solution, 0] += side.prior[v]
            result.weights[b, solution, 1] += prior[v]
            for o in range(outputs):
                result.flips[b, solution, o] += flips[v % kinds, o]
    for o in range(outputs):
        result.flips[b, solution, o] %= np.float32(2)


@compiled
def _exchange(sides, posterior, rules, chance, prior, scratch):  # type: ignore[no-untyped-def]
    """New priors of each side's faults from the posteriors of the other side's."""
    for s in range(2):
        _chances(posterior[s], np.float32(rules.impossible), chance[s], scratch)
    for s in range(2):
        _priors_from(sides[s], chance[1 - s], rules, prior[s], scratch)


@compiled
def _chances(posterior, impossible, chance, scratch):  # type: ignore[no-untyped-def]
    """The probabilities 1 / (1 + e^M) of faults, 0 for those with log-odds of at least `impossible` against them."""
    faults = len(chance)
    power = scratch[0, :faults]
    bits = power.view(np.int32)
    # e^x = 2^i 2^f with |f| <= 1/2: i goes into the exponent's bits, 2^f is its Taylor polynomial (to 3e-6).
    for v in range(faults):
        x = min(max(posterior[v], np.float32(-60)), np.float32(60)) * np.float32(1.44269504)  # 1 / ln 2
        i = np.floor(x + np.float32(0.5))
        chance[v] = _two_to(x - i)
        bits[v] = (np.int32(i) + np.int32(127)) << np.int32(23)
    for v in range(faults):
        likely = np.float32(1) / (np.float32(1) + chance[v] * power[v])
        chance[v] = likely if posterior[v] < impossible else np.float32(0)


@compiled
def _two_to(f):  # type: ignore[no-untyped-def]
    """2^f for |f| <= 1/2: the sum of (f ln 2)^n / n! up to n = 5."""
    p = np.float32(0.0096181) + f * np.float32(0.00133336)
    p = np.float32(0.2402265) + f * (np.float32(0.0555041) + f * p)
    return np.float32(1) + f * (np.float32(0.6931472) + f * p)


@compiled
def _priors_from(side, others, rules, prior, scratch):  # type: ignore[no-untyped-def]
    """New priors of one side's faults from the probabilities of the other side's.

    A fault is caused by mechanisms that the other side does not see, with the probability `alone`, or by one that it
    shares with a partner there: the partner's probability times the share that this mechanism has of it.
    """
    faults = len(prior)
    ratio, mantissa, exponent = scratch[0, :faults], scratch[1, :faults], scratch[2, :faults]
    bits, mantissa_bits = ratio.view(np.int32), mantissa.view(np.int32)
    least, most, one = np.float32(rules.least_prior), np.float32(rules.most_prior), np.float32(1)
    for v in range(faults):
        known = side.alone[v]
        for s in range(np.uint64(side.first_partner[v]), np.uint64(side.first_partner[v + 1])):
            known += side.share[s] * others[np.uint64(side.partner[s])]
        ratio[v] = known
    # Log-odds ln((1 - p) / p).
    for v in range(faults):
        p = min(max(ratio[v], least), most)
        ratio[v] = (one - p) / p
    # ln(2^e m), 1 <= m < 2: e from the exponent's bits, ln m by the series of artanh around sqrt(2) (to 1e-6).
    for v in range(faults):
        exponent[v] = np.float32((bits[v] >> np.int32(23)) - np.int32(127))
        mantissa_bits[v] = (bits[v] & np.int32(0x7FFFFF)) | np.int32(0x3F800000)
    for v in range(faults):
        s = (mantissa[v] - np.float32(1.41421356)) / (mantissa[v] + np.float32(1.41421356))
        square = s * s
        series = one + square * (np.float32(1 / 3) + square * (np.float32(0.2) + square * np.float32(1 / 7)))
        prior[v] = (exponent[v] + np.float32(0.5)) * np.float32(0.69314718) + np.float32(2) * s * series
