"""What is built for others to install holds all that the installed packages need."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

PACKAGES = ("simulation", "decoder", "service")
DATA = {
    "simulation/codes/data/logicals.json",
    "decoder/weights/bb.safetensors",
    "decoder/training/recipes/bb72.toml",
    "decoder/training/recipes/bb72-alone.toml",
    "decoder/benchmark/reporting/templates/report.html",
    "decoder/benchmark/reporting/templates/report.md",
    "service/rest/web/index.html",
    "service/rest/web/script.js",
    "service/rest/web/style.css",
    *(f"{package}/py.typed" for package in PACKAGES),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=REPOSITORY, check=True)
    return folder


def test_the_wheel_holds_code_and_data(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {str(path.relative_to(REPOSITORY)) for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")}
    assert code | DATA <= names
    assert {name.split("/")[0] for name in names} == {
        *PACKAGES,
        f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info",
    }


def test_the_source_distribution_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    [source], [wheel] = built.glob("*.tar.gz"), built.glob("*.whl")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.iterdir()
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=unpacked, check=True)
    [again] = (unpacked / "dist").iterdir()
    assert again.name == wheel.name
    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(wheel).namelist()
