"""Functions of tensors as CUDA graphs: hundreds of small kernels that the GPU starts as one.

Of few shots each kernel takes less time than its launch from Python does. A graph is bound to shapes and to addresses,
so shots are filled up to a power of two and copied to where it reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

WARM_UP_RUNS = 3
"""What cuBLAS and the allocator set up at first cannot be captured."""


class Captured(NamedTuple):
    result: Any
    """Of the captured call: tensors, whose values each replay computes anew."""
    replay: Callable[[], object]


Capture = Callable[[Callable[[], Any], torch.device, Any], Captured]
"""Makes of a call on a device a graph, whose memory is of a pool that graphs not run at once may share."""


def capture_cuda_graph(run: Callable[[], Any], device: torch.device, pool: Any) -> Captured:
    """A call as a CUDA graph; it runs a few times."""
    with torch.cuda.device(device):
        side, here = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                run()
        here.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # What other threads do on the GPU meanwhile, with models of their own, must not end the capture.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            result = run()
    return Captured(result, graph.replay)


def new_pool(device: torch.device) -> Any:
    """Memory for graphs of a device; None on a CPU."""
    return torch.cuda.graph_pool_handle() if device.type == "cuda" else None


def filled_up(shots: int) -> int:
    """The power of two that so many shots are filled up to."""
    return 1 << max(shots - 1, 0).bit_length()


class CudaGraphs:
    """Replays a function, captured once for every power of two of shots and shape of the rest.

    For one thread at a time. What it returns stays as it is at later calls.

    Args:
        function: of tensors on a GPU, to one; each shot by itself, without waiting for the GPU. What else it reads,
            such as weights, must stay where it is.
        shots_axes: where each input has its shots.
        output_axis: where the output has them.
        capture: how graphs are made.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        *,
        shots_axes: Sequence[int],
        output_axis: int,
        capture: Capture = capture_cuda_graph,
    ) -> None:
        self._function = function
        self._shots_axes = tuple(shots_axes)
        self._output_axis = output_axis
        self._capture = capture
        self._graphs: dict[tuple[torch.Size, ...], tuple[list[Tensor], Captured]] = {}
        self._pool: Any = None

    def __len__(self) -> int:
        """Graphs captured so far."""
        return len(self._graphs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        shots = inputs[0].shape[self._shots_axes[0]]
        held, captured = self._graph(inputs, size=filled_up(shots))
        for place, given, axis in zip(held, inputs, self._shots_axes, strict=True):
            place.narrow(axis, 0, shots).copy_(given)
        captured.replay()
        output: Tensor = captured.result
        return output.narrow(self._output_axis, 0, shots).clone()

    def _graph(self, inputs: tuple[Tensor, ...], *, size: int) -> tuple[list[Tensor], Captured]:
        shapes = []
        for given, axis in zip(inputs, self._shots_axes, strict=True):
            shape = list(given.shape)
            shape[axis] = size
            shapes.append(torch.Size(shape))
        key = tuple(shapes)
        if key not in self._graphs:
            device = inputs[0].device
            held = [given.new_zeros(shape) for given, shape in zip(inputs, shapes, strict=True)]
            self._pool = self._pool or new_pool(device)
            self._graphs[key] = held, self._capture(lambda: self._function(*held), device, self._pool)
        return self._graphs[key]
