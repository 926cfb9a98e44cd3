"""All that a training run changes, and how it is kept: network, average, optimizers, counters."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from decoder.neural.weights import build_network, load_tensors, read_safetensors, weights_named, write_safetensors
from decoder.training.config import TrainingConfig, dotted
from decoder.training.muon import Muon

FORMAT = "tandem-checkpoint-1"
# What a resumed run may change; all else must stay, or it would be another run.
FREE_SETTINGS = {
    *("minutes", "steps", "threads", "device", "compile", "store"),
    *("muon_lr", "adam_lr", "warmup_steps", "decay_fraction", "final_lr"),
    *("checkpoint_seconds", "log_every", "validate_every"),
}
# What blocks add to the state last; with zeros there a block is the identity.
RESIDUAL_OUTPUTS = (".conv.weight", ".attention.out.weight", ".mlp.down.weight")


@dataclass
class Counters:
    step: int = 0
    """Optimizer steps taken."""
    shots: int = 0
    """Shots seen, over all processes."""
    seconds: float = 0.0
    """Time spent in training steps."""


class TrainingState:
    """The network on its device with its averaged copy and optimizers."""

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.model = build_network(config.model).to(device)
        self.average = build_network(config.model).to(device).requires_grad_(False).eval()
        self.average.load_state_dict(self.model.state_dict())
        matrices, others = _split_parameters(self.model)
        self.optimizers: list[torch.optim.Optimizer] = []
        self.peak_lrs: list[float] = []
        if config.optimizer == "muon":
            self.optimizers.append(Muon(matrices, lr=config.muon_lr))
            self.peak_lrs.append(config.muon_lr)
        else:
            others = matrices + others
        self.optimizers.append(torch.optim.AdamW(others, lr=config.adam_lr, weight_decay=0.0, betas=(0.9, 0.98)))
        self.peak_lrs.append(config.adam_lr)
        self.counters = Counters()

    def init_from(self, name: str) -> None:
        """Starts from the tensors of a weights file, or of those shipped for a code, that fit this network.

        Weights belong to displacements along the Tanner graph, so those of another code fit too. Blocks that the file
        has not start as the identity, so that a deeper network begins as good as the shallower one was.
        """
        path = weights_named(name)
        _, tensors = read_safetensors(path)
        own = self.model.state_dict()
        fitting = {k: v for k, v in tensors.items() if k in own and own[k].shape == v.shape}
        known = {block for block in map(_block, tensors) if block}
        added = [n for n in own if _block(n) and _block(n) not in known]
        unfit = [n for n in own if n.startswith(("fold.", "blocks.")) and n not in fitting and n not in added]
        if unfit:
            raise ValueError(
                f"{path}: {unfit[0]} does not fit this network; start from weights of the same width and mixing, "
                "or from nothing with --init-from ''"
            )
        silent = {n: torch.zeros_like(own[n]) for n in added if n.endswith(RESIDUAL_OUTPUTS)}
        self.model.load_state_dict(own | fitting | silent)
        self.average.load_state_dict(own | fitting | silent)

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        # Young averages follow the weights more closely.
        step = self.counters.step
        weight = 1 - min(decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), weight)

    # --- files ---

    def save(self, path: Path, config: TrainingConfig) -> None:
        """Writes a checkpoint; see `write_safetensors`."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            for j, entries in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{j}.{k}": torch.as_tensor(v) for k, v in entries.items()}
        header = {"format": FORMAT, "config": asdict(config), "counters": asdict(self.counters)}
        write_safetensors(path, header, tensors)

    def load(self, path: Path, config: TrainingConfig) -> None:
        """Continues from a checkpoint.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is broken, or of a run with other settings.
        """
        header, tensors = read_safetensors(path)
        if header.get("format") != FORMAT:
            raise ValueError(f"{path}: no checkpoint of this version")
        defaults, ours = (json.loads(json.dumps(dotted(asdict(c)))) for c in (TrainingConfig(), config))
        saved = defaults | dotted(header["config"])
        changed = sorted(k for k in ours if k not in FREE_SETTINGS and ours[k] != saved[k])
        if changed:
            raise ValueError(
                f"{path} was trained with other settings for {', '.join(changed)}; resume with the same ones, "
                "or start a new run in another directory with --init-from"
            )

        def below(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        load_tensors(self.model, below("model."), path)
        load_tensors(self.average, below("average."), path)
        for i, optimizer in enumerate(self.optimizers):
            entries: dict[int, dict[str, Tensor]] = {}
            for name, tensor in below(f"optimizer.{i}.").items():
                index, key = name.split(".")
                entries.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict(optimizer.state_dict() | {"state": entries})
        self.counters = Counters(**header["counters"])


def _block(name: str) -> str:
    """The block that a tensor belongs to, such as "readout.blocks.1"; empty for others."""
    found = re.match(r"(.*\bblocks\.\d+)\.", name)
    return found[1] if found else ""


def _split_parameters(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Matrices inside the network, for Muon, and all else (embeddings, gains, biases, last layer)."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        inside = parameter.ndim == 2 and name.endswith("weight") and "head." not in name
        (matrices if inside else others).append(parameter)
    return matrices, others
