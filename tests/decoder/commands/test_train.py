"""`tandem train`: where settings come from, and a run so small that it learns nothing."""

import csv
import json
import re
import tomllib
from dataclasses import asdict, replace

import pytest
from safetensors.torch import save
from typer.testing import CliRunner

from decoder.cli import app
from decoder.console.training import curve
from decoder.neural.backends.numba import NumbaBackend
from decoder.neural.decoder import NeuralDecoder
from decoder.neural.weights import load_weights, read_safetensors, shipped_weights
from decoder.training.config import dotted
from simulation.circuits import MemoryExperiment

TINY = (
    "--set judges=false --set p_points=1 --set curriculum_shots=0 --set width=8 --set heads=2 "
    "--set micro_batch=8 --set validation_shots=8 --set log_every=1 --threads 1"
)


def settings(text):
    return dotted(tomllib.loads(text))


def test_printed_settings_are_a_file_that_can_be_read(folder, succeed):
    text = succeed("train --print-config --set width=48 --set p_min=.0005 --rounds 4,6 --minutes 1.5")
    (folder / "settings.toml").write_text(text)
    assert succeed("train --print-config --config settings.toml") == text
    values = settings(text)
    assert (values["model.width"], values["p_min"], values["rounds"], values["minutes"]) == (48, 0.0005, [4, 6], 1.5)
    assert "steps" not in values


def test_options_count_more_than_set_and_set_more_than_the_file(folder, succeed):
    (folder / "settings.toml").write_text("seed = 1\nwidth = 16\nsteps = 5\n")
    values = settings(succeed("train --print-config --config settings.toml --set seed=2 --set width=32 --seed 3"))
    assert (values["seed"], values["model.width"], values["steps"]) == (3, 32, 5)


@pytest.mark.parametrize(
    "line", ["--set width=96", "--set model.width=96", "--config dotted.toml", "--config table.toml"]
)
def test_the_network_is_set_by_short_and_by_dotted_names(folder, succeed, line):
    (folder / "dotted.toml").write_text("model.width = 96\n")
    (folder / "table.toml").write_text("[model]\nwidth = 96\n")
    assert settings(succeed(f"train --print-config {line}"))["model.width"] == 96


@pytest.mark.parametrize("judges", [True, False], ids=["judge", "alone"])
def test_without_settings_the_network_that_ships_is_trained(succeed, judges):
    """The recipes are files of settings, too; the one of a network that decodes alone has the shape of the judge."""
    shipped = load_weights(shipped_weights("bb72"))[1].config
    printed = dotted({"model": asdict(replace(shipped, judges=judges))}).items()
    choice = "" if judges else " --set judges=false"
    found = settings(succeed(f"train --print-config --code bb72{choice}"))
    assert printed <= found.items()
    assert bool(found["others"]) == judges
    assert settings(succeed(f"train --print-config --config bb72{'' if judges else '-alone'}{choice}")) == found


def test_options_count_more_than_the_recipe_and_no_code_needs_one(succeed):
    values = settings(succeed("train --print-config --code bb72 --rounds 4 --set muon_lr=0.5 --init-from bb72"))
    assert (values["rounds"], values["muon_lr"], values["adam_lr"]) == ([4], 0.5, 0.0005)
    assert values["init_from"] == "bb72"
    assert settings(succeed("train --print-config --code bb72 --set init_from="))["init_from"] == ""
    assert settings(succeed("train --print-config --set validation_p=0.004"))["validation_p"] == [0.004]
    values = settings(succeed("train --print-config --code bb90"))
    assert (values["model.code"], values["model.readout_mixing"], values["rounds"]) == ("bb90", "conv", [6])


def test_values_of_set_need_no_quotes_or_brackets(succeed):
    values = settings(
        succeed(
            "train --print-config --set rounds=2,3 --set code=6,6,x^3+y+y^2,y^3+x+x^2 "
            "--set compile=true --set bases=X --set validation_p=0.001"
            ",0.002"
        )
    )
    assert values["rounds"] == [2, 3]
    assert values["model.code"] == "6,6,x^3+y+y^2,y^3+x+x^2"
    assert (values["compile"], values["bases"], values["validation_p"]) == (True, "X", [0.001, 0.002])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--set muon_rl=0.1", "unknown training setting 'muon_rl'; the nearest is 'muon_lr'"),
        ("--set model.p_min=0.1", "unknown training setting 'model.p_min'"),
        ("--init-from bb72 --set width=96 --steps 1 --out run", "or from nothing with --init-from ''"),
        ("--set width", "--set takes name=value, not 'width'"),
        ("--set width=big", "width='big': Input should be a valid integer"),
        ("--set p_max=0.6", "p_max=0.6"),
        ("--rounds 0", "rounds=(0,) must be numbers of at least 1"),
        ("--rounds two", "'two' is none"),
        ("--code bb73 --set judges=false --steps 1 --out run", "unknown code 'bb73'"),
        ("--steps 0", "steps=0 must be at least 1"),
        ("--minutes -1", "minutes=-1.0 must be above 0"),
        ("--steps 1", "add --out"),
        ("--out run", "say when to end"),
        ("--resume --out run", "there is no run in run to resume"),
        ("--config absent.toml", "there is no file absent.toml"),
        ("--init-from absent.safetensors --steps 1 --out run", "absent.safetensors"),
    ],
)
def test_bad_settings_are_one_line(folder, refuse, line, message):
    assert message in refuse(f"train {line}")
    assert not list(folder.glob("run/*.safetensors"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("wdith = 8\n", "unknown training setting 'wdith'; the nearest is 'width'"),
        ("[modle]\nwidth = 8\n", "unknown training setting 'modle'"),
        ("width = \n", "settings.toml is not TOML"),
        ("width = [8]\n", "training setting model.width=[8]: Input should be a valid integer"),
    ],
)
def test_bad_settings_files_are_one_line(folder, refuse, content, message):
    (folder / "settings.toml").write_text(content)
    assert message in refuse("train --config settings.toml --steps 1 --out run")
    assert not (folder / "run").exists()


def older_layout(checkpoint):
    """Makes a checkpoint one of those whose settings had no part of their own for the network."""
    header, tensors = read_safetensors(checkpoint)
    del header["config"]["init_from"]
    header["config"] |= header["config"].pop("model")
    checkpoint.write_bytes(save(tensors, metadata={"tandem": json.dumps(header)}))


def test_a_run_ends_resumes_and_decodes(folder, succeed, refuse):
    first = json.loads(succeed(f"train --rounds 2 --steps 2 --out run {TINY} --json"))
    assert (first["code"], first["steps"], first["shots"]) == ("bb72", 2, 2 * 2 * 8)
    assert first["weights"] == "run/weights.safetensors"

    assert "continue it with --resume or replace it with --force" in refuse("train --steps 2 --out run")
    assert "other settings for model.width" in refuse("train --resume --set width=16 --steps 3 --out run")

    older_layout(folder / "run/checkpoint.safetensors")
    second = json.loads(succeed("train --resume --steps 3 --out run --json"))
    assert second["steps"] == 3
    assert second["sha256"] != first["sha256"]
    with open("run/log.csv", newline="") as file:
        assert {row["step"] for row in csv.DictReader(file)} == {"1", "2", "3"}
    log = (folder / "run/log.csv").read_text()
    again = CliRunner().invoke(app, ["train", "--resume", "--out", "run"])
    assert (again.exit_code, "run is finished, after 3 of 3 steps; more --steps" in again.stderr) == (0, True)
    assert "training" not in again.stderr
    assert (folder / "run/log.csv").read_text() == log
    (folder / "run/weights.safetensors").unlink()  # killed before it had written them
    assert json.loads(succeed("train --resume --out run --json")) == second

    experiment = "--rounds 2 --basis Z --p 0.002"
    succeed(f"sample bb72 {experiment} --shots 16 --seed 1 --out s --obs-out o")
    decoded = json.loads(
        succeed(
            f"decode --decoder neural --weights run/weights.safetensors --code bb72 {experiment} "
            "--in s --obs-in o --out predictions --json"
        )
    )
    assert decoded["shots"] == 16
    made = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.002)
    decoder = NeuralDecoder.load(made, weights=folder / "run/weights.safetensors")
    assert isinstance(decoder.backend, NumbaBackend)
    assert (folder / "predictions").stat().st_size == 16 * 2
    assert "neural" in succeed(
        f"benchmark accuracy --decoders neural --weights run/weights.safetensors --code bb72 {experiment} --shots 8"
    )


def test_a_run_says_what_it_is_compared_with_and_that_it_is_worse(folder):
    trained = CliRunner().invoke(app, f"train --rounds 2 --steps 4 --out run {TINY} --set validation_p=0.02".split())
    lines = trained.stderr.splitlines()
    assert "compared with BP-OSD ('bposd-osd0') on 8 held-out shots of each experiment: p = 0.02, 2 rounds" in lines[0]
    assert re.search(r"step 1, [\d,]+ shots/s on cpu \(1 thread\), loss \d", trained.stderr)
    assert re.search(r"Z 0.02: 8 of 8 \(BP-OSD: [0-7] of 8\), X 0.02: 8 of 8", " ".join(trained.stdout.split()))
    assert "warning: the network fails more often than BP-OSD (Z 0.02, X 0.02)" in lines[-1]


def test_a_start_from_weights_takes_their_network_and_names_what_differs(folder, succeed):
    succeed(f"train --rounds 2 --steps 1 --out run {TINY}")
    found = settings(succeed("train --print-config --init-from run/weights.safetensors"))
    assert (found["model.width"], found["model.heads"], found["model.judges"]) == (8, 2, False)
    line = "train --init-from run/weights.safetensors --set round_blocks=2 --rounds 2 --steps 1 --out deeper"
    deeper = CliRunner().invoke(app, f"{line} --set validation_shots=8 --set validation_p=0.02".split())
    assert "other settings than in the weights run/weights.safetensors: model.round_blocks=2 instead of 1" in (
        deeper.stderr
    )


def test_a_curve_of_many_values_is_a_short_line():
    assert curve([3.0, 2.0, 1.0]) == "█▅▁"
    assert curve([1.0, 1.0]) == "▁▁"
    assert curve([float(value) for value in range(96)])[::47] == "▁█"
