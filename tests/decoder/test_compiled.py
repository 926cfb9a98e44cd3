import subprocess
import sys
from pathlib import Path

INNER = """
from decoder.compiled import compiled

@compiled
def inner(x):
    return x + {}
"""
OUTER = """
from inner import inner
from decoder.compiled import compiled

@compiled
def outer(x):
    return 10 * inner(x)

print(outer(1))
"""


def test_what_is_kept_is_out_of_date_when_another_file_of_the_folder_changes(tmp_path: Path) -> None:
    (tmp_path / "outer.py").write_text(OUTER)
    (tmp_path / "inner.py").write_text(INNER.format("1"))
    assert ran(tmp_path) == ran(tmp_path) == "20"
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbi")}
    assert kept
    assert ran(tmp_path) == "20"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbi")} == kept
    (tmp_path / "inner.py").write_text(INNER.format("200"))
    assert ran(tmp_path) == "2010"


def test_what_is_kept_is_out_of_date_when_a_file_of_the_room_around_it_changes(tmp_path: Path) -> None:
    """The room of p.room.within.outer is p/room, as decoder/serial is that of what decoder/serial/solutions holds."""
    (within := tmp_path / "p" / "room" / "within").mkdir(parents=True)
    (within / "outer.py").write_text(OUTER.replace("from inner", "from p.room.inner"))
    (tmp_path / "outer.py").write_text("import p.room.within.outer")
    (inner := within.parent / "inner.py").write_text(INNER.format("1"))
    assert ran(tmp_path) == ran(tmp_path) == "20"
    inner.write_text(INNER.format("200"))
    assert ran(tmp_path) == "2010"


def test_kept_files_that_are_cut_short_are_made_anew(tmp_path: Path) -> None:
    (tmp_path / "outer.py").write_text(OUTER)
    (tmp_path / "inner.py").write_text(INNER.format("1"))
    assert ran(tmp_path) == "20"
    for kept in ("*.nbi", "*.nbc"):
        files = {path: path.read_bytes() for path in tmp_path.rglob(kept)}
        assert files
        for path, content in files.items():
            path.write_bytes(content[: len(content) // 2] if kept == "*.nbc" else b"")
        assert ran(tmp_path) == "20"
        assert all(path.stat().st_size > len(content) // 2 for path, content in files.items())


def ran(folder: Path) -> str:
    root = Path(__file__).parents[2]
    command = [sys.executable, str(folder / "outer.py")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={"PYTHONPATH": str(root)})
    return done.stdout.strip()
