"""Whatever a user can get wrong: one line, exit code 2, and nothing written."""

import numpy as np
import pytest

from simulation.shots.files import write_shots

EXPERIMENT = "--rounds 2 --basis Z --p 0.001"
SAMPLE = "--shots 10 --seed 1 --out s"
DECODE = "--in s --out predictions"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("codes bb73", "unknown code 'bb73': use one of bb72, bb90"),
        ("codes 6,6,x^3+y,y^3+x+x^2", "give three"),
        (f"circuit bb73 {EXPERIMENT} -o c", "unknown code"),
        (f"sample bb73 {EXPERIMENT} {SAMPLE}", "unknown code"),
        (f"decode --code bb73 {EXPERIMENT} {DECODE}", "unknown code"),
        (f"benchmark accuracy --code bb73 {EXPERIMENT}", "unknown code"),
        (f"sample bb72 --rounds 2 --basis Z --p 0.5 {SAMPLE}", "p=0.5 is outside [0, 0.5)"),
        (f"sample bb72 --rounds 2 --basis Z --p -0.1 {SAMPLE}", "p=-0.1 is outside [0, 0.5)"),
        (f"sample bb72 --rounds 2 --basis Z --p nan {SAMPLE}", "p=nan is outside [0, 0.5)"),
        (f"sample bb72 --rounds 2 --basis Z --p much {SAMPLE}", "Invalid value for '--p'"),
        (f"sample bb72 --rounds 2 --basis Z {SAMPLE}", "add --p"),
        ("benchmark latency --code bb72 --rounds 2 --basis Z --p 0.001,0.6", "p=0.6 is outside [0, 0.5)"),
        ("benchmark latency --code bb72 --rounds 2 --basis Z --p 0.001,", "'' is none"),
        (f"sample bb72 --rounds 0 --basis Z --p 0.1 {SAMPLE}", "rounds=0 must be"),
        ("circuit bb72 --rounds -1 --basis Z --p 0.1 -o c", "rounds=-1 must be"),
        (f"sample bb72 --rounds 1.5 --basis Z --p 0.1 {SAMPLE}", "Invalid value for '--rounds'"),
        (f"sample bb72 --rounds 2 --basis Y --p 0.1 {SAMPLE}", "Invalid value for '--basis'"),
        (f"sample bb72 {EXPERIMENT} --noise loud {SAMPLE}", "unknown noise 'loud'"),
        (f"sample bb72 {EXPERIMENT} --noise cnot=0.1 {SAMPLE}", "leave one of the two out"),
        (f"sample bb72 --rounds 2 --basis Z --noise cnot=0.7 {SAMPLE}", "cnot=0.7 is outside [0, 0.5)"),
        (f"sample bb72 {EXPERIMENT} --shots 0 --out s", "shots=0 must be at least 1"),
        (f"sample bb72 {EXPERIMENT} --shots 1 --seed -1 --out s", "seed=-1 must be 0 or more"),
        (f"sample bb72 {EXPERIMENT} --shots 1 --processes 0 --out s", "processes=0 must be at least 1"),
        (f"sample bb72 {EXPERIMENT} --shots 100000000000000 --out s", "not enough memory"),
        (f"sample bb72 {EXPERIMENT} {SAMPLE} --format r8", "Invalid value for '--format'"),
        (f"sample bb72 {EXPERIMENT} {SAMPLE} --obs-out s", "s is named twice"),
        (f"sample bb72 {EXPERIMENT} --shots 1 --out absent/s", "there is no directory absent"),
        (f"sample bb72 {EXPERIMENT} --shots 1 --out .", "is a directory"),
        (f"sample bb72 {EXPERIMENT} --shots 1", "Missing option '--out'"),
        (f"decode --code bb72 {EXPERIMENT} {DECODE}", "there is no file s"),
        (f"decode --code bb72 {EXPERIMENT} --in s --out s", "s is named twice"),
        (f"benchmark accuracy --code bb72 {EXPERIMENT} --decoders magic", "unknown decoder 'magic'"),
        (f"benchmark accuracy --code bb72 {EXPERIMENT} --decoders bposd,bposd", "named twice"),
        (f"benchmark accuracy --code bb72 {EXPERIMENT} --decoders bposd --shots 0", "shots=0"),
        ("benchmark accuracy --code bb72 --rounds 2 --basis Z --p , --decoders bposd", "'' is none"),
        ("benchmark accuracy --code , --rounds 2 --basis Z --p 0.001", "unknown code ''"),
        ("benchmark accuracy --code bb72 --rounds 2,x --basis Z --p 0.001", "'x' is none"),
        ("benchmark accuracy --code bb72 --rounds 2,2 --basis Z --p 0.001", "an experiment is given twice"),
        ("benchmark accuracy --code bb72 --rounds 2 --basis Z,Y --p 0.001", "--basis takes X, Z or X,Z, not 'Z,Y'"),
        (f"benchmark accuracy --code bb72 {EXPERIMENT} --decoders bposd --max-errors 0", "max_errors=0"),
        (f"benchmark accuracy --code bb72 {EXPERIMENT} --decoders bposd --max-seconds 0", "max_seconds=0.0"),
        (f"benchmark accuracy --code bb72 {EXPERIMENT} --decoders bposd --processes 0", "processes=0"),
        (f"benchmark accuracy --code bb72 {EXPERIMENT} --decoders bposd --resume", "give it with --out"),
        (f"benchmark accuracy --code bb72 {EXPERIMENT} --decoders bposd --ray 127.0.0.1:1", "no Ray cluster answers"),
        (f"benchmark latency --code bb72 {EXPERIMENT} --decoders bposd --batch 0", "batch=0"),
        (f"benchmark latency --code bb72 {EXPERIMENT} --batch one", "'one' is none"),
        (f"benchmark calibration --code bb72 {EXPERIMENT} --decoder bposd", "use 'neural'"),
        (f"benchmark calibration --code bb72 {EXPERIMENT} --decoder magic", "unknown decoder 'magic'"),
        (f"benchmark calibration --code bb72 {EXPERIMENT} --shots 0", "shots=0"),
        (f"benchmark calibration --code bb72 {EXPERIMENT} --weights w.safetensors", "w.safetensors"),
        ("benchmark calibration --code bb72 --rounds 2 --basis Z --p 0.6", "p=0.6 is outside [0, 0.5)"),
        (f"benchmark accuracy --code bb72 {EXPERIMENT} --weights w --decoders neural --out new", "no weights file w"),
        (
            f"benchmark latency --code bb72 {EXPERIMENT} --weights w --decoders neural --out a/b",
            "no weights file w",
        ),
        (f"benchmark calibration --code bb72 {EXPERIMENT} --weights w --out new", "no weights file w"),
        ("benchmark accuracy --code bb72 --rounds 2 --basis Z --p 0 --decoders bposd --out new", "has no noise"),
        (f"decode --code bb72 {EXPERIMENT} --in - --obs-in - --out p", "standard input (-) is named twice"),
        (f"decode --code bb72 {EXPERIMENT} {DECODE} --confidence-out c.txt", "(.npz) or of text (.csv), not 'c.txt'"),
        (f"sample bb72 {EXPERIMENT} {SAMPLE}tray --obs-out /proc/nope", "cannot write /proc/nope: No such file"),
        (f"decode --code bb72 {EXPERIMENT} --in /dev/zero --out p", "/dev/zero is a device, which never ends"),
        ("benchmark", "Missing command"),
        ("simplify", "No such command 'simplify'"),
        ("codes --loud", "No such option: --loud"),
    ],
)
def test_bad_input_is_one_line(folder, line, message, refuse):
    assert message in refuse(line)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("format", "content", "message"),
    [
        ("b8", b"\0" * 28, "s has 28 bytes, no multiple of the 18 bytes of a shot (144 detectors)"),
        ("b8", b"", "s holds no shots"),
        ("01", b"0" * 143 + b"\n", "line 1 has 143 values"),
        ("01", b"0" * 143 + b"2\n", "has the character '2'"),
        ("dets", b"shot D144\n", "Got D144"),
    ],
)
def test_shots_that_do_not_fit_the_experiment(folder, format, content, message, refuse):
    (folder / "s").write_bytes(content)
    assert message in refuse(
        f"decode --decoder bposd --code bb72 {EXPERIMENT} --in s --out predictions --format {format}"
    )
    assert not (folder / "predictions").exists()


def test_flips_of_another_run_are_refused(folder, refuse):
    write_shots(folder / "s", np.zeros((3, 18), np.uint8), format="b8", num_detectors=144)
    write_shots(folder / "o", np.zeros((2, 2), np.uint8), format="b8", num_observables=12)
    line = f"decode --decoder bposd --code bb72 {EXPERIMENT} --in s --out predictions --obs-in o"
    assert "s holds 3 shots, but o holds the flips of 2" in refuse(line)


def test_decoders_that_cannot_be_made(folder, refuse):
    write_shots(folder / "s", np.zeros((3, 18), np.uint8), format="b8", num_detectors=144)
    line = f"decode --code bb72 {EXPERIMENT} --in s --out predictions"
    assert "unknown decoder 'magic'" in refuse(f"{line} --decoder magic")
    assert "has no weights to load" in refuse(f"{line} --decoder bposd --weights w.safetensors")


@pytest.mark.parametrize(
    "line",
    [
        f"circuit bb72 {EXPERIMENT} -o s",
        f"circuit bb72 {EXPERIMENT} -o c --dem s",
        # So many shots that the refusal has to come before the work.
        f"sample bb72 {EXPERIMENT} --shots 1000000000000 --out s",
        f"sample bb72 {EXPERIMENT} --shots 1000000000000 --out t --obs-out s",
        f"decode --code bb72 {EXPERIMENT} --in t --out s",
    ],
)
def test_an_output_that_exists_is_refused_before_any_work(folder, line, refuse):
    (folder / "s").write_text("precious")
    assert "s exists; choose another name or pass --force" in refuse(line)
    assert (folder / "s").read_text() == "precious"


def test_force_replaces_an_output(folder, succeed):
    (folder / "s").write_text("old")
    succeed(f"sample bb72 {EXPERIMENT} --shots 4 --seed 1 --out s --force")
    assert (folder / "s").stat().st_size == 4 * 18
