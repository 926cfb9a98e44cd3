"""`tandem benchmark`: the JSON that is fixed."""

import json

EXPERIMENT = "--rounds 2 --basis Z --p 0.001"

FAILURES = {
    *("code", "rounds", "basis", "p", "noise", "decoder", "detectors"),
    *("shots", "failures", "ler", "ler_low", "ler_high", "seconds", "seed"),
}
PER_ROUND = {
    *("per_round", "per_round_low", "per_round_high"),
    *("per_qubit_round", "per_qubit_round_low", "per_qubit_round_high"),
}
TIMES = {*("mode", "batch", "mean_us", "p50_us", "p90_us", "p99_us", "p999_us", "p9999_us", "max_us", "cores_used")}


def test_accuracy_prints_the_fixed_json(succeed):
    result = json.loads(
        succeed(
            "benchmark accuracy --code bb72 --rounds 2 --basis Z --p 0.001,0.002 "
            "--decoders bposd,bposd-osd0 --shots 30 --seed 4 --json"
        )
    )
    assert set(result) == {"points", "paired", "provenance"}
    assert [(pair["p"], pair["first"], pair["second"]) for pair in result["paired"]] == [
        (p, "bposd", "bposd-osd0") for p in (0.001, 0.002)
    ]
    assert [(point["p"], point["decoder"]) for point in result["points"]] == [
        (0.001, "bposd"),
        (0.001, "bposd-osd0"),
        (0.002, "bposd"),
        (0.002, "bposd-osd0"),
    ]
    for point in result["points"]:
        assert set(point) == FAILURES | PER_ROUND
        assert (point["code"], point["rounds"], point["basis"]) == ("bb72", 2, "Z")
        assert (point["noise"], point["detectors"]) == ("uniform", "XZ")
        assert (point["shots"], point["seed"]) == (30, 4)


def test_accuracy_sweeps_over_codes_rounds_and_bases(succeed):
    line = "benchmark accuracy --code bb72,bb90 --rounds 1,2 --basis x,Z --p 0.01 --decoders bposd-osd0 --shots 20"
    table = succeed(f"{line} --max-errors 5 --max-seconds 10 --processes 1")
    rows = [tuple(row.split()[:3]) for row in table.splitlines() if row.strip().startswith("bb")]
    assert rows == [(code, basis, rounds) for code in ("bb72", "bb90") for rounds in "12" for basis in "XZ"]


def test_accuracy_goes_on_with_what_is_counted(folder, succeed, refuse):
    line = f"benchmark accuracy --code bb72 {EXPERIMENT} --decoders bposd-osd0 --seed 3 --processes 1 --out r"
    succeed(f"{line} --shots 70")
    before = (folder / "r" / "blocks.csv").read_bytes()
    assert "r holds counts of an earlier run; --resume goes on with them" in refuse(f"{line} --shots 70")
    other = line.replace("0.001", "0.002")
    assert "r/blocks.csv, line 2, is not of this run" in refuse(f"{other} --shots 70 --resume")
    assert (folder / "r" / "blocks.csv").read_bytes() == before
    succeed(f"{line} --shots 64 --resume")  # the first block is whole, so nothing is decoded
    assert (folder / "r" / "blocks.csv").read_bytes() == before
    (folder / "r" / "blocks.csv").write_bytes(before[:-40])
    assert "r/blocks.csv, line 3, is not a whole line" in refuse(f"{line} --shots 70 --resume")
    assert (folder / "r" / "blocks.csv").read_bytes() == before[:-40]


def test_latency_prints_the_fixed_json_and_writes_a_report(folder, succeed, refuse):
    line = f"benchmark latency --code bb72 {EXPERIMENT} --decoders bposd-osd0 --shots 20 --batch 1,4 --out r"
    result = json.loads(succeed(f"{line} --json"))
    assert [point["batch"] for point in result["points"]] == [1, 4]
    for point in result["points"]:
        assert set(point) == FAILURES | TIMES
        assert 0 < point["p50_us"] <= point["p90_us"] <= point["max_us"]
        assert point["p99_us"] is None
        assert point["mode"] == "batch"
    assert json.loads((folder / "r" / "results.json").read_text())["points"] == result["points"]
    assert "r is not empty; choose another name or pass --force" in refuse(line)


def test_latency_prints_a_table_for_the_batches_that_fit(succeed, refuse):
    line = f"benchmark latency --code bb72 {EXPERIMENT} --decoders neural,bposd-osd0 --shots 10 --seed 1"
    rows = [row.split()[1:5] for row in succeed(line).splitlines() if row.strip().startswith("0.001")]
    assert rows == [
        ["neural", "XYZ", "batch", "1"],
        ["neural", "XYZ", "streamed", "1"],
        ["bposd-osd0", "XZ", "batch", "1"],
        ["neural", "XYZ", "batch", "8"],
        ["bposd-osd0", "XZ", "batch", "8"],
    ]
    assert "batch=11 must be at least 1 and at most shots=10" in refuse(f"{line} --batch 11")


def test_a_benchmark_prints_a_table(succeed):
    table = succeed(f"benchmark accuracy --code bb72 {EXPERIMENT} --decoders bposd-osd0 --shots 10 --seed 1")
    assert "bposd-osd0" in table
    assert "/10" in table


def test_calibration_prints_the_fixed_json_and_writes_a_report(folder, succeed, refuse):
    line = "benchmark calibration --code bb72 --rounds 2 --basis X --p 0.004,0.008 --shots 60 --seed 4 --out r"
    result = json.loads(succeed(f"{line} --json"))
    assert [point["p"] for point in result["points"]] == [0.004, 0.008]
    for point in result["points"]:
        assert set(point) == FAILURES | {"ece", "brier", "mean_confidence", "bins", "least_confident"}
        assert (point["decoder"], point["shots"], point["seed"]) == ("neural", 60, 4)
        assert 0 <= point["ece"] <= 1
        assert [least["share"] for least in point["least_confident"]] == [0.001, 0.005, 0.01, 0.02, 0.05, 0.1]
        held = [least["shots"] for least in point["least_confident"]]
        assert held[:3] == [0, 0, 0]
        assert 0 < held[-1] <= 6
        assert len(point["bins"]) == 15
    assert json.loads((folder / "r" / "results.json").read_text()) == result
    assert "r is not empty; choose another name or pass --force" in refuse(line)


def test_calibration_prints_two_tables(succeed):
    text = succeed("benchmark calibration --code bb72 --rounds 2 --basis Z --p 0.008 --shots 40 --seed 1")
    assert "ECE" in text
    assert "/40" in text
    shares = [line.split()[3:5] for line in text.splitlines() if line.split()[:1] == ["Z"]]
    assert shares == [[share, "%"] for share in ("0.1", "0.5", "1", "2", "5", "10")]


def test_calibration_takes_weights(folder, succeed):
    from decoder.neural.weights import shipped_weights

    (folder / "w.safetensors").write_bytes(shipped_weights("bb72").read_bytes())
    line = f"benchmark calibration --code bb72 {EXPERIMENT} --shots 20 --seed 1 --json"
    given, shipped = (json.loads(succeed(text)) for text in (f"{line} --weights w.safetensors", line))
    assert [point["ece"] for point in given["points"]] == [point["ece"] for point in shipped["points"]]


def test_post_selection_and_deadlines_on_the_command_line(succeed, refuse):
    line = f"benchmark accuracy --code bb72 {EXPERIMENT} --shots 20 --seed 1 --processes 1 --discard-below 0.5"
    table = succeed(f"{line} --decoders neural")
    assert "failures/accepted" in table
    assert "/20 (" in table
    assert "'bposd' does not say how sure it is" in refuse(f"{line} --decoders neural,bposd")
    late = f"benchmark latency --code bb72 {EXPERIMENT} --shots 5 --deadline-ms 5"
    assert "a deadline needs a pair of decoders" in refuse(f"{late} --decoders bposd-osd0")
