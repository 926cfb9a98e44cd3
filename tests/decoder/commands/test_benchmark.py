"""`tandem benchmark`: the JSON that is fixed."""

import json

EXPERIMENT = "--rounds 2 --basis Z --p 0.001"

ACCURACY = {
    *("code", "rounds", "basis", "p", "noise", "decoder", "detectors"),
    *("shots", "failures", "ler", "ler_low", "ler_high", "seconds", "seed"),
}
TIMES = {"batch", "mean_us", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"}


def test_accuracy_prints_the_fixed_json(succeed):
    result = json.loads(
        succeed(
            "benchmark accuracy --code bb72 --rounds 2 --basis Z --p 0.001,0.002 "
            "--decoders bposd,bposd-osd0 --shots 30 --seed 4 --json"
        )
    )
    assert set(result) == {"points", "provenance"}
    assert [(point["p"], point["decoder"]) for point in result["points"]] == [
        (0.001, "bposd"),
        (0.001, "bposd-osd0"),
        (0.002, "bposd"),
        (0.002, "bposd-osd0"),
    ]
    for point in result["points"]:
        assert set(point) == ACCURACY
        assert (point["code"], point["rounds"], point["basis"]) == ("bb72", 2, "Z")
        assert (point["noise"], point["detectors"]) == ("uniform", "XZ")
        assert (point["shots"], point["seed"]) == (30, 4)


def test_latency_prints_the_fixed_json_and_writes_a_report(folder, succeed, refuse):
    line = f"benchmark latency --code bb72 {EXPERIMENT} --decoders bposd-osd0 --shots 20 --batch 1,4 --out r"
    result = json.loads(succeed(f"{line} --json"))
    assert [point["batch"] for point in result["points"]] == [1, 4]
    for point in result["points"]:
        assert set(point) == ACCURACY | TIMES
        assert 0 < point["p50_us"] <= point["p99_us"] <= point["max_us"]
    assert json.loads((folder / "r" / "results.json").read_text())["points"] == result["points"]
    assert "r is not empty; choose another name or pass --force" in refuse(line)


def test_a_benchmark_prints_a_table(succeed):
    table = succeed(f"benchmark accuracy --code bb72 {EXPERIMENT} --decoders bposd-osd0 --shots 10 --seed 1")
    assert "bposd-osd0" in table
    assert "/10" in table
