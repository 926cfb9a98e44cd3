"""The recurrent transformer: one torus of tokens, one shared step a round, log-odds of all translates.

Shapes: N cells of the torus, B shots, C width, T = rounds + 1 layers of detection events, O outputs (translates
of logical operators), k observables. States are (N, B, C): the torus first, so that its Fourier transform is one
matrix product.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoder.neural.candidates import EVIDENCE, NUM_FEATURES
from decoder.neural.config import Mixing, ModelConfig
from decoder.neural.geometry import Displacements, TorusGeometry
from decoder.neural.network import CosetVote, Network, OutputParities, Phase, coset_number
from simulation.codes import parse_code


class RMSNorm(nn.Module):
    """Scale to unit mean square over the channels, then a learned gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, h: Tensor) -> Tensor:
        return h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6) * self.gain


class GroupConv(nn.Module):
    """out[c] = sum over displacements d of W_d h[c + d], computed in the torus' Fourier domain.

    The group is abelian, so its characters diagonalise the convolution: a real DFT over the cells, one small
    matrix a frequency (P for the real ones, [[P, -Q], [Q, P]] for the pairs of cosine and sine), and back. It
    is exact, and costs about 2 C^2 multiplications a cell however many displacements there are. The weights
    belong to signed displacements along the Tanner graph and do not depend on l and m.
    """

    def __init__(self, geometry: TorusGeometry, displacements: Displacements, width_in: int, width_out: int) -> None:
        super().__init__()
        self.width_in, self.width_out = width_in, width_out
        self.num_real = geometry.num_real_frequencies
        fan_in = width_in * len(displacements)
        # Stored as one matrix (C_out, D * C_in), the linear map that it is, for optimizers that work on matrices.
        self.weight = nn.Parameter(torch.randn(width_out, fan_in) / math.sqrt(fan_in))
        angles = torch.from_numpy(geometry.angles(displacements))
        self.cosines = nn.Buffer(angles.cos().float(), persistent=False)  # (K, D)
        self.sines = nn.Buffer(angles[self.num_real :].sin().float(), persistent=False)  # (K - real, D)
        self.fourier = nn.Buffer(torch.from_numpy(geometry.fourier_matrix).float(), persistent=False)  # (N, N)
        self._frozen: tuple[Tensor, Tensor] | None = None

    def freeze(self) -> None:
        """Keeps the spectrum of the present weights, which then must not change: for decoding."""
        with torch.no_grad():
            self._frozen = self.spectrum()

    def spectrum(self) -> tuple[Tensor, Tensor]:
        """P: (K, C_in, C_out) of all frequencies, Q: (K - real, C_in, C_out) of the pairs."""
        if self._frozen is not None:
            return self._frozen
        weight = self.weight.view(self.width_out, -1, self.width_in).permute(1, 2, 0).flatten(1)  # (D, Ci * Co)
        shape = (-1, self.width_in, self.width_out)
        return (self.cosines @ weight).view(shape), (self.sines @ weight).view(shape)

    def forward(self, h: Tensor, spectrum: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(N, B, Ci) -> (N, B, Co)."""
        p, q = self.spectrum() if spectrum is None else spectrum
        n, batch, _ = h.shape
        z = (self.fourier @ h.flatten(1)).view(n, batch, self.width_in)  # (N, B, Ci)
        pairs = (n - self.num_real) // 2
        real, cos, sin = torch.split(z, [self.num_real, pairs, pairs])
        p_real, p_pair = torch.split(p, [self.num_real, pairs])
        out = torch.cat(
            [
                torch.bmm(real, p_real),
                torch.baddbmm(torch.bmm(cos, p_pair), sin, q),
                torch.baddbmm(torch.bmm(sin, p_pair), cos, q, alpha=-1),
            ]
        )  # (N, B, Co)
        return (self.fourier.t() @ out.flatten(1)).view(n, batch, self.width_out)


class BiasedAttention(nn.Module):
    """Self-attention between S tokens, with a bias on their scores that subclasses learn."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)

    def mixed(self, x: Tensor, bias: Tensor) -> Tensor:
        """The tokens (B, S, C) after attention with a bias (heads, S, S), which may be -inf."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, S, -1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class TorusAttention(BiasedAttention):
    """Attention over the cells with a learned bias for each displacement on the torus."""

    def __init__(self, geometry: TorusGeometry, width: int, inner: int, heads: int) -> None:
        super().__init__(width, inner, heads)
        self.bias = nn.Parameter(torch.zeros(heads, geometry.code.cells))
        self.displacement = nn.Buffer(torch.from_numpy(geometry.displacement_index), persistent=False)  # (N, N)

    def forward(self, h: Tensor) -> Tensor:
        """(N, B, C) -> (N, B, C)."""
        return self.mixed(h.transpose(0, 1), self.bias[:, self.displacement]).transpose(0, 1)


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer, arXiv 2002.05202): down(silu(gate) * value), gate and value of the hidden width H."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        gate, value = self.up(h).chunk(2, -1)  # each (..., H)
        out: Tensor = self.down(F.silu(gate) * value)
        return out


class Block(nn.Module):
    """Pre-norm spatial mixing, then a pre-norm gated MLP, each added to the state."""

    def __init__(self, geometry: TorusGeometry, config: ModelConfig, mixing: Mixing) -> None:
        super().__init__()
        width = config.width
        self.mix_norm = RMSNorm(width)
        self.conv = self.attention = None
        if mixing != "attention":
            self.conv = GroupConv(geometry, geometry.check_displacements, width, width)
        if mixing != "conv":
            self.attention = TorusAttention(geometry, width, config.channels(config.attention_ratio), config.heads)
        self.mlp_norm = RMSNorm(width)
        self.mlp = GatedMLP(width, config.channels(config.mlp_ratio))

    def spectrum(self) -> tuple[Tensor, Tensor] | None:
        return None if self.conv is None else self.conv.spectrum()

    def forward(self, h: Tensor, spectrum: tuple[Tensor, Tensor] | None = None) -> Tensor:
        x = self.mix_norm(h)
        if self.conv is not None:
            h = h + self.conv(x, spectrum)
        if self.attention is not None:
            h = h + self.attention(x)
        out: Tensor = h + self.mlp(self.mlp_norm(h))
        return out


class Readout(nn.Module):
    """State after the last round -> log-odds that each output's logical operator is flipped."""

    def __init__(self, geometry: TorusGeometry, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.blocks = nn.ModuleList(
            Block(geometry, config, config.readout_mixing) for _ in range(config.readout_blocks)
        )
        self.norm = RMSNorm(width)
        inner = config.channels(config.qubit_ratio)
        self.to_qubits = GroupConv(geometry, geometry.qubit_displacements, width, 2 * inner)
        # What is learned of each operator; a judge, whose weights are for all codes, has one for all of them.
        self.operator = nn.Parameter(torch.zeros(1 if config.judges else geometry.num_operators, 1, 1, inner))
        self.hidden = nn.Linear(inner, 2 * inner)
        self.head = nn.Linear(2 * inner, 1)
        if config.judges:
            # It says nothing at first, so that the free energies alone decide: what is learned can only be better.
            self.trust_head = nn.Linear(2 * inner, len(EVIDENCE))
            for head in (self.head, self.trust_head):
                nn.init.zeros_(head.weight)
                nn.init.zeros_(head.bias)
        supports = torch.from_numpy(geometry.output_supports).float()
        self.pooling = nn.Buffer(supports / supports.sum(1, keepdim=True).sqrt(), persistent=False)  # (O, 2N)
        which = torch.from_numpy(geometry.output_operators)
        self.which = nn.Buffer(torch.zeros_like(which) if config.judges else which, persistent=False)  # (O,)

    def forward(self, h: Tensor, evidence: Tensor | None = None) -> Tensor:
        """Log-odds (B, O) from the state (N, B, C) and, if it judges, the candidates' evidence (B, O, 4)."""
        for block in self.blocks:
            h = block(h)
        batch = h.shape[1]
        left, right = F.silu(self.to_qubits(self.norm(h))).chunk(2, -1)  # a cell's L and R qubits
        qubits = torch.cat([left, right])  # (2N, B, Cq), qubits in the code's order
        pooled = (self.pooling @ qubits.flatten(1)).view(-1, batch, left.shape[-1])  # (O, B, Cq)
        pooled = pooled + self.operator.flatten(1)[self.which][:, None]
        hidden = F.silu(self.hidden(pooled))  # (O, B, 2 Cq)
        logits: Tensor = self.head(hidden).squeeze(-1).t()  # (B, O)
        return logits if evidence is None else logits + (evidence * self.trust_head(hidden).transpose(0, 1)).sum(-1)


class EventFold(nn.Module):
    """Adds a layer of detection events to the state, after a gate that says how much of the state to keep.

    Both are tables: one row for each combination of a cell's two bits (none, memory, other, both), for each memory
    basis (Z, X) and phase of the experiment.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        shape = 2, len(Phase), 4, width
        self.embedding = nn.Parameter(torch.randn(shape))
        self.gate = nn.Parameter(torch.full(shape, 2.0))  # keep most of the state at first

    def forward(self, h: Tensor, events: Tensor, basis: int, phase: int) -> Tensor:
        """Folds a layer of events (2, N, B) into the state (N, B, C)."""
        memory, other = events.unbind(0)  # each (N, B)
        both = memory * other
        # One-hot rows times a table, not a lookup: its gradient is a matrix product too.
        cases = torch.stack([1 - memory - other + both, memory - both, other - both, both], dim=-1)  # (N, B, 4)
        return h * (cases @ torch.sigmoid(self.gate[basis, phase])) + cases @ self.embedding[basis, phase]


class RecurrentTransformer(Network):
    """`start`, one `step` for each layer of detection events, then `readout`; `forward` does all of it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, TorusGeometry(parse_code(config.code), outputs=config.outputs))
        self.fold = EventFold(config.width)
        self.blocks = nn.ModuleList(
            Block(self.geometry, config, config.round_mixing) for _ in range(config.round_blocks)
        )
        self.readout = Readout(self.geometry, config)
        if config.judges:
            self.read_beliefs = nn.Parameter(torch.zeros(2, NUM_FEATURES, config.width))
        self.vote = (OutputParities if config.judges else CosetVote)(self.geometry)

    @property
    def folds_on_arrival(self) -> bool:
        """Not if it judges what belief propagation finds, which needs the last layer before it can begin."""
        return not self.config.judges

    def freeze(self) -> None:
        """Keeps the spectra of all convolutions; see `GroupConv.freeze`."""
        for module in self.modules():
            if isinstance(module, GroupConv):
                module.freeze()

    def spectra(self) -> list[tuple[Tensor, Tensor] | None]:
        """The round blocks' convolutions in the Fourier domain: computed once for all rounds."""
        return [block.spectrum() for block in self.blocks]  # type: ignore[operator]

    def start(self, batch: int) -> Tensor:
        """The state before the first layer: zeros (N, B, C)."""
        return self.fold.embedding.new_zeros(self.geometry.code.cells, batch, self.config.width)

    def step(
        self,
        h: Tensor,
        events: Tensor,
        *,
        basis: int,
        phase: int,
        spectra: list[tuple[Tensor, Tensor] | None],
        beliefs: Tensor | None = None,
    ) -> Tensor:
        """Folds one layer of events (2, N, B), floats 0 or 1, and its beliefs into the state (N, B, C)."""
        h = self.fold(h, events, basis, phase)
        if beliefs is not None:
            h = h + beliefs.to(h.dtype) @ self.read_beliefs[basis]
        for block, spectrum in zip(self.blocks, spectra, strict=True):
            h = block(h, spectrum)
        return h

    def forward(
        self, events: Tensor, features: Tensor | None = None, evidence: Tensor | None = None, *, basis: int
    ) -> Tensor:
        """Log-odds of the outputs.

        Args:
            events: (T, 2, N, B), as `Network` says.
            features: of a judge alone, (T, N, B, NUM_FEATURES): `decoder.neural.candidates.Beliefs.features`.
            evidence: of a judge alone, (B, O, 4): `Beliefs.evidence`.
            basis: as `Network` says.

        Returns:
            float (B, O).
        """
        spectra = self.spectra()
        h = self.start(events.shape[-1])
        for t, layer in enumerate(events):
            phase = Phase.of(t, len(events))
            beliefs = None if features is None else features[t]
            h = self.step(h, layer, basis=basis, phase=phase, spectra=spectra, beliefs=beliefs)
        logits: Tensor = self.readout(h, evidence)
        return logits

    def scores(self, events: Tensor, *, basis: int) -> Tensor:
        """The votes of all outputs on each coset (B, 2^k)."""
        return self.coset_vote.scores(self(events, basis=basis).float(), events)

    def loss(self, events: Tensor, flips: Tensor, *, basis: int, coset_weight: float = 0.0) -> Tensor:
        """Mean binary cross-entropy of the outputs, plus that of the coset."""
        vote, logits = self.coset_vote, self(events, basis=basis).float()
        loss = F.binary_cross_entropy_with_logits(logits, vote.labels(events, flips))
        if coset_weight:
            # The outputs repeat what k of them say, so their votes sum to that many times the log-likelihood.
            repeats = logits.shape[1] / flips.shape[1]
            scores = vote.scores(logits, events) / repeats
            loss = loss + coset_weight * F.cross_entropy(scores, coset_number(flips))
        return loss

    @property
    def coset_vote(self) -> CosetVote:
        """What makes scores of the 2^k cosets; raises ValueError for a network that judges candidates instead."""
        if not isinstance(self.vote, CosetVote):
            raise ValueError("this network judges the cosets that belief propagation finds, and needs to be told them")
        return self.vote

    def compiled_parts(self) -> list[nn.Module]:
        return [part for part in self.modules() if isinstance(part, Block | EventFold | Readout)]
