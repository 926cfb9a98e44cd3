"""What the GPU benchmark counts; on the CPU, which decodes the same."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from decoder.making import make_decoder
from simulation.circuits import MemoryExperiment

SCRIPT = Path(gpu.__file__)


def experiment() -> MemoryExperiment:
    return MemoryExperiment.create(code="bb72", basis="X", rounds=2, p=0.01)


def test_failures_are_those_of_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    options = gpu.parse(["--shots", "300", "--accuracy-batch", "100", "--seed", "3"])
    sampler = experiment().circuit.compile_detector_sampler(seed=3)
    failed = 0
    for _ in range(3):
        shots, flips = sampler.sample(100, separate_observables=True)
        failed += int((make_decoder("neural", experiment()).decode_batch(shots) != flips).any(1).sum())
    assert failed
    assert f"| shipped | {failed}/300 (" in gpu.failures(experiment(), options)


def test_each_way_is_timed_and_batches_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    times = gpu.singles(experiment(), shots=10, seed=1)
    rates = gpu.batches(experiment(), sizes=[4, 32], seconds=0, seed=1)
    assert [line.split(" |")[0].lstrip("| ") for line in times.splitlines()[4:]] == [
        f"{gpu.GRAPHS} (10 shots)",
        f"{gpu.KERNELS} (2 shots)",
        f"{gpu.CPU} (10 shots)",
        f"{gpu.BPOSD} (2 shots)",
    ]
    assert [line.split("|")[1].strip() for line in rates.splitlines()[4:6]] == ["4", "32"]
    assert rates.endswith("their predictions differ in 0.")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    run = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, cwd=SCRIPT.parents[1])
    assert run.returncode != 0
    assert run.stderr == "gpu.py: no device 'cuda': torch sees no GPU here; use cpu\n"
