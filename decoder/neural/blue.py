"""The network of Blue, Avlani, He, Ziyin and Chuang (arXiv 2504.13043; Quantum 10, 2149), rebuilt for comparison.

Their code is not public, so this is our reading of the paper's abstract and figures and of its summary by the authors'
institute (https://research.iaifi.org/posts/machine-learning-decoding-of-circuit-level-noise-for-bivariate-bicycle-codes/).
From there:

* all X and Z detectors of one round are tokens, and the network is recurrent over rounds with a carried state;
* self-attention is masked and biased; the values in figure 1 fit the logarithm of how many mechanisms of the
  circuit's detector error model flip both detectors, and where no mechanism does, it is masked;
* the k logical bits are predicted one after the other, each conditioned on those before.

Our choice, since we found nothing on it: every size; pre-norm blocks with gated MLPs and one scale of the bias for each
head; the gated fold of events; a learned vector for each token, without which all detectors would look alike; a learned
query for each observable that pools the tokens; a GRU over the bits; that all 2^k values are scored exactly and not bit
by bit; and the optimizer and curriculum, which are those of `decoder.training` and not the 20 stages of the paper.

Shapes: N cells of the torus, S = 2N tokens, B shots, C width, H = attention_ratio C channels of the attention
and of the head, T = rounds + 1 layers of detection events, k observables. States are (B, S, C).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoder.neural.config import ModelConfig
from decoder.neural.geometry import NETWORK_BASES, TorusGeometry
from decoder.neural.model import BiasedAttention, GatedMLP, RMSNorm
from decoder.neural.network import Network, Phase
from simulation.bases import Basis
from simulation.circuits import MemoryExperiment
from simulation.codes import BivariateBicycleCode, parse_code
from simulation.noise import NoiseModel

# Numbers in one tensor of states while the 2^k cosets are scored: 16 MiB, of which about ten exist at once.
SCORED_AT_ONCE = 2**22


@lru_cache(maxsize=16)
def cooccurrence(code: BivariateBicycleCode, basis: Basis) -> npt.NDArray[np.int64]:
    """Counts the mechanisms of the circuit-level DEM that flip both of two detectors of one bulk round.

    In their figure 1 for bb72 each row has 56 of 72 entries open (25 of the own type, 31 of the other), as here, with
    values near the logarithms of 4 to 50, and 245 on the diagonal; here the counts are 2 to 48, and 242. The error
    rates play no role: uniform noise has every Pauli fault everywhere, and mechanisms with the same symptom count once.

    Returns:
        int64 (2N, 2N), read-only and symmetric, in the memory frame: the N cells of slot 0 (the memory basis), then
        those of slot 1. The two bases have the same entries above 0, but not the same counts, since the frame changes
        the order of the CNOTs.
    """
    # Four rounds are the fewest whose middle layer has the counts of a long experiment; with three, the first and the
    # last round are so near that 8 to 21 of a detector's 242 mechanisms in bb72 are missing.
    experiment = MemoryExperiment(code, basis, 4, NoiseModel.uniform(1e-3))
    detectors = TorusGeometry(code).event_index(experiment.grid)[2].ravel()
    flips = experiment.fault_model.check_matrix.astype(np.int64).tocsr()[detectors]
    counts = np.asarray((flips @ flips.T).toarray())
    counts.setflags(write=False)
    return counts


class TokenFold(nn.Module):
    """Adds a round's detection bits to the state, after a gate that says how much of the state to keep.

    Both are tables: a row for each value of the bit, for each slot (memory basis, other), phase of the experiment
    and memory basis (Z, X). An absent detector has a phase of its own, so its bit 0 means that it is absent.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(2, len(Phase), 2, 2, width))
        self.gate = nn.Parameter(torch.full((2, len(Phase), 2, 2, width), 2.0))  # keep most of the state at first

    def forward(self, h: Tensor, layer: Tensor, basis: int, phase: int) -> Tensor:
        """Folds a layer of events (2, N, B) into the state (B, S, C)."""
        _, cells, batch = layer.shape
        bits = layer.permute(2, 0, 1).reshape(batch, -1, 1)
        keep = _interpolated(torch.sigmoid(self.gate[basis, phase]), bits, cells)
        return h * keep + _interpolated(self.embedding[basis, phase], bits, cells)


def _interpolated(table: Tensor, bits: Tensor, cells: int) -> Tensor:
    """Rows (B, S, C) of a table (slot, bit, C), without a lookup, whose gradient is slow."""
    off, on = table.repeat_interleave(cells, dim=0).unbind(1)
    return torch.lerp(off, on, bits.to(table.dtype))


class CooccurrenceAttention(BiasedAttention):
    """Attention between detectors that share a mechanism, biased by the logarithm of how many they share."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__(width, inner, heads)
        self.scale = nn.Parameter(torch.ones(heads))

    def forward(self, x: Tensor, couplings: Tensor) -> Tensor:
        """Mixes the tokens (B, S, C); couplings (2, S, S): ln(count), and 0 where it is open, -inf where not."""
        log_counts, wall = couplings.unbind(0)
        return self.mixed(x, self.scale[:, None, None] * log_counts + wall)


class BlueBlock(nn.Module):
    """Pre-norm attention, then a pre-norm gated MLP, each added to the state."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.attention_norm = RMSNorm(width)
        self.attention = CooccurrenceAttention(width, config.channels(config.attention_ratio), config.heads)
        self.mlp_norm = RMSNorm(width)
        self.mlp = GatedMLP(width, config.channels(config.mlp_ratio))

    def forward(self, h: Tensor, couplings: Tensor) -> Tensor:
        h = h + self.attention(self.attention_norm(h), couplings)
        out: Tensor = h + self.mlp(self.mlp_norm(h))
        return out


class ObservablePooling(nn.Module):
    """One learned query for each observable attends to all tokens: (B, S, C) -> (B, k, H)."""

    def __init__(self, config: ModelConfig, observables: int) -> None:
        super().__init__()
        inner = config.channels(config.attention_ratio)
        self.norm = RMSNorm(config.width)
        self.queries = nn.Parameter(torch.randn(config.heads, observables, inner // config.heads))
        self.kv = nn.Linear(config.width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, inner, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        heads, observables, _ = self.queries.shape
        k, v = self.kv(self.norm(h)).unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, S, -1)
        pooled = F.scaled_dot_product_attention(self.queries.to(k.dtype).expand(len(h), -1, -1, -1), k, v)
        out: Tensor = self.out(pooled.transpose(1, 2).reshape(len(h), observables, -1))
        return out


class AutoregressiveHead(nn.Module):
    """The log-odds of bit i from the pooled states (B, k, H) and the bits before i, which a GRU carries."""

    NO_BIT = 2

    def __init__(self, width: int) -> None:
        super().__init__()
        self.previous = nn.Parameter(torch.randn(3, width))  # the bit before: 0, 1, or none
        self.cell = nn.GRUCell(width, width)
        self.logit = nn.Linear(width, 1)

    def forward(self, pooled: Tensor, flips: Tensor) -> Tensor:
        """Log-odds (B, k) of each bit, given the true bits (B, k) before it."""
        batch, observables, width = pooled.shape
        before = F.pad(flips.long()[:, :-1], (1, 0), value=self.NO_BIT)
        inputs = pooled + self.previous[before]
        h = pooled.new_zeros(batch, width)
        states = []
        for i in range(observables):
            h = self.cell(inputs[:, i], h)
            states.append(h)
        logits: Tensor = self.logit(torch.stack(states, dim=1))
        return logits.squeeze(-1)

    def log_probabilities(self, pooled: Tensor) -> Tensor:
        """The log-probability (B, 2^k) of each coset: the tree of prefixes, level by level."""
        batch, observables, width = pooled.shape
        h, previous = pooled.new_zeros(batch, 1, width), self.previous[self.NO_BIT :]
        log_p = pooled.new_zeros(batch, 1)
        for i in range(observables):
            h = self._grown(h, pooled[:, i, None] + previous)
            previous = self.previous[: self.NO_BIT]
            logits = self.logit(h).squeeze(-1)  # (B, 2^i)
            log_p = torch.cat([log_p + F.logsigmoid(-logits), log_p + F.logsigmoid(logits)], dim=1)
        return log_p

    def _grown(self, h: Tensor, inputs: Tensor) -> Tensor:
        """The cell's states (B, I * P, H) for each of its inputs (B, I, H) after each of its states (B, P, H).

        Bit i of a prefix's index is its bit i, so the prefixes that end in 1 follow all that end in 0. These are the
        equations of GRUCell; calling it would multiply each input and each state by its matrix once for every pair,
        four times the work.
        """
        cell = self.cell
        from_input = F.linear(inputs, cell.weight_ih, cell.bias_ih)[:, :, None]
        from_state = F.linear(h, cell.weight_hh, cell.bias_hh)[:, None]
        width = h.shape[-1]
        reset, update = torch.sigmoid(from_input[..., : 2 * width] + from_state[..., : 2 * width]).chunk(2, -1)
        new = torch.tanh(from_input[..., 2 * width :] + reset * from_state[..., 2 * width :])
        return torch.lerp(new, h[:, None].expand_as(new), update).flatten(1, 2)


class BlueNetwork(Network):
    """Recurrent masked attention over the detectors of a round, then the k bits one after the other.

    Of the configuration it reads `width`, `round_blocks`, `readout_blocks`, `heads`, `attention_ratio` and
    `mlp_ratio`; `qubit_ratio`, `round_mixing`, `readout_mixing` and `outputs` have no meaning here and are ignored.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, TorusGeometry(parse_code(config.code)))
        code = self.geometry.code
        self.fold = TokenFold(config.width)
        self.position = nn.Parameter(0.25 * torch.randn(2 * code.cells, config.width))
        self.blocks = nn.ModuleList(BlueBlock(config) for _ in range(config.round_blocks))
        self.readout = nn.ModuleList(BlueBlock(config) for _ in range(config.readout_blocks))
        self.pooling = ObservablePooling(config, code.k)
        self.head = AutoregressiveHead(config.channels(config.attention_ratio))
        counts = np.stack([cooccurrence(code, basis) for basis in NETWORK_BASES])
        wall = np.where(counts > 0, 0.0, -np.inf)
        couplings = torch.from_numpy(np.stack([np.log(np.maximum(counts, 1)), wall], axis=1)).float()
        self.couplings = nn.Buffer(couplings, persistent=False)  # (basis, 2, S, S)

    def forward(self, events: Tensor, *, basis: int) -> Tensor:
        """The pooled states float (B, k, H) of the observables, from events and a basis as `Network` says."""
        couplings = self.couplings[basis]
        h = self.position.new_zeros(events.shape[-1], *self.position.shape)
        for t, layer in enumerate(events):
            # The position is added in every round, because the gate forgets.
            h = self.fold(h, layer, basis, Phase.of(t, len(events))) + self.position
            for block in self.blocks:
                h = block(h, couplings)
        for block in self.readout:
            h = block(h, couplings)
        pooled: Tensor = self.pooling(h)
        return pooled.to(self.position.dtype)

    def scores(self, events: Tensor, *, basis: int) -> Tensor:
        """The exact log-probability (B, 2^k) of each coset; each row's probabilities sum to 1."""
        pooled = self(events, basis=basis)
        shots = max(1, SCORED_AT_ONCE // (2 ** (pooled.shape[1] - 1) * pooled.shape[2]))
        with torch.autocast(pooled.device.type, enabled=False):  # sums of k logarithms need more than bfloat16
            return torch.cat([self.head.log_probabilities(part) for part in pooled.split(shots)])

    def loss(self, events: Tensor, flips: Tensor, *, basis: int, coset_weight: float = 0.0) -> Tensor:
        """The negative log-likelihood of the true coset, over k: the bits' cross-entropy given those before.

        Raises:
            ValueError: a coset_weight, which would only repeat this loss.
        """
        if coset_weight:
            raise ValueError(f"coset_weight={coset_weight}: the loss of blue is that of the coset already; set it to 0")
        pooled = self(events, basis=basis)
        with torch.autocast(pooled.device.type, enabled=False):
            return F.binary_cross_entropy_with_logits(self.head(pooled, flips), flips.to(pooled.dtype))

    def compiled_parts(self) -> list[nn.Module]:
        return [self.fold, *self.blocks, *self.readout]
