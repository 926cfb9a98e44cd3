"""Shot files: round trips, and one clear error for each thing that can be wrong with a file."""

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import stim
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from simulation.shots.files import read_shots, write_shots

FORMATS = ["b8", "01", "dets"]


def pack(bits):
    return np.packbits(np.asarray(bits, dtype=np.bool_), axis=1, bitorder="little")


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=30)
@given(bits=hnp.arrays(np.bool_, st.tuples(st.integers(0, 20), st.integers(1, 20))), detectors=st.integers(0, 20))
def test_what_is_written_is_read(tmp_path_factory, format, bits, detectors):
    path = tmp_path_factory.mktemp("shots") / "shots"
    detectors = min(detectors, bits.shape[1])
    counts = {"num_detectors": detectors, "num_observables": bits.shape[1] - detectors}
    write_shots(path, pack(bits), format=format, **counts)
    np.testing.assert_array_equal(read_shots(path, format=format, **counts), pack(bits))


@pytest.mark.parametrize("format", FORMATS)
def test_stim_reads_what_is_written(tmp_path, format):
    bits = np.random.default_rng(1).random((50, 13)) < 0.3
    write_shots(tmp_path / "shots", pack(bits), format=format, num_detectors=10, num_observables=3)
    read = stim.read_shot_data_file(path=tmp_path / "shots", format=format, num_detectors=10, num_observables=3)
    np.testing.assert_array_equal(read, bits)


@pytest.mark.parametrize(
    ("format", "content", "message"),
    [
        ("b8", b"\1\2\3", "has 3 bytes, no multiple of the 2 bytes of a shot .10 detectors."),
        ("b8", b"\1\4", "bits set beyond their 10 detectors"),
        ("01", b"0101010101\n0101210101\n", "line 2 has the character '2'"),
        ("01", b"0101010101\n010101010\n", "line 2 has 9 values"),
        ("01", b"0101010101\n01010101010\n", "line 2 has 11 values"),
        ("01", b"0101010101\n\n", "line 2 has 0 values"),
        ("01", b"0101010101", "line 1, the last, does not end with a newline"),
        ("01", b"\xff101010101\n", "line 1 has the character"),
        ("dets", b"shot D1\nshot D10\n", "Got D10 but expected length of D space to be 10"),
        ("dets", b"shot L0\n", "Got L0"),
        ("dets", b"shot D-1\n", "not followed by an integer"),
        ("dets", b"shot D99999999999999999999999\n", "too big"),
        ("dets", b"0101010101\n", "didn't start with 'shot'"),
    ],
)
def test_content_that_does_not_fit_is_one_line(tmp_path, format, content, message):
    path = tmp_path / "shots"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_shots(path, format=format, num_detectors=10)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_file_has_no_shots(tmp_path, format):
    (tmp_path / "shots").write_bytes(b"")
    assert read_shots(tmp_path / "shots", format=format, num_detectors=10).shape == (0, 2)


@pytest.mark.parametrize("format", FORMATS)
def test_files_that_cannot_be_read(tmp_path, format):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_shots(tmp_path / "absent", format=format, num_detectors=10)
    with pytest.raises(IsADirectoryError, match="is a directory"):
        read_shots(tmp_path, format=format, num_detectors=10)


def test_unknown_formats_and_empty_shots_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown shot format 'hits': use b8, 01, dets"):
        read_shots(tmp_path / "shots", format="hits", num_detectors=10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one detector or observable"):
        write_shots(tmp_path / "shots", np.zeros((3, 0), dtype=np.uint8), format="b8")


@pytest.mark.parametrize(
    ("shots", "message"),
    [
        (np.zeros((4, 3), np.uint8), r"shape \(shots, 2\), not uint8 \(4, 3\)"),
        (np.zeros((4, 10), np.bool_), "not bool"),
        (np.zeros(2, np.uint8), "not uint8"),
        (np.full((4, 2), 4, np.uint8), "bits set beyond their 10 detectors"),
    ],
)
def test_shots_that_do_not_fit_the_counts_are_not_written(tmp_path, shots, message):
    with pytest.raises(ValueError, match=message):
        write_shots(tmp_path / "shots", shots, format="b8", num_detectors=10)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_replaced_only_by_force(tmp_path):
    path = tmp_path / "shots"
    path.write_text("precious")
    shots = np.ones((1, 1), np.uint8)
    with pytest.raises(FileExistsError, match="exists; choose another name or pass --force"):
        write_shots(path, shots, format="b8", num_detectors=8)
    assert path.read_text() == "precious"
    write_shots(path, shots, format="b8", num_detectors=8, force=True)
    assert path.read_bytes() == b"\1"
    assert list(tmp_path.iterdir()) == [path]


def test_force_writes_through_a_symbolic_link(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_shots(tmp_path / "link", np.ones((1, 1), np.uint8), format="b8", num_detectors=8, force=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"\1"


def test_places_that_cannot_be_written(tmp_path):
    shots = np.ones((1, 1), np.uint8)
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        write_shots(tmp_path / "absent" / "shots", shots, format="b8", num_detectors=8)
    with pytest.raises(IsADirectoryError, match="is a directory"):
        write_shots(tmp_path, shots, format="b8", num_detectors=8, force=True)
    with pytest.raises(OSError, match="No space left on device"):
        write_shots(Path("/dev/full"), shots, format="b8", num_detectors=8)
    write_shots(Path("/dev/null"), shots, format="b8", num_detectors=8, force=True)
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_write_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="not writable"):
        write_shots(tmp_path / "shots", np.ones((1, 1), np.uint8), format="b8", num_detectors=8)


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_an_error_and_leaves_the_old_file(tmp_path, format):
    """A limit on the size of files stands in for the disk: both make a write come up short."""
    path = tmp_path / "shots"
    path.write_text("precious")
    code = f"""
        import numpy as np
        from pathlib import Path
        from simulation.shots.files import write_shots
        shots = np.full((10_000, 10), 255, np.uint8)
        try:
            write_shots(Path({str(path)!r}), shots, format={format!r}, num_detectors=80, force=True)
        except OSError as error:
            print(error)
    """
    limit = (50_000, 50_000)
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert "is the disk full?" in result.stdout
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]
