"""Where a result comes from: circuits, weights, code, versions, machine and command."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from decoder.base import Decoder
from simulation.experiments import Experiment

PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "stim",
    "sinter",
    "ldpc",
    "relay-bp",
    "tesseract-decoder",
    "qldpc-certificate-benchmark",
    "torch",
    "matplotlib",
    "ray",
)
GIT_SECONDS = 10


def collect_provenance(
    experiments: Sequence[Experiment],
    decoders: Sequence[Mapping[str, Decoder]],
    *,
    threads: int | None = None,
) -> dict[str, Any]:
    """Gathers what is needed to repeat and to judge a benchmark.

    Args:
        experiments: what was decoded.
        decoders: for each experiment, its decoders by name.
        threads: in each process that decodes; None for those that torch has in this one.

    Returns:
        Plain values, ready for JSON: time, command, circuits, weights, git, versions, machine.
    """
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command_line(sys.argv),
        "circuits": [experiment.parameters | {"sha256": circuit_sha256(experiment)} for experiment in experiments],
        "weights": _weights(decoders),
        "git": git_state(Path(__file__)),
        "versions": {"python": platform.python_version(), **_package_versions()},
        "machine": machine() | ({} if threads is None else {"threads": threads}),
    }


def circuit_sha256(experiment: Experiment) -> str:
    """sha256 of the circuit's file as stim writes it; without a circuit of that of the detector error model."""
    return hashlib.sha256(f"{experiment.source}\n".encode()).hexdigest()


def command_line(argv: Sequence[str]) -> str:
    """The command in shell words, with the names alone of files on absolute paths, which no other machine has."""
    return shlex.join([Path(argv[0]).name, *map(_portable, argv[1:])])


def _portable(word: str) -> str:
    option, equals, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{Path(value).name}" if value.startswith("/") else word


def git_state(path: Path) -> dict[str, Any] | None:
    """The commit that a source file was run from.

    Returns:
        ``{"commit": sha, "clean": whether no tracked file outside docs, where results go, differs from it}``; None
        where git does not track the file, as in an installed package.
    """
    folder = path.resolve().parent
    tracked = _git(folder, "ls-files", "--error-unmatch", path.name)
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)docs")
    if tracked is None or commit is None or changes is None:
        return None
    return {"commit": commit.strip(), "clean": not changes.strip()}


def machine() -> dict[str, Any]:
    """What computes, and how busy it is now.

    Returns:
        CPU model, logical cores of the machine and of this process, torch's threads, memory in GiB, the GPU, operating
        system and kernel, and the load average over the last 1, 5 and 15 minutes; None for what is not known.
    """
    torch = sys.modules.get("torch")  # a run that did not import it did not use its GPU either
    cores = os.cpu_count() or 1
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores,
        "threads": torch.get_num_threads() if torch is not None else 1,
        "memory_gib": _memory_gib(),
        "gpu": torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None,
        "system": f"{_distribution()}{platform.system()} {platform.release()} {platform.machine()}",
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def _weights(decoders: Sequence[Mapping[str, Decoder]]) -> list[dict[str, Any]]:
    """What each decoder with weights says about them, once each."""
    found: list[dict[str, Any]] = []
    for by_name in decoders:
        for name, decoder in by_name.items():
            info = getattr(decoder, "model_info", None)
            if info is not None and (entry := {"decoder": name, **info}) not in found:
                found.append(entry)
    return found


def _package_versions() -> dict[str, str | None]:
    return {"tandem": _version("tandem-decoder"), **{name: _version(name) for name in PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):  # no POSIX, or without these values
        return None


def _distribution() -> str:
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, "
    except (OSError, KeyError):  # not Linux
        return ""


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def describe(provenance: Mapping[str, Any]) -> str:
    """What `collect_provenance` found, as a list in Markdown."""
    git = provenance["git"]
    commit = "not in git" if git is None else git["commit"] + ("" if git["clean"] else " with changes")
    lines = [
        f"command: `{provenance['command']}`",
        f"time: {provenance['time']}",
        f"commit: {commit}",
        f"machine: {_machine(provenance['machine'])}",
        "versions: " + ", ".join(f"{name} {v}" for name, v in provenance["versions"].items() if v is not None),
    ]
    lines += [
        f"circuit {c['code']}, {c['basis']}, {'-' if c['rounds'] is None else c['rounds']} rounds, "
        f"p = {'-' if c['p'] is None else format(100 * c['p'], '.3g') + ' %'}, {c['noise']}: sha256 {c['sha256']}"
        for c in provenance["circuits"]
    ]
    for entry in provenance["weights"]:
        known = (f"{name} {value}" for name, value in entry.items() if isinstance(value, str | int | float))
        lines.append(f"weights: {', '.join(known)}")
    return "".join(f"- {line}\n" for line in lines)


def _machine(machine: Mapping[str, Any]) -> str:
    memory, load = machine["memory_gib"], machine["load_average"]
    parts = [
        machine["cpu"],
        f"{machine['usable_cores']} of {machine['cores']} cores",
        f"torch threads {machine['threads']}",
        *([] if memory is None else [f"{memory} GiB memory"]),
        f"GPU {machine['gpu'] or 'none'}",
        machine["system"],
    ]
    if load is not None:
        parts.append(f"load average {', '.join(f'{one:.2f}' for one in load)} (1, 5, 15 minutes)")
    return ", ".join(parts)
