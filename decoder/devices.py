"""Where torch computes, by name."""

from __future__ import annotations

import torch


def usable_device(name: str) -> torch.device:
    """The device of a name: "cpu", "cuda", or "cuda:N" for the GPU of that number.

    Raises:
        ValueError: there is no such device, or not on this machine.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}: use cpu, cuda, or cuda:N for GPU number N")
    seen = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= seen:
        raise ValueError(f"no device {name!r}: torch sees {f'only {seen} GPUs' if seen else 'no GPU'} here; use cpu")
    return device
