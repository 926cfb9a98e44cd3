"""What someone who has never seen Tandem needs to know to read its results."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from decoder.benchmark.reporting.result_tree import Kind

INTRODUCTION = (
    "Tandem decodes bivariate bicycle codes, a family of quantum error-correcting codes. A quantum memory measures "
    "the checks of its code round after round. Where a measurement contradicts the rounds before, there is a detection "
    "event. From all detection events of a shot, a decoder has to tell which logical observables were flipped.",
    "All shots are simulated: Stim samples the faults of a noisy circuit, so the right answer is known for every shot. "
    "The results say how often decoders are wrong, how long they take, or whether they know when they are wrong.",
)

WORDS: Mapping[str, str] = MappingProxyType(
    {
        "code": "[[n, k, d]]: n data qubits hold k logical qubits, and at least d of them must fail to change a "
        "logical qubit unnoticed. bb72 and the like are the ids of published codes.",
        "basis": "Which logical operators, X or Z, are prepared, kept and read.",
        "rounds": "Noisy cycles of check measurements, after which all data qubits are read.",
        "p": "The physical error rate. With uniform noise, every reset, measurement, CNOT and idle location fails "
        "with this probability.",
        "shot": "One run of the circuit from preparation to readout. A seed repeats the shots exactly.",
        "block failure": "A shot in which any of the k logical observables is predicted wrongly, over all rounds.",
        "block LER": "The block failure rate (logical error rate): failures / shots. In brackets its interval.",
        "interval": "The exact (Clopper-Pearson) 95 % binomial interval. Where two decoders' intervals overlap widely, "
        "the shots do not tell which one is better.",
        "< upper bound": "Nothing failed, and more shots may show failures: the rate is below the bound, the high end "
        "of the 95 % interval.",
        "XZ, XYZ": "Which detection events the decoder used: those of the checks that protect the memory basis (XZ), "
        "or those of both kinds of checks (XYZ), which tell more.",
    }
)
"""Words of every benchmark."""

KIND_WORDS: Mapping[Kind, Mapping[str, str]] = MappingProxyType(
    {
        "accuracy": {
            "per round": "1 - (1 - block LER)^(1 / rounds): the chance to fail in a round if all rounds have the same. "
            "It compares memories of different length, and is lower than the block LER.",
            "accepted": "With post-selection, shots of which the decoder is unsure are discarded. Failures are counted "
            "among the others, those accepted.",
        },
        "latency": {
            "time": "How long a call of the decoder takes, from the detection events to the answer.",
            "batch": "Shots in each call. With batch 1 every shot is on its own, as in an experiment that waits.",
            "p50, p90, p99, p99.9, max": "Quantiles: half of the calls took at most p50, 99 % at most p99; max is the "
            "slowest. They depend on the machine.",
            "complementary CDF": "The share of calls that take longer than t, against t. A curve that reaches far to "
            "the right has a slow tail.",
            "LER(t)": "The share of shots whose answer is wrong, or is not there after a time t. For late deadlines it "
            "is the block LER.",
        },
        "calibration": {
            "confidence": "The probability that the decoder gives to its own answer.",
            "ECE": "Expected calibration error: how far the confidence is, on average, from the share of shots "
            "decoded rightly. 0 is best.",
            "Brier": "The mean squared distance of the confidence from what came true (1 right, 0 wrong). 0 is best.",
            "least confident": "The shots with the lowest confidence. If they hold most failures, a caller who "
            "discards them is left with far fewer.",
        },
    }
)
"""Words of one kind of benchmark."""

KIND_TITLES: Mapping[Kind, str] = MappingProxyType(
    {"accuracy": "Accuracy", "latency": "Latency", "calibration": "Calibration"}
)
KIND_QUESTIONS: Mapping[Kind, str] = MappingProxyType(
    {
        "accuracy": "How often are the decoders wrong?",
        "latency": "How long do the decoders take, and how long at worst?",
        "calibration": "Does the decoder know when it is wrong?",
    }
)

TABLES: tuple[tuple[str, str], ...] = (
    ("discarded below", "Block failures among the shots that are accepted"),
    ("confidence below", "Failures among the least confident shots"),
    ("ECE", "Confidence against failures"),
    ("p50", "Times of the calls, and block failures"),
    ("failures/shots", "Block failures"),
)
"""What a table shows, by the first of these headings that it has."""

PLOTS: Mapping[str, str] = MappingProxyType(
    {
        "ler.png": "Block failure rates with 95 % intervals; an arrow points down from the upper bound where "
        "nothing failed",
        "per-round.png": "Failure rates for each round with 95 % intervals; an arrow points down from the upper bound "
        "where nothing failed",
        "ccdf.png": "Complementary CDF: the share of calls that take longer than a time t",
        "deadline.png": "LER(t): the share of shots decoded wrongly, or not within a time t",
        "violin.png": "How the times of the calls are distributed, a shape for each decoder",
        "reliability.png": "The share of shots decoded rightly against the confidence, and how many shots there are "
        "at each confidence; on the diagonal the confidence is right",
        "least-confident.png": "The share of all failures that the least confident shots hold",
        "accepted.png": "Post-selection: the failure rate, with 95 % intervals, of what is left when the least "
        "confident shots are discarded; an arrow points down from the upper bound where nothing failed",
        "tradeoff.png": "Failure rates with 95 % intervals against time: the mean for each shot (filled), and p99.9 "
        "(open, where there are calls enough)",
    }
)
"""What a plot shows, by its file's name."""
