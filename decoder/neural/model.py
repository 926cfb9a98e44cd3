"""The recurrent transformer: one torus of tokens, one shared step a round, a vote of all translates.

Shapes: N cells of the torus, B shots, C width, T = rounds + 1 layers of detection events, O outputs (translates
of logical operators), k observables. States are (N, B, C): the torus first, so that its Fourier transform is one
matrix product.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoder.neural.geometry import TorusGeometry
from simulation.codes import parse_code

Mixing = Literal["conv", "attention", "both"]


@dataclass(frozen=True)
class ModelConfig:
    """The size and shape of a network; `code` is written as parse_code reads it."""

    code: str = "bb72"
    width: int = field(default=64, metadata={"help": "channels of each cell's state"})
    round_blocks: int = field(default=1, metadata={"help": "blocks in each round, with weights shared by rounds"})
    readout_blocks: int = field(default=2, metadata={"help": "blocks after the last round"})
    mlp_ratio: float = field(default=1.0, metadata={"help": "hidden units of the gated MLPs, over the width"})
    qubit_ratio: float = field(default=0.5, metadata={"help": "channels of a data qubit, over the width"})
    attention_ratio: float = field(default=0.5, metadata={"help": "channels of an attention, over the width"})
    round_mixing: Mixing = field(default="conv", metadata={"help": "mixing in the round step"})
    readout_mixing: Mixing = field(default="both", metadata={"help": "mixing in the readout"})
    heads: int = field(default=4, metadata={"help": "attention heads"})

    def __post_init__(self) -> None:
        for name in ("width", "readout_blocks", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.round_blocks < 0:
            raise ValueError(f"round_blocks={self.round_blocks} must be at least 0")
        for name in ("mlp_ratio", "qubit_ratio", "attention_ratio"):
            if not 0 < getattr(self, name) <= 64 or self.channels(getattr(self, name)) < 1:
                raise ValueError(f"{name}={getattr(self, name)} leaves no channel of width={self.width}")
        if self.channels(self.attention_ratio) % self.heads:
            raise ValueError(f"attention_ratio * width must be a multiple of heads={self.heads}")
        for name in ("round_mixing", "readout_mixing"):
            if getattr(self, name) not in get_args(Mixing):
                raise ValueError(f"{name}={getattr(self, name)!r} is none of {', '.join(get_args(Mixing))}")

    def channels(self, ratio: float) -> int:
        return round(ratio * self.width)

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


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

    cosines: Tensor
    sines: Tensor
    fourier: Tensor

    def __init__(
        self, geometry: TorusGeometry, displacements: list[tuple[int, int]], width_in: int, width_out: int
    ) -> None:
        super().__init__()
        self.width_in, self.width_out = width_in, width_out
        self.num_real = geometry.num_real_frequencies
        fan_in = width_in * len(displacements)
        # Stored as one matrix (C_out, D * C_in), the linear map that it is, for optimizers that work on matrices.
        self.weight = nn.Parameter(torch.randn(width_out, fan_in) / math.sqrt(fan_in))
        phases = torch.from_numpy(geometry.phases(displacements))
        self.register_buffer("cosines", phases.cos().float(), persistent=False)  # (K, D)
        self.register_buffer("sines", phases[self.num_real :].sin().float(), persistent=False)  # (K - real, D)
        fourier = torch.from_numpy(geometry.fourier_matrix).float()
        self.register_buffer("fourier", fourier, persistent=False)  # (N, N)
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


class TorusAttention(nn.Module):
    """Self-attention over the cells with a learned bias for each displacement on the torus."""

    displacement: Tensor

    def __init__(self, geometry: TorusGeometry, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(heads, geometry.code.cells))
        index = torch.from_numpy(geometry.displacement_index)
        self.register_buffer("displacement", index, persistent=False)  # (N, N)

    def forward(self, h: Tensor) -> Tensor:
        n, batch, _ = h.shape
        qkv = self.qkv(h).view(n, batch, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 1, 3, 0, 4)  # each (B, heads, N, inner / heads)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias[:, self.displacement].to(q.dtype))
        out: Tensor = self.out(mixed.permute(2, 0, 1, 3).reshape(n, batch, -1))
        return out


class GatedMLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        gate, value = self.up(h).chunk(2, -1)
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

    pooling: Tensor

    def __init__(self, geometry: TorusGeometry, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.blocks = nn.ModuleList(
            Block(geometry, config, config.readout_mixing) for _ in range(config.readout_blocks)
        )
        self.norm = RMSNorm(width)
        inner = config.channels(config.qubit_ratio)
        self.to_qubits = GroupConv(geometry, geometry.qubit_displacements, width, 2 * inner)
        self.operator = nn.Parameter(torch.zeros(geometry.num_operators, 1, 1, inner))
        self.hidden = nn.Linear(inner, 2 * inner)
        self.head = nn.Linear(2 * inner, 1)
        supports = torch.from_numpy(geometry.output_supports).float()
        pooling = supports / supports.sum(1, keepdim=True).sqrt()
        self.register_buffer("pooling", pooling, persistent=False)  # (O, 2N)

    def forward(self, h: Tensor) -> Tensor:
        for block in self.blocks:
            h = block(h)
        n, batch, _ = h.shape
        left, right = F.silu(self.to_qubits(self.norm(h))).chunk(2, -1)  # a cell's L and R qubits
        qubits = torch.cat([left, right])  # (2N, B, Cq), qubits in the code's order
        pooled = (self.pooling @ qubits.flatten(1)).view(len(self.operator), n, batch, -1) + self.operator
        logits: Tensor = self.head(F.silu(self.hidden(pooled)))  # (operators, N, B, 1)
        return logits.flatten(0, 1).squeeze(-1).t()  # (B, O)


class EventFold(nn.Module):
    """Adds a layer of detection events to the state, after a gate that says how much of the state to keep.

    Both are tables: one row for each combination of a cell's two bits (none, memory, other, both), for each memory
    basis (Z, X) and phase of the experiment.
    """

    FIRST, MIDDLE, LAST = range(3)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(2, 3, 4, width))
        self.gate = nn.Parameter(torch.full((2, 3, 4, width), 2.0))  # keep most of the state at first

    def forward(self, h: Tensor, events: Tensor, basis: int, phase: int) -> Tensor:
        memory, other = events.unbind(0)
        both = memory * other
        # One-hot rows times a table, not a lookup: its gradient is a matrix product too.
        cases = torch.stack([1 - memory - other + both, memory - both, other - both, both], dim=-1)  # (N, B, 4)
        return h * (cases @ torch.sigmoid(self.gate[basis, phase])) + cases @ self.embedding[basis, phase]


class RecurrentTransformer(nn.Module):
    """`start`, one `step` for each layer of detection events, then `readout`; `forward` does all of it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.geometry = TorusGeometry(parse_code(config.code))
        self.fold = EventFold(config.width)
        self.blocks = nn.ModuleList(
            Block(self.geometry, config, config.round_mixing) for _ in range(config.round_blocks)
        )
        self.readout = Readout(self.geometry, config)

    def freeze(self) -> None:
        """Computes once what depends on the weights alone; for decoding, on the device where it will run."""
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
    ) -> Tensor:
        """Folds one layer of events (2, N, B), floats 0 or 1, into the state (N, B, C)."""
        h = self.fold(h, events, basis, phase)
        for block, spectrum in zip(self.blocks, spectra, strict=True):
            h = block(h, spectrum)
        return h

    def forward(self, events: Tensor, *, basis: int) -> Tensor:
        """Log-odds of the outputs.

        Args:
            events: float (T, 2, N, B) in the memory frame, slot 0 the memory basis; absent ones are 0.
            basis: 0 for Z memory, 1 for X memory.

        Returns:
            float (B, O).
        """
        spectra = self.spectra()
        h = self.start(events.shape[-1])
        last = len(events) - 1
        for t, layer in enumerate(events):
            phase = EventFold.FIRST if t == 0 else EventFold.LAST if t == last else EventFold.MIDDLE
            h = self.step(h, layer, basis=basis, phase=phase, spectra=spectra)
        logits: Tensor = self.readout(h)
        return logits


class CosetVote(nn.Module):
    """From the log-odds of all outputs to the posterior of the 2^k values of the observables.

    Each output is a known sum of observables and of checks whose values the detection events fix, so each is a
    signed vote on every coset: score(c) = sum over outputs of log-odds * [output flipped under c].
    """

    observables: Tensor
    checks: Tensor
    cosets: Tensor
    ballots: Tensor

    def __init__(self, geometry: TorusGeometry) -> None:
        super().__init__()
        k = geometry.code.k
        observables = torch.from_numpy(geometry.output_observables).float()
        cosets = (torch.arange(2**k)[:, None] >> torch.arange(k)) & 1
        self.register_buffer("observables", observables, persistent=False)  # (O, k)
        self.register_buffer("checks", torch.from_numpy(geometry.output_checks).float(), persistent=False)  # (O, N)
        self.register_buffer("cosets", cosets.float(), persistent=False)  # (2^k, k)
        self.register_buffer("ballots", (cosets.float() @ observables.t()) % 2, persistent=False)  # (2^k, O)

    def check_part(self, events: Tensor) -> Tensor:
        """The checks' share (B, O) of each output's flip, from events (T, 2, N, B): floats 0 or 1."""
        return (self.checks @ (events[:, 0].sum(0) % 2)).t() % 2

    def labels(self, events: Tensor, observable_flips: Tensor) -> Tensor:
        """True flips (B, O) of the outputs, from events and observable flips (B, k)."""
        return (observable_flips @ self.observables.t() + self.check_part(events)) % 2

    def scores(self, logits: Tensor, events: Tensor) -> Tensor:
        """The log-likelihood (B, 2^k) of each coset, up to a constant and a temperature.

        Coset j has observable i flipped if bit i of j is set.
        """
        votes = logits * (1 - 2 * self.check_part(events))
        return votes @ self.ballots.t()

    def posterior(self, logits: Tensor, events: Tensor, temperature: float = 1.0) -> Tensor:
        """The probability (B, 2^k) of each coset."""
        return torch.softmax(self.scores(logits, events) / temperature, dim=-1)
