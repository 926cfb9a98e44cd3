"""What tests in several folders share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).parents[1]

# An example that takes long on a busy machine is no failure; pytest's timeout ends what hangs.
settings.register_profile("tandem", deadline=None)
settings.load_profile("tandem")


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Folder of circuits, error models and shots that other projects made; without it the test is skipped."""
    folder = Path(os.environ.get("TANDEM_VECTORS", REPOSITORY.parent / "shared" / "vectors"))
    if not folder.is_dir():
        pytest.skip(f"no independent test data in {folder}; set TANDEM_VECTORS to where they are")
    return folder
