"""The network for CPUs, compiled: one shot after the other, from its layers of events to the likeliest coset.

A shot alone is too little work for a tensor library: most of its time goes into calling some two hundred operations.
Here nothing is called, and what a shot needs stays in the first caches. Its answer is the same bits whatever is
decoded with it.

Each function computes what the module of `decoder.neural.model` that it names does, for one shot: states are (N, C),
cells and channels, float32. Other shapes as there; H hidden channels of a gated MLP, I channels of a data qubit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder.compiled import compiled
from decoder.serial.graph import Floats, Integers


class Blocks(NamedTuple):
    """Some blocks one after the other; the gains of their norms are in the matrices that follow these."""

    p: Floats
    """(blocks, K, C, C): the convolution's spectrum at all K frequencies."""
    q: Floats
    """(blocks, K - real, C, C): its other part, at the conjugate pairs of frequencies."""
    up: Floats
    """(blocks, C, 2 H): gate and value of the gated MLP."""
    down: Floats
    """(blocks, H, C)."""


class Steps(NamedTuple):
    """What a round step needs, of one memory basis."""

    keep: Floats
    """(3, 4, C): how much of the state to keep, by `Phase` and by the events of a cell (none, memory, other, both)."""
    add: Floats
    """(3, 4, C): what to add to it."""
    read_beliefs: Floats
    """(F, C): a row for each of the F columns of the features; F is 0 if the network does not judge."""
    fourier: Floats
    """(N, N)."""
    inverse: Floats
    """(N, N): its transpose."""
    blocks: Blocks


class Reading(NamedTuple):
    """What the readout needs."""

    blocks: Blocks
    p: Floats
    """(K, C, 2 I): the spectrum of the convolution to the qubits at all frequencies."""
    q: Floats
    """(K - real, C, 2 I): its other part, at the pairs."""
    pooling: Floats
    """(O, 2 N)."""
    operator: Floats
    """(O, I): what is learned of the operator that each output is a translate of."""
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
    """(O,): the observables in it, as the number of the coset that flips them."""


@compiled
def compute(events, phases, beliefs, steps, reading, hidden, logits):  # type: ignore[no-untyped-def]
    """`RecurrentTransformer.step` for some layers, then its readout.

    This is one function since the compiler takes seconds for the blocks in each function that has them, and might find
    other roundings in each.

    Args:
        events: bool (B, 2, T, N).
        phases: int64 (T,), the `Phase` of each layer.
        beliefs: the shots' `Beliefs`; of no shot if the network does not judge.
        steps, reading: the weights.
        hidden: float32 (B, N, C), the states, which are changed in place.
        logits: float32 (B, O), filled with the log-odds of the outputs, which uses the states up; if it is (B, 0),
            nothing is read.
    """
    _, cells, width = hidden.shape
    layers = events.shape[2]
    buffers = _block_buffers(cells, width, reading.blocks.up.shape[2])
    readout_buffers = _readout_buffers(cells, width, reading)
    for b in range(len(hidden)):
        h = hidden[b]
        for t in range(layers + 1):
            if t < layers:
                _fold(events[b, 0, t], events[b, 1, t], phases[t], steps, h)
                if len(beliefs.features):
                    _multiply(beliefs.features[b, t], steps.read_beliefs, h)
                _blocks(steps.blocks, steps.fourier, steps.inverse, buffers, h)
            elif logits.shape[1]:
                _blocks(reading.blocks, steps.fourier, steps.inverse, buffers, h)
                _read(h, steps, reading, readout_buffers, logits[b])
                if len(beliefs.evidence):
                    _add_evidence(beliefs.evidence[b], readout_buffers[6], logits[b])


# --- EventFold ---


@compiled
def _fold(memory, other, phase, steps, h):  # type: ignore[no-untyped-def]
    """`EventFold`: each cell's two bits choose a row of the tables."""
    for n in range(len(h)):
        case = np.int64(memory[n]) + 2 * np.int64(other[n])
        for c in range(h.shape[1]):
            h[n, c] = h[n, c] * steps.keep[phase, case, c] + steps.add[phase, case, c]


# --- Block ---


@compiled
def _block_buffers(cells, width, both):  # type: ignore[no-untyped-def]
    """What blocks compute in."""
    # The convolution and the gated MLP take turns in one place, so that all of it stays in the first cache.
    shared = np.zeros(max(2 * cells * width, 2 * cells * both), np.float32)
    return (
        np.zeros((cells, width), np.float32),  # the normalised state
        shared[: cells * both].reshape(cells, both),  # gate and value
        np.zeros((cells, both // 2), np.float32),  # their product
        shared[cells * both : 2 * cells * both].reshape(2, cells * both // 2),  # of `_silu`
        shared[: cells * width].reshape(cells, width),  # of `_convolve`
        shared[cells * width : 2 * cells * width].reshape(cells, width),  # of `_convolve`
    )


@compiled
def _blocks(blocks, fourier, inverse, buffers, h):  # type: ignore[no-untyped-def]
    """`Block`, one after the other: h += conv(norm(h)), then h += down(silu(gate) * value) of up(norm(h))."""
    x, both, gated, powers, z, y = buffers
    half = gated.shape[1]
    for i in range(len(blocks.up)):
        _normalise(h, x)
        _convolve(x, blocks.p[i], blocks.q[i], fourier, inverse, z, y, h)
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
def _normalise(h, x):  # type: ignore[no-untyped-def]
    """`RMSNorm` without its gain: rows of unit mean square."""
    width = h.shape[1]
    for n in range(len(h)):
        total = np.float32(0)
        for c in range(width):
            total += h[n, c] * h[n, c]
        scale = np.float32(1) / np.sqrt(total / np.float32(width) + np.float32(1e-6))
        for c in range(width):
            x[n, c] = h[n, c] * scale


@compiled
def _convolve(x, p, q, fourier, inverse, z, y, out):  # type: ignore[no-untyped-def]
    """`GroupConv`: adds the convolution of x (N, C_in) to out (N, C_out); z (N, C_in) and y (N, C_out) are buffers."""
    width = x.shape[1]
    z[:] = 0
    y[:] = 0
    # Into the Fourier domain, where the convolution is a small matrix for each frequency.
    _multiply(fourier, x, z)
    real = len(p) - len(q)
    for f in range(real):
        for i in range(width):
            factor = z[f, i]
            for j in range(y.shape[1]):
                y[f, j] += factor * p[f, i, j]
    # A pair of frequencies has a row of cosines and one of sines: (cos, sin) times [[p, -q], [q, p]].
    for f in range(len(q)):
        cos, sin = real + f, real + len(q) + f
        for i in range(0, width, 4):  # four channels in each pass over the outputs, which are loaded and stored less
            c0, c1, c2, c3 = z[cos, i], z[cos, i + 1], z[cos, i + 2], z[cos, i + 3]
            s0, s1, s2, s3 = z[sin, i], z[sin, i + 1], z[sin, i + 2], z[sin, i + 3]
            for j in range(y.shape[1]):
                p0, p1, p2, p3 = p[cos, i, j], p[cos, i + 1, j], p[cos, i + 2, j], p[cos, i + 3, j]
                q0, q1, q2, q3 = q[f, i, j], q[f, i + 1, j], q[f, i + 2, j], q[f, i + 3, j]
                y[cos, j] = y[cos, j] + c0 * p0 + c1 * p1 + c2 * p2 + c3 * p3 + s0 * q0 + s1 * q1 + s2 * q2 + s3 * q3
                y[sin, j] = y[sin, j] + s0 * p0 + s1 * p1 + s2 * p2 + s3 * p3 - c0 * q0 - c1 * q1 - c2 * q2 - c3 * q3
    # And back.
    _multiply(inverse, y, out)


@compiled
def _multiply(a, w, out):  # type: ignore[no-untyped-def]
    """Adds a @ w to out: four rows by four factors at a time, which lets the processor multiply in every cycle."""
    rows, inner = a.shape
    m4, k4 = rows - rows % 4, inner - inner % 4
    for m in range(0, m4, 4):
        for k in range(0, k4, 4):
            # Sixteen numbers of a in registers, while four rows of w go by.
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
def _silu(x, buffers):  # type: ignore[no-untyped-def]
    """x / (1 + e^-x), in place; buffers (2, at least as many)."""
    one, size = np.float32(1), len(x)
    powers, scratch = buffers[0, :size], buffers[1, :size]
    for v in range(size):
        powers[v] = -x[v]
    _exp(powers, powers, scratch)
    for v in range(size):
        x[v] /= one + powers[v]


@compiled
def _exp(x, out, scratch):  # type: ignore[no-untyped-def]
    """e^x, to 3e-7 of it; out may be x, scratch is as long."""
    bits = scratch.view(np.int32)
    # e^x = 2^i 2^f with |f| <= 1/2: i goes into the exponent's bits, 2^f is its Taylor polynomial.
    for v in range(len(x)):
        y = min(max(x[v], np.float32(-80)), np.float32(80)) * np.float32(1.44269504)  # 1 / ln 2
        i = np.floor(y + np.float32(0.5))
        f = y - i
        r = np.float32(0.00133336) + f * np.float32(0.000154035)
        r = np.float32(0.0555041) + f * (np.float32(0.00961813) + f * r)
        out[v] = np.float32(1) + f * (np.float32(0.6931472) + f * (np.float32(0.2402265) + f * r))
        bits[v] = (np.int32(i) + np.int32(127)) << np.int32(23)
    for v in range(len(x)):
        out[v] *= scratch[v]


# --- Readout ---


@compiled
def _readout_buffers(cells, width, reading):  # type: ignore[no-untyped-def]
    """What the readout computes in."""
    outputs, inner = reading.operator.shape
    return (
        np.zeros((cells, width), np.float32),  # the normalised state
        np.zeros((cells, 2 * inner), np.float32),  # both qubits of each cell side by side
        np.zeros((2 * cells, inner), np.float32),  # qubits in the code's order
        np.zeros((outputs, inner), np.float32),  # qubits pooled over each output's support
        np.zeros((outputs, 2 * inner), np.float32),  # the hidden layer
        np.zeros((2, max(2 * cells, 2 * outputs) * inner), np.float32),  # of `_silu`
        np.zeros((outputs, reading.heads.shape[1]), np.float32),  # what the heads say
        np.zeros((cells, width), np.float32),  # of `_convolve`
        np.zeros((cells, 2 * inner), np.float32),  # of `_convolve`
    )


@compiled
def _read(h, steps, reading, buffers, logits):  # type: ignore[no-untyped-def]
    """`Readout` after its blocks, without evidence: log-odds (O,) from the state (N, C)."""
    x, both, qubits, pooled, seen, powers, heads, z, y = buffers
    cells, inner = len(h), pooled.shape[1]
    # From cells to their two data qubits.
    _normalise(h, x)
    both[:] = 0
    _convolve(x, reading.p, reading.q, steps.fourier, steps.inverse, z, y, both)
    _silu(both.ravel(), powers)
    for n in range(cells):
        for i in range(inner):
            qubits[n, i] = both[n, i]
            qubits[cells + n, i] = both[n, inner + i]
    # From qubits to the outputs whose operators act on them.
    pooled[:] = reading.operator
    _multiply(reading.pooling, qubits, pooled)
    # The hidden layer and the heads.
    seen[:] = reading.hidden_bias
    _multiply(pooled, reading.hidden, seen)
    _silu(seen.ravel(), powers)
    heads[:] = reading.head_bias
    _multiply(seen, reading.heads, heads)
    for o in range(len(logits)):
        logits[o] = heads[o, 0]


@compiled
def _add_evidence(evidence, heads, logits):  # type: ignore[no-untyped-def]
    """Adds the evidence (O, 4) of a shot, times the trust in it, to the log-odds (O,)."""
    for o in range(len(logits)):
        for e in range(evidence.shape[1]):
            logits[o] += evidence[o, e] * heads[o, 1 + e]


# --- From log-odds to an answer ---


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
                for i in range(k):  # bit i of a coset's number, as `coset_bits` has it
                    if c >> i & 1:
                        sums[i] += weight
        confidence[b] = 1 / total  # the best coset's own weight is 1
        for i in range(k):
            predictions[b, i] = chosen >> i & 1
            flips[b, i] = sums[i] / total


@compiled
def _highest(row, best):  # type: ignore[no-untyped-def]
    """The highest values of a row, descending, by insertion."""
    best[:] = -np.inf
    for c in range(len(row)):
        if row[c] > best[-1]:
            i = len(best) - 1
            while i > 0 and best[i - 1] < row[c]:
                best[i] = best[i - 1]
                i -= 1
            best[i] = row[c]
