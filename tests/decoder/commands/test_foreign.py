"""`--circuit` and `--dem`: files of others in the commands that take experiments."""

import json

import pytest
import stim

NOISE = {"after_clifford_depolarization": 0.005, "before_measure_flip_probability": 0.005}
SURFACE = stim.Circuit.generated("surface_code:rotated_memory_z", distance=3, rounds=3, **NOISE)


@pytest.fixture
def files(folder):
    SURFACE.to_file(folder / "d=3,r=3.stim")
    SURFACE.detector_error_model().to_file(folder / "surface.dem")
    return folder


@pytest.mark.parametrize("source", ["--circuit d=3,r=3.stim", "--dem surface.dem"])
@pytest.mark.parametrize("decoder", ["bposd", "serial"])
def test_shots_of_a_file_are_decoded(files, source, decoder, succeed):
    """About one of ten shots flips the observable, and the decoders are wrong in about one of fifty."""
    summary = json.loads(succeed(f"sample {source} --shots 500 --seed 3 --out s --obs-out o --format 01 --json"))
    assert (summary["num_detectors"], summary["num_observables"]) == (24, 1)
    flipped = (files / "o").read_text().count("1")
    summary = json.loads(
        succeed(f"decode --decoder {decoder} {source} --in s --obs-in o --out predictions --format 01 --json")
    )
    assert summary["shots"] == 500
    assert summary["failures"] <= 25 < flipped
    types = "two check types, by the circuit's" if "circuit" in source else "all detectors as one type (by coord"
    assert summary["check_types"].startswith(types)


def test_stims_own_shots_are_decoded_as_they_are(files, succeed):
    sampler = SURFACE.compile_detector_sampler(seed=4)
    sampler.sample_write(
        200, filepath=str(files / "s"), format="b8", obs_out_filepath=str(files / "o"), obs_out_format="b8"
    )
    line = "decode --decoder bposd --circuit d=3,r=3.stim --in s --obs-in o --out predictions --json"
    assert json.loads(succeed(line))["failures"] <= 15
    assert (files / "predictions").stat().st_size == 200


def test_benchmarks_of_files(files, succeed):
    line = "benchmark accuracy --circuit d=3,r=3.stim --dem surface.dem --decoders bposd,serial"
    points = json.loads(succeed(f"{line} --shots 300 --seed 1 --processes 1 --out accuracy --json"))["points"]
    assert [(point["code"], point["rounds"], point["p"]) for point in points] == [
        *[("d=3,r=3", 3, 0.005)] * 2,
        *[("surface", None, None)] * 2,
    ]
    assert [point["detectors"] for point in points] == ["XZ", "XYZ", "XYZ", "XYZ"]
    assert all(point["shots"] == 300 and point["failures"] <= 20 for point in points)
    assert points[0]["per_round"] is not None
    assert points[2]["per_round"] is None
    assert "| surface" in (files / "accuracy" / "results.md").read_text()
    succeed("benchmark report accuracy")
    line = "benchmark latency --circuit d=3,r=3.stim --decoders bposd --shots 50 --batch 1 --out latency"
    assert "d=3,r=3" in succeed(line)


def test_windows_are_counted_and_drawn(files, succeed):
    line = (
        "benchmark accuracy --circuit d=3,r=3.stim --decoders bposd,bposd-window-3-1 --shots 64 --seed 1 --processes 1"
    )
    points = json.loads(succeed(f"{line} --out windows --json"))["points"]
    assert [point["decoder"] for point in points] == ["bposd", "bposd-window-3-1"]
    assert (files / "windows" / "ler.png").stat().st_size > 1000


def test_a_sweep_goes_on_with_files(files, succeed):
    line = "benchmark accuracy --circuit d=3,r=3.stim --decoders bposd --seed 1 --processes 1 --out counts --json"
    succeed(f"{line} --shots 64")
    [point] = json.loads(succeed(f"{line} --shots 128 --resume"))["points"]
    assert point["shots"] == 128


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--circuit absent.stim", "there is no file absent.stim"),
        ("--circuit surface.dem", "surface.dem is not a stim circuit"),
        ("--dem d=3,r=3.stim", "(a stim circuit is given with --circuit)"),
        ("--circuit d=3,r=3.stim --code bb72", "--circuit says all of the experiment that --code would say"),
        ("--dem surface.dem --rounds 3 --p 0.1", "--dem says all of the experiment that --rounds, --p would say"),
        ("--circuit d=3,r=3.stim --dem surface.dem", "--circuit and --dem are both given"),
        ("", "--code and --rounds and --basis missing: describe a memory experiment, or give a file"),
        ("--code bb72 --rounds 2", "--basis missing"),
        ("--circuit none.stim", "none has no detectors"),
        ("--circuit silent.stim", "silent has no observables"),
        ("--circuit random.stim", "random has detectors or observables that are random"),
        ("--circuit ever.stim", "ever.stim is not a stim circuit"),
        ("--circuit long.stim", "long is too large: without its loops"),
        ("--circuit d=3,r=3.stim --window 9 --commit 3", "a window of 9 layers is longer than a shot of 4"),
        ("--circuit d=3,r=3.stim", "s has 7 bytes, no multiple of the 3 bytes of a shot (24 detectors)"),
    ],
)
def test_bad_input_is_one_line(files, line, message, refuse):
    (files / "s").write_bytes(b"\0" * (3 if "--window" in line else 7))
    (files / "none.stim").write_text("R 0\nM 0\n")
    (files / "ever.stim").write_text(f"R 0\nREPEAT {2**63} {{\nM 0\nDETECTOR rec[-1]\n}}\n")
    (files / "long.stim").write_text(f"R 0\nREPEAT {2**59} {{\nM 0\nDETECTOR rec[-1]\n}}\n")
    (files / "silent.stim").write_text("R 0\nX_ERROR(0.1) 0\nM 0\nDETECTOR rec[-1]\n")
    (files / "random.stim").write_text("H 0\nM 0\nDETECTOR rec[-1]\nOBSERVABLE_INCLUDE(0) rec[-1]\n")
    assert message in refuse(f"decode --decoder bposd {line} --in s --out predictions")
    assert not (files / "predictions").exists()


def test_shots_that_no_error_explains(files, refuse):
    (files / "pair.dem").write_text("error(0.1) D0 D1\nerror(0.1) D0 D1 L0\n")
    (files / "s").write_text("11\n10\n")
    line = "decode --decoder bposd --dem pair.dem --in s --out predictions --format 01"
    assert "no error explains the detection events of 1 of 2 shots, the first of which is shot 1" in refuse(line)
    assert not (files / "predictions").exists()


def test_errors_that_are_likely_or_certain(files, succeed, refuse):
    """D2 is always there; D0 and D1 together are likely one error, and D1 alone another one, which flips L0."""
    (files / "likely.dem").write_text("error(0.1) D0 L0\nerror(0.8) D0 D1\nerror(0.9) D1 L0\nerror(1) D2\n")
    (files / "s").write_text("111\n011\n")
    for name in ("bposd", "serial"):
        succeed(f"decode --decoder {name} --dem likely.dem --in s --out {name} --format 01")
        assert (files / name).read_text() == "0\n1\n"
    (files / "s").write_text("110\n")
    assert "no error explains" in refuse("decode --decoder serial --dem likely.dem --in s --out q --format 01")


def test_a_service_and_the_network_say_what_they_take(files, refuse):
    (files / "s").write_bytes(b"\0" * 3)
    line = "decode --circuit d=3,r=3.stim --in s --out predictions"
    refused = "the network does not apply to d=3,r=3: "
    assert refused in refuse(line)
    assert refused in refuse("tune --circuit d=3,r=3.stim")
