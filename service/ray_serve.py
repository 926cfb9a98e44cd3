"""The service on a Ray cluster, as many replicas as `deploy/ray/serve.yaml` says behind the proxies of Ray Serve.

`serve run deploy/ray/serve.yaml` and `serve deploy` import this. Settings come from the environment as ever.
"""

from __future__ import annotations

import logging.config
import os

from fastapi import FastAPI
from ray import serve

from service.app import create_app
from service.models.engine import Engine
from service.settings import read_settings
from service.telemetry.logs import log_config

DEPLOYMENT = "tandem"
"""As deploy/ray/serve.yaml calls it."""

_YES = frozenset({"1", "true", "t", "yes", "y", "on"})  # as typer reads TANDEM_INSECURE


def make_app() -> FastAPI:
    """Makes a replica's application.

    Raises:
        ValueError: settings are wrong, or there are neither API keys nor TANDEM_INSECURE: a replica cannot see on
            which address the proxies listen.
        OSError: the file of API keys cannot be read.
    """
    settings = read_settings()
    insecure = os.environ.get("TANDEM_INSECURE", "").lower() in _YES
    if not (insecure or settings.api_keys or settings.api_keys_file):
        raise ValueError("no API keys are set; set TANDEM_API_KEYS or TANDEM_API_KEYS_FILE, or TANDEM_INSECURE=1")
    logging.config.dictConfig(log_config(form=settings.log_format, level=settings.log_level))
    return create_app(settings)


class Replica:
    """One process with all models. Ray sends it requests once `check_health` has returned."""

    app: FastAPI

    async def check_health(self) -> None:
        """Waits until the models are loaded, and checks what /readyz does. After three failures Ray replaces a replica.

        Raises:
            NotReadyError: a model cannot be loaded.
        """
        engine: Engine = self.app.state.engine
        await engine.wait_until_loaded()
        engine.check_ready()


app = serve.deployment(name=DEPLOYMENT)(serve.ingress(make_app)(Replica)).bind()
