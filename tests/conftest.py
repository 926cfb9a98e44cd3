"""What tests in several folders share."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from simulation.shots.sampling import usable_cores
from tests.helpers import PATIENCE_SECONDS, REPOSITORY

# An example that takes long on a busy machine is no failure; pytest's timeout ends what hangs.
settings.register_profile("tandem", deadline=None)
settings.load_profile("tandem")

# Processes that tests start run the code of this checkout, wherever else it is installed.
os.environ["PYTHONPATH"] = str(REPOSITORY)

# Each core has a worker that tests. More threads of torch and BLAS would keep cores busy with waiting for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Services of this machine are spoken to without TLS, and to read all certificates that the world trusts takes 30 ms.
os.environ["SSL_CERT_DIR"] = os.fspath(REPOSITORY / "tests")
os.environ.pop("SSL_CERT_FILE", None)

# Children at a low priority wait for all other tests of a busy machine.
os.environ.setdefault("TANDEM_BUILD_TIMEOUT_SECONDS", f"{PATIENCE_SECONDS:g}")

# A shell's background jobs ignore Ctrl-C, and so would all processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Files that keep a worker busy for longest, and so come first: one that began last would leave the other workers idle.
LONGEST_FIRST = (
    "service/test_ray.py",
    "decoder/test_sinter.py",
    "decoder/benchmark/counting/test_accuracy.py",
    "service/processes/test_workers.py",
    "service/test_cli.py",
    "deploy/test_dockerfile.py",
    "decoder/training/test_trainer.py",
    "service/client/test_client.py",
    "decoder/benchmark/counting/test_ray_collection.py",
    "decoder/neural/backends/test_numba.py",
    "service/test_fuzz.py",
    "service/streams/test_stream_bounds.py",
    "decoder/classical/test_rates.py",
    "decoder/neural/test_decoder.py",
    "service/models/test_second_opinions.py",
    "decoder/serial/test_kernels.py",
)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more worker than cores: at any time some test waits for a process that it has started."""
    return usable_cores() + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; `--no-loadscope-reorder` keeps that order when workers share the files."""
    ranks = {REPOSITORY / "tests" / name: rank for rank, name in enumerate(LONGEST_FIRST)}
    assert all(path.is_file() for path in ranks), "LONGEST_FIRST names a file that there is not"
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Folder of circuits, error models and shots that other projects made; without it the test is skipped."""
    folder = Path(os.environ.get("TANDEM_VECTORS", REPOSITORY.parent / "shared" / "vectors"))
    if not folder.is_dir():
        pytest.skip(f"no independent test data in {folder}; set TANDEM_VECTORS to where they are")
    return folder
