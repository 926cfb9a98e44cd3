"""A network on a GPU as CUDA graphs: hundreds of small kernels that the GPU starts as one.

Of few shots each kernel takes less time than its launch from Python does. A graph is bound to shapes and to addresses,
so shots are filled up to a power of two and copied to where it reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from decoder.neural.backends.eager import EagerBackend
from decoder.neural.calibration import Calibration
from decoder.neural.model import RecurrentTransformer
from decoder.neural.network import Phase

WARM_UP_RUNS = 3
"""What cuBLAS and the allocator set up at first cannot be captured."""
MOST_GRAPHS = 24
"""Kept of one function: every power of two up to 2^23 shots of one experiment."""


class Captured(NamedTuple):
    """A call that can be repeated."""

    result: Tensor
    """Of the captured call; each replay computes its values anew."""
    replay: Callable[[], object]


Capture = Callable[[Callable[[], Tensor], torch.device, Any], Captured]
"""Makes of a call on a device a graph, whose memory is of a pool that graphs not run at once may share."""


def capture_cuda_graph(run: Callable[[], Tensor], device: torch.device, pool: Any) -> Captured:
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


class CudaGraphs:
    """Replays a function, captured once for every power of two of shots and shape of the rest.

    The `MOST_GRAPHS` used last are kept. For one thread at a time. What it returns stays as it is at later calls.

    Args:
        function: of float32 tensors on a GPU, to one; each shot by itself, without waiting for the GPU. What else it
            reads, such as weights, must stay where it is.
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
        self._graph = lru_cache(maxsize=MOST_GRAPHS)(self._captured)
        self._pool: Any = None

    def __len__(self) -> int:
        """Graphs kept."""
        return self._graph.cache_info().currsize

    def __call__(self, *inputs: Tensor) -> Tensor:
        shots = inputs[0].shape[self._shots_axes[0]]
        size = 1 << max(shots - 1, 0).bit_length()
        shapes = [
            (*given.shape[:axis], size, *given.shape[axis + 1 :])
            for given, axis in zip(inputs, self._shots_axes, strict=True)
        ]
        held, captured = self._graph(inputs[0].device, *shapes)
        for place, given, axis in zip(held, inputs, self._shots_axes, strict=True):
            place.narrow(axis, 0, shots).copy_(given)
        captured.replay()
        return captured.result.narrow(self._output_axis, 0, shots).clone()

    def _captured(self, device: torch.device, *shapes: tuple[int, ...]) -> tuple[list[Tensor], Captured]:
        """A graph for inputs of these shapes, and the tensors that it reads."""
        if self._pool is None and device.type == "cuda":
            self._pool = torch.cuda.graph_pool_handle()
        held = [torch.zeros(shape, device=device) for shape in shapes]
        return held, self._capture(lambda: self._function(*held), device, self._pool)


class CudaGraphsBackend(EagerBackend):
    """As `EagerBackend`, for networks of architecture tandem: the whole, each phase's step and the readout as graphs.

    The first call with a number of shots not yet seen captures, which takes longer than the answers after it.
    """

    def __init__(
        self,
        network: RecurrentTransformer,
        *,
        basis: int,
        calibration: Calibration,
        device: torch.device,
        capture: Capture = capture_cuda_graph,
    ) -> None:
        """Takes a network that is on the device, with frozen weights."""
        super().__init__(network, basis=basis, calibration=calibration, device=device)
        self._whole = CudaGraphs(super()._scores, shots_axes=[3], output_axis=0, capture=capture)
        self._judging = CudaGraphs(super()._judge, shots_axes=[3, 2, 0], output_axis=0, capture=capture)
        step = super()._step
        self._steps = {
            phase: CudaGraphs(partial(step, phase=phase), shots_axes=[1, 2], output_axis=1, capture=capture)
            for phase in Phase
        }
        self._reading = CudaGraphs(super()._read, shots_axes=[1, 3], output_axis=0, capture=capture)

    def _scores(self, events: Tensor) -> Tensor:
        return self._whole(events)

    def _judge(self, events: Tensor, features: Tensor, evidence: Tensor) -> Tensor:
        return self._judging(events, features, evidence)

    def _step(self, hidden: Tensor, events: Tensor, phase: Phase) -> Tensor:
        return self._steps[phase](hidden, events)

    def _read(self, hidden: Tensor, parity: Tensor) -> Tensor:
        return self._reading(hidden, parity)
