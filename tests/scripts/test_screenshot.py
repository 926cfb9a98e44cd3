"""scripts/screenshot.py makes the README's picture."""

import os
import shutil
import subprocess
import sys

import matplotlib.image
import pytest

from tests.helpers import REPOSITORY


def test_it_takes_a_picture_of_the_running_page(tmp_path):
    if shutil.which("chromium") is None:
        pytest.skip("there is no chromium on this machine; Debian's package of that name has it")
    models = '[{"id": "bb72-bposd", "code": "bb72", "decoder": "bposd", "rounds": 2}]'
    out = tmp_path / "page.png"
    options = ["--model", "bb72-bposd", "--rounds", "2", "--p", "0.01", "--shots", "2", "--out"]
    subprocess.run(
        [sys.executable, "scripts/screenshot.py", *options, out],
        cwd=REPOSITORY,
        env={**os.environ, "TANDEM_MODELS": models},
        check=True,
    )
    picture = matplotlib.image.imread(out)
    assert picture.shape[1] == 1120
    assert 600 < picture.shape[0] < 2000
    assert len(set(map(bytes, picture.reshape(-1, picture.shape[2])[::97]))) > 5  # not an empty page
