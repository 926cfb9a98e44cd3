import pytest

from decoder.benchmark.reporting.result_tree import read_tree
from decoder.benchmark.reporting.summary import summarize

COMMIT = "a" * 40


def commit(sha=COMMIT, clean=True):
    return lambda content: content["provenance"].update(git={"commit": sha, "clean": clean})


def test_what_was_measured_is_counted(tree, edit):
    edit(commit(), "accuracy", "deep/latency")
    summary = summarize(read_tree(tree))
    facts = dict(summary.facts)
    assert facts["results"] == "2 (accuracy 1, latency 1)"
    assert facts["codes"] == "bb72 [[72, 12, 6]]"
    assert facts["rounds"] == "1"
    assert facts["physical error rates"] == "1, 2 %"
    assert facts["shots decoded"].startswith(f"{2 * 40 + 2 * 24}, each counted once for every decoder")
    assert facts["seeds of the shots"] == "11, 12"
    [row] = summary.decoders.rows
    assert row[:2] == ("bposd-osd0", "XZ")
    assert row[2].startswith("BP-OSD")
    assert row[3] == "128"
    [origin] = summary.origins.rows
    assert origin[:2] == (COMMIT, "clean")
    assert origin[3] == "2"
    assert summary.warnings == ()


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (commit(clean=False), "1 of 2 results were made from a tree with uncommitted changes"),
        (commit("b" * 40), "The results come from 2 different commits"),
        (lambda content: content["provenance"].update(git=None), "1 of 2 results do not say from which commit"),
        (lambda content: content["provenance"]["machine"].update(cpu="Z80"), "come from 2 different machines"),
        (lambda content: content["provenance"]["machine"].update(gpu="Voodoo"), "come from 2 different machines"),
        (
            lambda content: content["provenance"]["machine"].update(threads=7),
            "2 different numbers of threads",
        ),
        (lambda content: content["provenance"]["versions"].update(stim="0.1"), "made with different versions of stim."),
    ],
)
def test_what_forbids_to_compare_or_repeat_is_said(tree, edit, change, warning):
    edit(commit(), "accuracy", "deep/latency")
    edit(change, "accuracy")
    assert any(warning in text for text in summarize(read_tree(tree)).warnings)


def test_noise_with_free_rates_has_no_p(tree, edit):
    edit(lambda content: content["points"][0].update(p=0.0, noise="cnot=0.1"), "accuracy")
    assert dict(summarize(read_tree(tree)).facts)["physical error rates"] == "1, 2 %, cnot=0.1"


def test_unknown_codes_and_decoders_keep_their_names(tree, edit):
    edit(lambda content: content["points"][0].update(code="6,6,x^3+y+y^2,y^3+x+x^2", decoder="oracle"), "accuracy")
    summary = summarize(read_tree(tree))
    assert dict(summary.facts)["codes"] == "6,6,x^3+y+y^2,y^3+x+x^2, bb72 [[72, 12, 6]]"
    assert summary.decoders.rows[0][:3] == ("oracle", "XZ", "")
