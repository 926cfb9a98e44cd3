"""What tests in several folders share."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from tests.helpers import REPOSITORY

# An example that takes long on a busy machine is no failure; pytest's timeout ends what hangs.
settings.register_profile("tandem", deadline=None)
settings.load_profile("tandem")

# Processes that tests start run the code of this checkout, wherever else it is installed.
os.environ["PYTHONPATH"] = str(REPOSITORY)

# A shell's background jobs ignore Ctrl-C, and so would all processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Folder of circuits, error models and shots that other projects made; without it the test is skipped."""
    folder = Path(os.environ.get("TANDEM_VECTORS", REPOSITORY.parent / "shared" / "vectors"))
    if not folder.is_dir():
        pytest.skip(f"no independent test data in {folder}; set TANDEM_VECTORS to where they are")
    return folder
