"""A benchmark's directory: results.json, results.csv, results.md and plots.

For latency there is times.npz too, for calibration bins.csv and least_confident.csv.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from decoder.benchmark.reporting.results import BenchmarkResult, CalibrationPoint
from decoder.benchmark.reporting.tables import nested_csv, to_csv, to_markdown
from simulation.files import atomic_write, write_text


def prepare_directory(out: Path | None, *, force: bool) -> None:
    """Makes sure, before hours of work, that a report can be written. Nothing is created yet.

    Args:
        out: the directory, which may be missing, with its parents; None where none is written.
        force: it may hold files.

    Raises:
        FileExistsError: it holds files, and `force` is not set.
        OSError: it is no directory, or cannot be created or written.
    """
    if out is None:
        return
    nearest = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is a file; give the name of a directory")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"the directory {nearest} is not writable")
    if not force and out.exists() and any(out.iterdir()):
        raise FileExistsError(f"the directory {out} is not empty; choose another name or pass --force")


def write_report(result: BenchmarkResult[Any], out: Path | None) -> None:
    """Writes a result into a directory, if there is one, checked before; each file is complete or absent.

    Raises:
        OSError: a file cannot be written.
    """
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(out / "results.json", text + "\n", force=True)
    write_text(out / "results.csv", to_csv(result.points), force=True)
    if isinstance(result.points[0], CalibrationPoint):
        for column in ("bins", "least_confident"):
            write_text(out / f"{column}.csv", nested_csv(result.points, column), force=True)
    from decoder.benchmark.reporting.plots import draw_plots  # matplotlib takes half a second to import

    for name, figure in draw_plots(result).items():
        with atomic_write(out / name, force=True) as partial:
            figure.savefig(partial, format="png", dpi=150)
    if result.times:
        _write_times(result, out / "times.npz")
    write_text(out / "results.md", to_markdown(result), force=True)


def _write_times(result: BenchmarkResult[Any], path: Path) -> None:
    """For point i, `us_i` holds the time and `failures_i` the block failures of every call, in as few bytes as do.

    float32 keeps seven digits of the time.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for i, (point, times) in enumerate(zip(result.points, result.times, strict=True)):
        arrays[f"us_{i}"] = times.microseconds.astype(np.float32)
        arrays[f"failures_{i}"] = times.failures.astype(np.min_scalar_type(point.batch))
    with atomic_write(path, force=True) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
