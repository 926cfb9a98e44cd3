"""Executes the Dockerfile without Docker: each RUN and COPY step, in a folder standing for the image's root.

What differs from `docker build`, and nothing else:

- FROM starts with an empty folder, not with Debian and Python: commands come from this machine. Absolute
  paths of the image, such as /opt/tandem, are taken below that folder.
- A virtual environment made by a step sees the packages of the one that runs the tests, and pip may not use
  the network. So pip still resolves every requirement against constraints.txt, and builds and installs
  Tandem, but does not download PyTorch once more.
- useradd is told to work on the folder's etc/passwd. Steps after USER run as whoever runs the tests.
- CMD serves BP-OSD alone: the kernels of the network would have to be compiled once more for this copy of the code.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY, eventually, running

PACKAGES = ("simulation", "decoder", "service")
MODEL = {"id": "m", "code": "bb72", "decoder": "bposd", "rounds": 1}
# A slash that begins a path of the image: after a space, =, : or quote, but not the second one of a URL.
ABSOLUTE_PATH = re.compile(r"(?<![^\s=:'\"])/(?=\w)(?!dev/null)")


def instructions(text: str) -> list[tuple[str, str]]:
    """(keyword, arguments) of each instruction, comments dropped and continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0].upper(), line.split(maxsplit=1)[1]) for line in joined.splitlines() if line]


def ignore_rules(text: str) -> list[tuple[re.Pattern[str], bool]]:
    """(pattern, whether it excludes) of each line of a .dockerignore; the last that matches decides."""
    wildcards = {r"\*\*/": "(?:.*/)?", r"\*\*": ".*", r"\*": "[^/]*", r"\?": "[^/]"}
    rules = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if not line.startswith("#"):
            regex = re.escape(line.removeprefix("!").strip("/"))
            regex = re.sub("|".join(map(re.escape, wildcards)), lambda found: wildcards[found[0]], regex)
            rules.append((re.compile(regex + "(/.*)?"), not line.startswith("!")))
    return rules


def is_ignored(path: str, rules: list[tuple[re.Pattern[str], bool]]) -> bool:
    return next((excludes for pattern, excludes in reversed(rules) if pattern.fullmatch(path)), False)


def make_context(target: Path) -> None:
    """Copies what `docker build` would send: the repository less what .dockerignore excludes."""
    rules = ignore_rules((REPOSITORY / ".dockerignore").read_text())
    for folder, folders, files in os.walk(REPOSITORY):
        relative = Path(folder).relative_to(REPOSITORY)
        folders[:] = [name for name in folders if not is_ignored((relative / name).as_posix(), rules)]
        for name in files:
            if not is_ignored((relative / name).as_posix(), rules):
                (target / relative).mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / relative / name, target / relative / name)


@dataclass
class Image:
    """Carries out instructions. The current stage is always built in the same folder, as it is always /."""

    folder: Path
    executed: list[str] = field(default_factory=list)
    stages: dict[str, Path] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "root"
    port: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)

    @property
    def context(self) -> Path:
        return self.folder / "context"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def path(self, inside: str) -> Path:
        return self.root / os.path.join(self.workdir, inside).lstrip("/")

    def here(self, text: str) -> str:
        """Text with the image's absolute paths taken below the folder."""
        return ABSOLUTE_PATH.sub(lambda _: f"{self.root}/", text)

    def run(self, command: list[str]) -> str:
        """Output of a command that is to succeed, found and run as a step or a container would."""
        executable = str(shutil.which(command[0], path=self.environment["PATH"]))
        done = subprocess.run(
            [executable, *command[1:]],
            cwd=self.path("."),
            env=self.environment,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, f"{shlex.join(command)} failed:\n{done.stdout}"
        return done.stdout

    def do(self, keyword: str, arguments: str) -> None:
        getattr(self, f"do_{keyword.lower()}")(arguments)

    def do_from(self, arguments: str) -> None:
        name = arguments.split()[2] if " AS " in arguments.upper() else "final"
        if self.root.exists():
            last = list(self.stages)[-1]
            self.stages[last] = self.root.rename(self.folder / f"stage-{last}")
        self.stages[name] = self.root
        self.root.mkdir()
        self.workdir, self.user = "/", "root"
        search = [Path(sys.executable).parent, *map(Path, ("/usr/sbin", "/usr/bin", "/sbin", "/bin"))]
        self.environment = {
            "PATH": ":".join(map(str, search)),
            "HOME": str(self.root / "root"),
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # as pip reads it: no isolation
        }

    def do_arg(self, arguments: str) -> None:
        name, _, value = arguments.partition("=")
        if self.stages:  # those before the first FROM only choose the base image
            self.environment[name] = value

    def do_env(self, arguments: str) -> None:
        for assignment in shlex.split(self.here(arguments)):
            name, _, value = assignment.partition("=")
            self.environment[name] = re.sub(r"\$\{(\w+)\}", lambda found: self.environment[found[1]], value)

    def do_workdir(self, arguments: str) -> None:
        self.workdir = os.path.join(self.workdir, arguments)
        self.path(".").mkdir(parents=True, exist_ok=True)

    def do_run(self, arguments: str) -> None:
        (self.root / "etc").mkdir(exist_ok=True)
        command = self.here(arguments).replace("useradd ", f"useradd --prefix {self.root} ")
        self.run(["/bin/sh", "-e", "-c", command])
        for mark in self.root.rglob("pyvenv.cfg"):
            self.open_environment(mark.parent)
        self.executed.append(f"RUN {arguments}")

    def open_environment(self, folder: Path) -> None:
        """Lets a virtual environment see the packages of the one that runs the tests."""
        (packages,) = folder.glob("lib/python*/site-packages")
        link = packages / "outer.pth"
        if not link.exists():
            link.write_text(sysconfig.get_path("purelib") + "\n")
            # What `venv` itself put there would hide a newer one.
            self.run([str(folder / "bin/python"), "-m", "pip", "uninstall", "--yes", "--quiet", "setuptools"])

    def do_copy(self, arguments: str) -> None:
        *sources, target = (word for word in arguments.split() if not word.startswith("--"))
        stage = re.search(r"--from=(\S+)", arguments)
        into_folder = len(sources) > 1 or target.endswith("/")
        for source in sources:
            origin = self.stages[stage[1]] / source.lstrip("/") if stage else self.context / source
            assert origin.exists(), f"COPY {source}: there is no such file, or .dockerignore hides it"
            goal = self.path(target) / origin.name if into_folder and origin.is_file() else self.path(target)
            goal.parent.mkdir(parents=True, exist_ok=True)
            if origin.is_dir():
                shutil.copytree(origin, goal, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy2(origin, goal)
        self.executed.append(f"COPY {arguments}")

    def do_user(self, arguments: str) -> None:
        self.user = arguments

    def do_expose(self, arguments: str) -> None:
        self.port = arguments

    def do_healthcheck(self, arguments: str) -> None:
        self.healthcheck = json.loads(arguments.split("CMD", 1)[1])

    def do_cmd(self, arguments: str) -> None:
        self.command = json.loads(arguments)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    if shutil.which("useradd", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("this machine has no useradd, so it cannot stand for the Debian of the image")
    image = Image(tmp_path_factory.mktemp("image"))
    make_context(image.context)
    for keyword, arguments in instructions((REPOSITORY / "Dockerfile").read_text()):
        image.do(keyword, arguments)
    return image


@pytest.fixture
def server(image: Image) -> Iterator[str]:
    """The port on which the image's CMD answers; loopback, and a free one instead of that of EXPOSE."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    command = [{"0.0.0.0": "127.0.0.1", image.port: port}.get(word, word) for word in image.command]
    executable = shutil.which(command[0], path=image.environment["PATH"])
    with (image.folder / "server.log").open("w") as log:
        environment = image.environment | {"TANDEM_MODELS": json.dumps([MODEL])}
        options = {"cwd": image.path("."), "env": environment, "stdout": log, "stderr": log}
        with running(str(executable), *command[1:], **options) as process:
            yield port
            process.terminate()
            assert process.wait() == 0


def test_the_context_holds_the_packages_and_nothing_private(image: Image) -> None:
    files = {path.relative_to(image.context).as_posix() for path in image.context.rglob("*")}
    assert {f"{package}/__init__.py" for package in PACKAGES} <= files
    private = (".git", ".venv", "tests")
    assert not [path for path in files if "__pycache__" in path or path.startswith(private)]


def test_ignore_rules_follow_docker() -> None:
    rules = ignore_rules("# comment\n*\n!kept\n**/__pycache__\n**/*.pyc\n!kept/special.pyc\n")
    assert is_ignored("other/file.py", rules)
    assert not is_ignored("kept/deep/file.py", rules)
    assert is_ignored("kept/deep/__pycache__/file.py", rules)
    assert is_ignored("kept/file.pyc", rules)
    assert not is_ignored("kept/special.pyc", rules)


def test_every_step_works(image: Image) -> None:
    text = (REPOSITORY / "Dockerfile").read_text()
    assert [step.split()[0] for step in image.executed] == re.findall(r"^(RUN|COPY)\b", text, re.MULTILINE)


def test_the_image_holds_the_packages_and_their_data(image: Image) -> None:
    code = "import simulation, decoder, service as s; print(simulation.__file__, decoder.__file__, s.__file__)"
    found = [Path(name) for name in image.run(["python", "-c", code]).split()]
    installed = image.root / "opt" / "tandem"
    assert all(path.is_relative_to(installed) for path in found)
    for package, path in zip(PACKAGES, found, strict=True):
        sources = {file.relative_to(image.context) for file in (image.context / package).rglob("*")}
        copies = {file.relative_to(path.parents[1]) for file in path.parent.rglob("*")}
        assert sources - copies == set()


def test_the_image_runs_as_an_unprivileged_user(image: Image) -> None:
    accounts = (line.split(":") for line in (image.root / "etc" / "passwd").read_text().splitlines())
    (account,) = (fields for fields in accounts if fields[0] == image.user)
    assert int(account[2]) > 0
    assert (image.root / account[5].lstrip("/")).is_dir()


def test_the_command_serves_until_the_healthcheck_is_content(image: Image, server: str) -> None:
    check = [word.replace(f":{image.port}", f":{server}") for word in image.healthcheck]
    executable = str(shutil.which(check[0], path=image.environment["PATH"]))

    def content() -> bool:
        done = subprocess.run([executable, *check[1:]], env=image.environment, capture_output=True, check=False)
        return done.returncode == 0

    eventually(content)
