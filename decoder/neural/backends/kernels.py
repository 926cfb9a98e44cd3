"""The network for CPUs, compiled: one shot after the other, from its layers of events to the likeliest coset.

A shot alone is too little work for a tensor library: most of its time goes into calling some two hundred operations.
Here nothing is called, and what a shot needs stays in the first caches. Its answer is the same bits whatever is
decoded with it.

One shot's state is (N, C): cells, channels. Other shapes as in `decoder.neural.model`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from decoder.compiled import compiled
from decoder.relay.graph import Floats, Integers


class Blocks(NamedTuple):
    """Some blocks one after the other; the gains of their norms are in the matrices that follow these."""

    p: Floats
    """(blocks, K, C, C): the convolution's spectrum at all frequencies, and"""
    q: Floats
    """(blocks, K - real, C, C): at the pairs."""
    up: Floats
    """(blocks, C, 2 H)."""
    down: Floats
    """(blocks, H, C)."""


class Steps(NamedTuple):
    """What a round step needs, of one memory basis."""

    keep: Floats
    """(3, 4, C): how much of the state to keep, by phase and events of a cell (none, memory, other, both)."""
    add: Floats
    """(3, 4, C): what to add to it."""
    read_beliefs: Floats
    """(F, C): F is 0 without belief propagation."""
    fourier: Floats
    """(N, N)."""
    inverse: Floats
    """(N, N): its transpose."""
    blocks: Blocks


class Reading(NamedTuple):
    """What the readout needs."""

    blocks: Blocks
    p: Floats
    """(K, C, 2 I): the spectrum of the convolution to the qubits, and"""
    q: Floats
    """(K - real, C, 2 I): at the pairs."""
    pooling: Floats
    """(O, 2 N)."""
    operator: Floats
    """(O, I)."""
    hidden: Floats
    """(I, 2 I)."""
    hidden_bias: Floats
    """(2 I,)."""
    heads: Floats
    """(2 I, 8): log-odds, then the trust in each kind of evidence, then zeros."""
    head_bias: Floats
    """(8,)."""
    checks: npt.NDArray[np.bool_]
    """(O, N): the checks in each output's operator."""
    observables: Integers
    """(O,): the observables in it, as the bits of a number."""


class Believed(NamedTuple):
    """What belief propagation says of B shots; no shots where there is none of it."""

    last: Floats
    """(B, T, kinds, N), as the next two."""
    mean: Floats
    share: Floats
    unexplained: Floats
    """(B, T, N)."""
    effort: Floats
    """(B,)."""
    found: Integers
    """(B,)."""
    flips: Floats
    """(B, S, O)."""
    weights: Floats
    """(B, S, 2)."""

    def of(self, shots: slice) -> Believed:
        """A view of some shots."""
        fields: list[Any] = [field[shots] for field in self]
        return Believed(*fields)


@compiled
def compute(events, phase, believed, steps, reading, hidden, logits):  # type: ignore[no-untyped-def]
    """Folds layers of events, bool (B, 2, T, N), and what is believed of them into states (B, N, C), and reads those.

    The phase is that of all the layers, or -1 if they are all that an experiment has. Log-odds of the outputs go to
    logits (B, O), which uses the states up; if it is (B, 0), nothing is read. This is one function since the compiler
    takes seconds for the blocks in each function that has them, and might find other roundings in each.
    """
    _, cells, width = hidden.shape
    layers, kinds = events.shape[2], believed.last.shape[2]
    scratch = _scratch(cells, width, reading.blocks.up.shape[2])
    features = np.zeros((cells, len(steps.read_beliefs)), np.float32)
    chances = np.zeros((2, kinds * cells), np.float32)
    room = _room(cells, width, reading)
    for b in range(len(hidden)):
        h = hidden[b]
        for t in range(layers + 1):
            if t < layers:
                p = phase if phase >= 0 else 0 if t == 0 else 2 if t == layers - 1 else 1
                _fold(events[b, 0, t], events[b, 1, t], p, steps, h)
                if kinds:
                    _features(believed, b, t, chances, features)
                    _multiply(features, steps.read_beliefs, h)
                _blocks(steps.blocks, steps.fourier, steps.inverse, scratch, h)
            elif logits.shape[1]:
                _blocks(reading.blocks, steps.fourier, steps.inverse, scratch, h)
                _read(h, believed, b, steps, reading, room, logits[b])


@compiled
def _room(cells, width, reading):  # type: ignore[no-untyped-def]
    """What the readout needs room for."""
    outputs, inner = reading.operator.shape
    return (
        np.zeros((cells, width), np.float32),
        np.zeros((cells, 2 * inner), np.float32),
        np.zeros((2 * cells, inner), np.float32),
        np.zeros((outputs, inner), np.float32),
        np.zeros((outputs, 2 * inner), np.float32),
        np.zeros(max(2 * cells, 2 * outputs) * inner, np.float32),
        np.zeros((outputs, reading.heads.shape[1]), np.float32),
        np.zeros((outputs, 4), np.float32),
    )


@compiled
def _read(h, believed, b, steps, reading, room, logits):  # type: ignore[no-untyped-def]
    """Log-odds (O,) from the state (N, C) after all blocks."""
    x, both, qubits, pooled, seen, powers, heads, evidence = room
    cells, inner = len(h), pooled.shape[1]
    _normalise(h, x)
    both[:] = 0
    _convolve(x, reading.p, reading.q, steps.fourier, steps.inverse, both)
    _silu(both.ravel(), powers)
    for n in range(cells):
        for i in range(inner):
            qubits[n, i] = both[n, i]
            qubits[cells + n, i] = both[n, inner + i]
    pooled[:] = reading.operator
    _multiply(reading.pooling, qubits, pooled)
    seen[:] = reading.hidden_bias
    _multiply(pooled, reading.hidden, seen)
    _silu(seen.ravel(), powers)
    heads[:] = reading.head_bias
    _multiply(seen, reading.heads, heads)
    for o in range(len(logits)):
        logits[o] = heads[o, 0]
    if len(believed.found):
        _evidence(believed, b, evidence)
        for o in range(len(logits)):
            for e in range(4):
                logits[o] += evidence[o, e] * heads[o, 1 + e]


@compiled
def vote(logits, parity, reading, scores):  # type: ignore[no-untyped-def]
    """The votes (B, 2^k) on each coset, from log-odds (B, O) and the parity of each check's events, bool (B, N).

    As `CosetVote.scores` does it, but for all cosets at once: an output is flipped under half of them, so the scores
    are half of (all votes - their Walsh-Hadamard transform over the observables).
    """
    half, zero = np.float32(0.5), np.float32(0)
    for b in range(len(logits)):
        row, total = scores[b], zero
        row[:] = zero
        for o in range(logits.shape[1]):
            odd = False
            for n in range(parity.shape[1]):
                odd ^= reading.checks[o, n] & parity[b, n]
            ballot = -logits[b, o] if odd else logits[b, o]
            row[reading.observables[o]] += ballot
            total += ballot
        size = len(row) // 2
        while size:  # the largest first, so that all but the last few steps are of long rows
            for start in range(0, len(row), 2 * size):
                low, high = row[start : start + size], row[start + size : start + 2 * size]
                for c in range(size):
                    one, other = low[c], high[c]
                    low[c] = one + other
                    high[c] = one - other
            size //= 2
        for c in range(len(row)):
            row[c] = half * (total - row[c])


@compiled
def judge(scores, candidates, temperature, power, predictions, confidence, flips):  # type: ignore[no-untyped-def]
    """As `Calibration.log_posterior`, and the most likely coset: (B, k) bool, (B,) float64, (B, k) float32."""
    best = np.zeros(min(candidates, scores.shape[1]), np.float32)
    k = predictions.shape[1]
    sums = np.zeros(k)
    for b in range(len(scores)):
        row = scores[b]
        _highest(row, best)
        least, total, chosen = best[-1], 0.0, -1
        sums[:] = 0
        for c in range(len(row)):
            if row[c] >= least:
                weight = np.exp(-((np.float64(best[0] - row[c]) / temperature) ** power))
                total += weight
                if chosen < 0 and row[c] == best[0]:
                    chosen = c
                for i in range(k):
                    if c >> i & 1:
                        sums[i] += weight
        confidence[b] = 1 / total
        for i in range(k):
            predictions[b, i] = chosen >> i & 1
            flips[b, i] = sums[i] / total


@compiled
def _highest(row, best):  # type: ignore[no-untyped-def]
    """The highest values of a row, descending."""
    best[:] = -np.inf
    for c in range(len(row)):
        if row[c] > best[-1]:
            i = len(best) - 1
            while i > 0 and best[i - 1] < row[c]:
                best[i] = best[i - 1]
                i -= 1
            best[i] = row[c]


@compiled
def _fold(memory, other, phase, steps, h):  # type: ignore[no-untyped-def]
    for n in range(len(h)):
        case = np.int64(memory[n]) + 2 * np.int64(other[n])
        for c in range(h.shape[1]):
            h[n, c] = h[n, c] * steps.keep[phase, case, c] + steps.add[phase, case, c]


@compiled
def _features(believed, b, t, chances, features):  # type: ignore[no-untyped-def]
    """The features (N, F) of a layer, as `Beliefs` says."""
    kinds, cells = believed.last.shape[2:]
    one = np.float32(1)
    solutions = np.float32(believed.flips.shape[1])
    effort, found = np.log10(believed.effort[b]), np.float32(believed.found[b]) / solutions
    for part in range(2):
        odds = believed.last[b, t].ravel() if part == 0 else believed.mean[b, t].ravel()
        _exp(odds, chances[part])
        for v in range(kinds * cells):
            chances[part, v] = one / (one + chances[part, v])
    for n in range(cells):
        for i in range(kinds):
            features[n, i] = chances[0, i * cells + n]
            features[n, kinds + i] = chances[1, i * cells + n]
            features[n, 2 * kinds + 1 + i] = believed.share[b, t, i, n]
        features[n, 2 * kinds] = believed.unexplained[b, t, n]
        features[n, 3 * kinds + 1] = effort
        features[n, 3 * kinds + 2] = found


@compiled
def _evidence(believed, b, evidence):  # type: ignore[no-untyped-def]
    """The evidence (O, 4) of a shot, as `Beliefs` says."""
    counts = max(1, believed.found[b])
    weights = believed.weights[b]
    shares = np.zeros((counts, 4), np.float32)
    shares[0, 0] = 1
    shares[:, 1] = np.float32(1) / np.float32(counts)
    for side in range(2):
        total, least = np.float32(0), weights[0, side]
        for s in range(counts):
            least = min(least, weights[s, side])
        for s in range(counts):
            shares[s, 2 + side] = np.exp(least - weights[s, side])
            total += shares[s, 2 + side]
        for s in range(counts):
            shares[s, 2 + side] /= total
    evidence[:] = 0
    for s in range(counts):
        for o in range(len(evidence)):
            sign = np.float32(2) * believed.flips[b, s, o] - np.float32(1)
            for e in range(4):
                evidence[o, e] += sign * shares[s, e]


@compiled
def _scratch(cells, width, both):  # type: ignore[no-untyped-def]
    """What blocks need room for: (N, C), (N, 2 H), (N, H), (N 2 H,)."""
    return (
        np.zeros((cells, width), np.float32),
        np.zeros((cells, both), np.float32),
        np.zeros((cells, both // 2), np.float32),
        np.zeros(cells * both // 2, np.float32),
    )


@compiled
def _blocks(blocks, fourier, inverse, scratch, h):  # type: ignore[no-untyped-def]
    x, both, gated, powers = scratch
    half = gated.shape[1]
    for i in range(len(blocks.up)):
        _normalise(h, x)
        _convolve(x, blocks.p[i], blocks.q[i], fourier, inverse, h)
        _normalise(h, x)
        both[:] = 0
        _multiply(x, blocks.up[i], both)
        for n in range(len(h)):
            for j in range(half):
                gated[n, j] = both[n, j]
        _silu(gated.ravel(), powers)
        for n in range(len(h)):
            for j in range(half):
                gated[n, j] *= both[n, half + j]
        _multiply(gated, blocks.down[i], h)


@compiled
def _convolve(x, p, q, fourier, inverse, out):  # type: ignore[no-untyped-def]
    """Adds the convolution of x (N, C_in) to out (N, C_out)."""
    cells, width = x.shape
    z = np.zeros((cells, width), np.float32)
    y = np.zeros((cells, p.shape[2]), np.float32)
    _multiply(fourier, x, z)
    real = len(p) - len(q)
    for f in range(real):
        for i in range(width):
            factor = z[f, i]
            for j in range(y.shape[1]):
                y[f, j] += factor * p[f, i, j]
    for f in range(len(q)):
        cos, sin = real + f, real + len(q) + f
        for i in range(0, width, 4):
            c0, c1, c2, c3 = z[cos, i], z[cos, i + 1], z[cos, i + 2], z[cos, i + 3]
            s0, s1, s2, s3 = z[sin, i], z[sin, i + 1], z[sin, i + 2], z[sin, i + 3]
            for j in range(y.shape[1]):
                p0, p1, p2, p3 = p[cos, i, j], p[cos, i + 1, j], p[cos, i + 2, j], p[cos, i + 3, j]
                q0, q1, q2, q3 = q[f, i, j], q[f, i + 1, j], q[f, i + 2, j], q[f, i + 3, j]
                y[cos, j] = y[cos, j] + c0 * p0 + c1 * p1 + c2 * p2 + c3 * p3 + s0 * q0 + s1 * q1 + s2 * q2 + s3 * q3
                y[sin, j] = y[sin, j] + s0 * p0 + s1 * p1 + s2 * p2 + s3 * p3 - c0 * q0 - c1 * q1 - c2 * q2 - c3 * q3
    _multiply(inverse, y, out)


@compiled
def _multiply(a, w, out):  # type: ignore[no-untyped-def]
    """Adds a @ w to out: four rows by four at a time, which lets the processor multiply in every cycle."""
    rows, inner = a.shape
    m4, k4 = rows - rows % 4, inner - inner % 4
    for m in range(0, m4, 4):
        for k in range(0, k4, 4):
            a00, a01, a02, a03 = a[m, k], a[m, k + 1], a[m, k + 2], a[m, k + 3]
            a10, a11, a12, a13 = a[m + 1, k], a[m + 1, k + 1], a[m + 1, k + 2], a[m + 1, k + 3]
            a20, a21, a22, a23 = a[m + 2, k], a[m + 2, k + 1], a[m + 2, k + 2], a[m + 2, k + 3]
            a30, a31, a32, a33 = a[m + 3, k], a[m + 3, k + 1], a[m + 3, k + 2], a[m + 3, k + 3]
            for j in range(w.shape[1]):
                w0, w1, w2, w3 = w[k, j], w[k + 1, j], w[k + 2, j], w[k + 3, j]
                out[m, j] = out[m, j] + a00 * w0 + a01 * w1 + a02 * w2 + a03 * w3
                out[m + 1, j] = out[m + 1, j] + a10 * w0 + a11 * w1 + a12 * w2 + a13 * w3
                out[m + 2, j] = out[m + 2, j] + a20 * w0 + a21 * w1 + a22 * w2 + a23 * w3
                out[m + 3, j] = out[m + 3, j] + a30 * w0 + a31 * w1 + a32 * w2 + a33 * w3
        _multiply_rows(a, w, out, m, m + 4, k4)
    _multiply_rows(a, w, out, m4, rows, 0)


@compiled
def _multiply_rows(a, w, out, first, end, k0):  # type: ignore[no-untyped-def]
    """What is left of `_multiply`: some rows, from factor k0."""
    for m in range(first, end):
        for k in range(k0, a.shape[1]):
            factor = a[m, k]
            for j in range(w.shape[1]):
                out[m, j] += factor * w[k, j]


@compiled
def _normalise(h, x):  # type: ignore[no-untyped-def]
    """Rows of unit mean square."""
    width = h.shape[1]
    for n in range(len(h)):
        total = np.float32(0)
        for c in range(width):
            total += h[n, c] * h[n, c]
        scale = np.float32(1) / np.sqrt(total / np.float32(width) + np.float32(1e-6))
        for c in range(width):
            x[n, c] = h[n, c] * scale


@compiled
def _silu(x, powers):  # type: ignore[no-untyped-def]
    one = np.float32(1)
    for v in range(len(x)):
        powers[v] = -x[v]
    _exp(powers[: len(x)], powers[: len(x)])
    for v in range(len(x)):
        x[v] /= one + powers[v]


@compiled
def _exp(x, out):  # type: ignore[no-untyped-def]
    """e^x, to 3e-7 of it; out may be x."""
    power = np.empty(len(x), np.float32)
    bits = power.view(np.int32)
    # e^x = 2^i 2^f with |f| <= 1/2: i goes into the exponent's bits, 2^f is its Taylor polynomial.
    for v in range(len(x)):
        y = min(max(x[v], np.float32(-80)), np.float32(80)) * np.float32(1.44269504)
        i = np.floor(y + np.float32(0.5))
        f = y - i
        r = np.float32(0.00133336) + f * np.float32(0.000154035)
        r = np.float32(0.0555041) + f * (np.float32(0.00961813) + f * r)
        out[v] = np.float32(1) + f * (np.float32(0.6931472) + f * (np.float32(0.2402265) + f * r))
        bits[v] = (np.int32(i) + np.int32(127)) << np.int32(23)
    for v in range(len(x)):
        out[v] *= power[v]
