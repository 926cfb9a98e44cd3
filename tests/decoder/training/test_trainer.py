import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from decoder.neural.config import ModelConfig
from decoder.neural.decoder import NeuralDecoder
from decoder.neural.weights import load_weights, read_safetensors
from decoder.training.config import TrainingConfig
from decoder.training.fresh import FreshShots
from decoder.training.log import Progress
from decoder.training.sampler import FaultSampler
from decoder.training.state import RESIDUAL_OUTPUTS
from decoder.training.trainer import CHECKPOINT, LOG, WEIGHTS, Trainer, train
from simulation.circuits import MemoryExperiment

NETWORK = ModelConfig(code="3,3,x+1+y,x+1+xy^2", width=8, heads=2, readout_blocks=1, judges=False)
TINY = TrainingConfig(
    model=NETWORK,
    rounds=(2,),
    steps=8,
    micro_batch=8,
    p_min=0.01,
    p_max=0.02,
    p_points=2,
    curriculum_shots=64,
    log_every=2,
    validate_every=0,
    validation_shots=16,
    validation_p=(0.01,),
    threads=1,
)

SAMPLER = FaultSampler(MemoryExperiment.create(code=NETWORK.code, basis="Z", rounds=2, p=0.01))


def final_tensors(out: Path) -> dict[str, torch.Tensor]:
    return read_safetensors(out / CHECKPOINT)[1]


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_loss_falls_and_the_weights_decode(tmp_path: Path) -> None:
    reports: list[Progress] = []
    network = replace(NETWORK, width=16, readout_mixing="both")
    config = replace(TINY, model=network, steps=150, micro_batch=64, muon_lr=0.02)
    weights = train(config, out=tmp_path / "run", progress=reports.append)
    assert reports[-1].loss < 0.75 * reports[0].loss
    assert reports[-1].fraction == 1
    experiment = MemoryExperiment.create(code=config.model.code, basis="X", rounds=2, p=0.01)
    decoder = NeuralDecoder.load(experiment, weights=weights)
    shots, flips = experiment.circuit.compile_detector_sampler(seed=1).sample(2000, separate_observables=True)
    failures = (decoder.decode_batch(shots) != flips).any(axis=1).sum()
    assert failures < 0.8 * flips.any(axis=1).sum()
    log = (tmp_path / "run" / LOG).read_text().splitlines()
    assert log[0] == "step,shots,seconds,shots_per_second,loss,lr,validation"
    for rival, shots in load_weights(weights)[1].provenance["validation"]["bposd-osd0"].values():
        assert (0 <= rival <= shots, shots) == (True, config.validation_shots)
    assert log[-1].endswith(
        f"Z 0.01: {load_weights(weights)[1].provenance['validation']['failures']['Z 0.01']}; "
        f"X 0.01: {load_weights(weights)[1].provenance['validation']['failures']['X 0.01']}"
    )


def test_killed_at_a_random_moment_and_resumed_is_as_left_alone(tmp_path: Path) -> None:
    config = replace(TINY, steps=60, checkpoint_seconds=0.0)
    train(config, out=tmp_path / "alone")
    script = (
        "from pathlib import Path; from decoder.training.trainer import Trainer, train; "
        "from decoder.training.config import TrainingConfig; from decoder.neural.config import ModelConfig; "
        "import os, random, signal, sys, threading; "
        "die = lambda: threading.Timer(random.uniform(0, 0.05), os.kill, (os.getpid(), signal.SIGKILL)).start(); "
        "resume = 'resume' in sys.argv; "
        "progress = lambda report: die() if report.step == 6 and not resume else None; "
        f"train({config!r}, out=Path(sys.argv[1]), resume=resume, progress=progress)"
    )
    out = tmp_path / "killed"
    command = [sys.executable, "-c", script, str(out)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (out / WEIGHTS).exists()
    subprocess.run([*command, "resume"], check=True)
    assert_same(final_tensors(out), final_tensors(tmp_path / "alone"))
    assert_same(read_safetensors(out / WEIGHTS)[1], read_safetensors(tmp_path / "alone" / WEIGHTS)[1])
    steps = [line.split(",")[0] for line in (out / LOG).read_text().splitlines()[1:-1]]
    assert steps == [str(s) for s in (1, *range(2, 61, 2))]


def test_sigterm_leaves_a_complete_run_to_resume(tmp_path: Path) -> None:
    config = replace(TINY, steps=10_000)

    def stop(report: Progress) -> None:
        if report.step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    weights = train(config, out=tmp_path, progress=stop)
    header, _ = read_safetensors(tmp_path / CHECKPOINT)
    assert header["counters"]["step"] == 6
    assert load_weights(weights)[1].provenance["steps"] == 6
    train(replace(config, steps=7), out=tmp_path, resume=True)
    assert read_safetensors(tmp_path / CHECKPOINT)[0]["counters"]["step"] == 7


def test_minutes_end_a_run(tmp_path: Path) -> None:
    train(replace(TINY, steps=None, minutes=0.02), out=tmp_path)
    assert read_safetensors(tmp_path / CHECKPOINT)[0]["counters"]["seconds"] >= 1.2


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    config = replace(TINY, micro_batches=4)
    train(config, out=tmp_path / "one")
    script = tmp_path / "run.py"
    script.write_text(
        "from pathlib import Path\nfrom decoder.training.trainer import Trainer, train\n"
        "from decoder.training.config import TrainingConfig\nfrom decoder.neural.config import ModelConfig\n"
        f"train({config!r}, out=Path({str(tmp_path / 'two')!r}))\n"
        # Left over, they abort one exit of the interpreter in a dozen.
        "threads = [(task / 'comm').read_text() for task in Path('/proc/self/task').iterdir()]\n"
        "assert not any('gloo' in name for name in threads), threads\n"
    )
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
    )

    def losses(run: str) -> list[float]:
        rows = [line.split(",") for line in (tmp_path / run / LOG).read_text().splitlines()[1:]]
        return [float(row[4]) for row in rows if row[4]]

    np.testing.assert_allclose(losses("two"), losses("one"), atol=2e-5)


def test_a_run_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    train(replace(TINY, steps=2), out=tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(FileExistsError, match="--resume"):
        train(replace(TINY, steps=2), out=tmp_path)
    with pytest.raises(ValueError, match="width"):
        train(replace(TINY, steps=4, model=replace(NETWORK, width=16)), out=tmp_path, resume=True)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_resumed_run_takes_other_learning_rates(tmp_path: Path) -> None:
    train(replace(TINY, steps=2), out=tmp_path)
    rates: list[float] = []
    config = replace(TINY, steps=4, muon_lr=0.001, warmup_steps=0, decay_fraction=0.0)
    train(config, out=tmp_path, resume=True, progress=lambda report: rates.append(report.lr))
    assert rates == [0.001]


def test_the_first_steps_are_reported_and_validations_tell_how_far_they_are(tmp_path: Path) -> None:
    steps: list[int] = []
    told: list[str] = []
    train(
        replace(TINY, steps=10, log_every=50, threads=None),
        out=tmp_path,
        progress=lambda report: steps.append(report.step),
        preparing=lambda what, fraction: told.append(what),
    )
    assert steps == [1, 2, 4, 8]
    assert told == [
        "trying how many threads are fastest",
        "validating: 16 of 32 shots",
        "validating: 32 of 32 shots",
        "decoding the same shots with bposd-osd0, once",
    ]


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--resume"):
        train(TINY, out=tmp_path, resume=True)


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OSError, match="out"):
        train(TINY, out=tmp_path / "out")


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    train(replace(TINY, steps=2), out=tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    size = len(before)
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))  # writes past it fail like on a full disk
    try:
        with pytest.raises(OSError, match="checkpoint"):
            train(replace(TINY, steps=4), out=tmp_path, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [CHECKPOINT, LOG, WEIGHTS]
    train(replace(TINY, steps=4), out=tmp_path, resume=True)


def test_init_from_another_code(tmp_path: Path) -> None:
    weights = train(replace(TINY, steps=4), out=tmp_path / "small")
    larger = replace(NETWORK, code="3,6,x+1+y,x+1+xy^2")
    config = replace(TINY, model=larger, init_from=str(weights), steps=1, muon_lr=1e-9, adam_lr=1e-9, ema_decay=0.0)
    train(config, out=tmp_path / "large")
    first, second = (load_weights(tmp_path / run / WEIGHTS)[0].state_dict() for run in ("small", "large"))
    torch.testing.assert_close(second["blocks.0.conv.weight"], first["blocks.0.conv.weight"])
    with pytest.raises(ValueError, match="does not fit"):
        train(replace(config, model=replace(NETWORK, width=24, heads=3)), out=tmp_path / "other")


def test_a_deeper_network_starts_as_the_shallower_one(tmp_path: Path) -> None:
    weights = train(replace(TINY, steps=4), out=tmp_path / "shallow")
    deeper = replace(TINY, model=replace(NETWORK, round_blocks=2, readout_blocks=3), init_from=str(weights))
    trainer = Trainer(deeper, out=tmp_path / "deep")
    events, _ = SAMPLER.sample(16, seed=1)
    shallow, _ = load_weights(weights)
    torch.testing.assert_close(trainer.model.scores(events, basis=0), shallow.scores(events, basis=0))
    trainer.step()
    grown = trainer.model.state_dict()
    assert all(grown[name].any() for name in grown if name.endswith(RESIDUAL_OUTPUTS))


def test_only_the_least_sure_shots_are_trained_on(tmp_path: Path) -> None:
    trainer = Trainer(replace(TINY, hard_share=0.25), out=tmp_path)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    events, _ = SAMPLER.sample(32, seed=1)
    chosen = FreshShots(trainer.config, trainer.model).least_sure(events, basis=0)
    top = trainer.model.scores(events, basis=0).topk(2, dim=1).values
    margin = top[:, 0] - top[:, 1]
    others = torch.tensor([i for i in range(32) if i not in chosen])
    assert len(chosen) == 8
    assert margin[chosen].max() <= margin[others].min()


def test_adamw_alone_and_the_coset_loss_train_too(tmp_path: Path) -> None:
    config = replace(TINY, steps=2, optimizer="adamw", coset_weight=0.5, hard_share=0.5)
    config = replace(config, model=replace(NETWORK, outputs="basis"))
    info = load_weights(train(config, out=tmp_path))[1]
    assert (info.config.outputs, info.provenance["training"]["optimizer"]) == ("basis", "adamw")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": ()}, "rounds"),
        ({"bases": "Y"}, "bases"),
        ({"p_min": 0.0}, "p_min"),
        ({"steps": 0}, "steps"),
        ({"minutes": -1.0}, "minutes"),
        ({"validation_p": (0.7,)}, "validation_p"),
        ({"hard_share": 0.0}, "hard_share"),
        ({"optimizer": "sgd"}, "muon, adamw"),
        ({"model": replace(NETWORK, architecture="blue"), "coset_weight": 0.1}, "blue"),
    ],
)
def test_impossible_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)  # type: ignore[arg-type]


def test_an_end_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--minutes or --steps"):
        train(replace(TINY, steps=None), out=tmp_path)
