"""`tandem decode --url`: a service decodes, and all else is as without it."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from pathlib import Path

import pytest
import stim
from typer.testing import CliRunner

from service.app import create_app
from service.cli import app
from service.settings import ModelSettings, Settings

EXPERIMENT = "--code bb72 --rounds 2 --basis Z --p 0.002"
FILES = "--in s --out predictions --obs-in o"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    succeed("sample bb72 --rounds 2 --basis Z --p 0.002 --shots 120 --seed 5 --out s --obs-out o")
    return tmp_path


def succeed(line: str) -> str:
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.stderr or result.exception
    return result.stdout


def refuse(line: str) -> str:
    """The message of a command that has to fail in one line, and to write nothing."""
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 2, result.stderr or result.exception
    assert result.stdout == ""
    message = result.stderr.removesuffix("\n")
    assert message.startswith("tandem: ")
    assert "\n" not in message
    assert not Path("predictions").exists()
    return message


@pytest.mark.parametrize(
    ("chosen", "decoder"),
    [
        ("", "neural"),
        ("--decoder neural", "neural"),
        ("--decoder bposd", "bposd"),
        ("--model bb72-bposd", "bposd"),
        ("--model bb72-bposd --decoder bposd", "bposd"),
    ],
)
def test_it_writes_and_counts_what_decoding_here_does(folder, url, chosen, decoder):
    here = json.loads(succeed(f"decode --decoder {decoder} {EXPERIMENT} {FILES} --json"))
    predictions = (folder / "predictions").read_bytes()
    there = json.loads(succeed(f"decode --url {url} {chosen} {EXPERIMENT} {FILES} --json --force"))
    assert (folder / "predictions").read_bytes() == predictions
    assert any(predictions)
    model = "bb72" if decoder == "neural" else "bb72-bposd"
    assert ("mean_confidence" in here) == (decoder == "neural")
    assert there == here | {"model": model, "url": url, "seconds": there["seconds"]}
    assert there["shots"] == 120
    assert "failures" in there


def test_errors_and_confidence_are_those_of_decoding_here(folder, url):
    for options, name in (
        ("--decoder bposd --errors-out", "errors.b8"),
        ("--decoder neural --confidence-out", "sure.csv"),
    ):
        succeed(f"decode {options} here-{name} {EXPERIMENT} {FILES} --force")
        succeed(f"decode --url {url} {options} there-{name} {EXPERIMENT} {FILES} --force")
        assert (folder / f"here-{name}").read_bytes() == (folder / f"there-{name}").read_bytes() != b""
    (folder / "predictions").unlink()
    assert "tells no errors" in refuse(f"decode --url {url} --decoder neural --errors-out e {EXPERIMENT} {FILES}")
    assert "how sure it is" in refuse(f"decode --url {url} --decoder bposd --confidence-out c.csv {EXPERIMENT} {FILES}")


@pytest.mark.parametrize("format", ["01", "dets"])
def test_other_formats(folder, url, format):
    succeed(f"sample bb72 --rounds 3 --basis X --p 0.002 --shots 60 --seed 6 --out t --format {format}")
    line = f"decode --code bb72 --rounds 3 --basis X --p 0.002 --in t --format {format}"
    succeed(f"{line} --out here")
    assert "bb72" in succeed(f"{line} --out there --url {url}")
    assert (folder / "here").read_bytes() == (folder / "there").read_bytes()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--url {url} --model bb73", "there is no model 'bb73'; this service has bb72, bb72-bposd (status 404)"),
        ("--url {url} --decoder relay-5", "there is no model 'bb72-relay-5'"),
        ("--url {url} --decoder neural --model bb72-bposd", "decodes with bposd, not neural"),
        ("--url {url} --weights w.safetensors", "leave out --weights"),
        ("--url {url} --model ../v2", "'../v2' is not the id of a model"),
        ("--url {url} --noise si1000", "is for noise uniform, not si1000"),
        ("--url {url}/elsewhere", "/elsewhere/v1/models/bb72"),
        ("--url localhost:8000", "'localhost:8000' is not the URL of a service"),
        ("--url http://nobody.invalid", "no answer from http://nobody.invalid"),
        ("--model bb72", "add its --url"),
    ],
)
def test_what_is_refused(folder, url, line, message):
    assert message in refuse(f"decode {line.format(url=url)} {EXPERIMENT} {FILES}")


def test_a_circuit_from_a_file(folder, url):
    surface = stim.Circuit.generated(
        "surface_code:rotated_memory_x", distance=3, rounds=2, before_round_data_depolarization=0.02
    )
    Path("my.stim").write_text(str(surface))
    succeed("sample --circuit my.stim --shots 60 --seed 5 --out t")
    succeed("decode --decoder bposd --circuit my.stim --in t --out here")
    succeed(f"decode --url {url} --decoder bposd --circuit my.stim --in t --out there")
    assert (folder / "here").read_bytes() == (folder / "there").read_bytes()
    line = f"decode --url {url} --circuit my.stim --in t --out predictions"
    assert "model bb72 cannot decode it" in refuse(line)
    assert "no model of the service decodes with mle" in refuse(f"{line} --decoder mle")


def test_an_experiment_that_the_service_does_not_decode(folder, url):
    experiment = "--rounds 5 --basis Z --p 0.002"  # the service's bound is 4
    succeed(f"sample bb72 {experiment} --shots 2 --seed 5 --out t")
    line = f"decode --url {url} --code bb72 {experiment} --in t --out predictions"
    assert "rounds=5 is more than the 4" in refuse(line)


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        ("bb90", "", "is for code bb72, not bb90"),
        ("bb72", "--noiseless-last-cycle", "decode these without --url"),
        ("bb72", "--detectors XZ", "decode these without --url"),
    ],
)
def test_shots_that_no_service_or_not_this_model_decodes(folder, url, code, options, message):
    experiment = f"--rounds 2 --basis Z --p 0.002 {options}"
    succeed(f"sample {code} {experiment} --shots 2 --seed 5 --out t")
    line = f"decode --url {url} --model bb72 --code {code} {experiment} --in t --out predictions"
    assert message in refuse(line)


def test_nobody_listens(folder):
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        message = refuse(f"decode --url {url} {EXPERIMENT} {FILES}")
    assert f"no answer from {url}" in message
    assert "refused" in message


def test_a_shot_that_is_too_long_for_the_service(folder, listen, make):
    """A body of one shot is too long for it."""
    model = ModelSettings(id="bb72", code="bb72", rounds=2)
    small = create_app(Settings(models=(model,), max_body_bytes=17), make_decoder=make)
    with listen(small) as url:
        message = refuse(f"decode --url {url} {EXPERIMENT} {FILES}")
    assert "longer than 17 bytes" in message
    assert "413" in message


def test_a_service_that_never_becomes_ready(folder, listen):
    def make(model, experiment):
        raise FileNotFoundError("no such weights")

    app = create_app(Settings(models=(ModelSettings(id="bb72", code="bb72", rounds=2),)), make_decoder=make)
    with listen(app, wait_until_ready=False) as url:
        message = refuse(f"decode --url {url} {EXPERIMENT} {FILES}")
    assert "model bb72 is being loaded" in message
    assert "503" in message
