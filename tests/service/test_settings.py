from __future__ import annotations

import json
from typing import Any

import pytest

from service.app import create_app
from service.settings import ModelSettings, Settings, default_models, read_settings


def test_bposd_is_served_by_default_beside_every_network():
    models = {model.id: model for model in default_models()}
    assert models["bb72-bposd"] == ModelSettings(id="bb72-bposd", code="bb72", decoder="bposd")
    for model in models.values():
        assert model.id == (model.code if model.decoder == "neural" else f"{model.code}-{model.decoder}")
        assert f"{model.code}-bposd" in models
        assert model.isolated is (model.decoder == "bposd")
    assert [model.id for model in models.values() if model.decoder == "tandem"] == ["bb72-tandem"]


def test_settings_come_from_the_environment(monkeypatch):
    model: dict[str, Any] = {
        "id": "mine",
        "code": "bb90",
        "decoder": "bposd-osd0",
        "rounds": 10,
        "basis": "X",
        "p": 0.01,
    }
    monkeypatch.setenv("TANDEM_MODELS", json.dumps([model]))
    monkeypatch.setenv("TANDEM_MAX_BODY_BYTES", "1000")
    settings = read_settings()
    assert settings.models == (ModelSettings(**model),)
    assert settings.max_body_bytes == 1000


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TANDEM_MAX_ROUNDS", "many", "TANDEM_MAX_ROUNDS: .*integer"),
        ("TANDEM_MAX_BATCH_SHOTS", "0", "TANDEM_MAX_BATCH_SHOTS: .*greater"),
        ("TANDEM_MODELS", "[", "models"),
        ("TANDEM_MODELS", "[]", "TANDEM_MODELS"),
        ("TANDEM_MODELS", '[{"id": "a/b", "code": "bb72"}]', r"TANDEM_MODELS\.0\.id"),
        ("TANDEM_MODELS", '[{"id": "a", "code": "bb72", "round": 3}]', r"TANDEM_MODELS\.0\.round"),
        ("TANDEM_MODELS", '[{"id": "a", "code": "bb72"}, {"id": "a", "code": "bb90"}]', "two models are called 'a'"),
        ("TANDEM_MODELS", '[{"id": "a", "code": "bb72", "rounds": 99}]', "raise max_rounds=40"),
        ("TANDEM_MAX_QUEUED_SHOTS", "5", "must be at least max_shots_per_request"),
    ],
)
def test_settings_out_of_range(monkeypatch, name, value, says):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=says) as caught:
        read_settings()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("TANDEM_MAX_BODY_BYTE", "did you mean TANDEM_MAX_BODY_BYTES"),
        ("tandem_api_key_file", "did you mean TANDEM_API_KEYS_FILE"),
        ("TANDEM_ZZZ", "docs/api.md"),
    ],
)
def test_misspelt_variables_are_refused(monkeypatch, name, says):
    monkeypatch.setenv(name, "5")
    with pytest.raises(ValueError, match=f"there is no such setting; .*{says}"):
        read_settings()


def test_variables_of_others_are_left_alone(monkeypatch):
    """Kubernetes sets some for each Service, also for one that is called tandem."""
    names = (
        "API_KEY",
        "SERVICE_HOST",
        "SERVICE_PORT_HTTP",
        "PORT",
        "PORT_8000_TCP_ADDR",
        "GPU_SERVICE_PORT",
        "GPU_PORT",
    )
    for name in names:
        monkeypatch.setenv(f"TANDEM_{name}", "tcp://10.0.0.1:8000")
    read_settings()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"code": "bb73"}, "bb73"),
        ({"decoder": "magic"}, "magic"),
        ({"noise": "loud"}, "loud"),
    ],
)
def test_models_that_do_not_exist(wrong, says):
    model = ModelSettings(**({"id": "a", "code": "bb72", "decoder": "bposd"} | wrong))
    with pytest.raises(ValueError, match=says):
        create_app(Settings(models=(model,)))
