"""Does a pair of decoders keep its deadline? Single shots, one after the other, on a busy machine.

    python benchmarks/deadline.py --shots 100000 --load 2

Each call of the pair is timed, and in it its own first decoder. The second decoder works in worker processes, which
take cores for the shots that it still decodes when their answers are late; --load adds processes that never rest. A
call may take the deadline and one network time: its own, or the median of all calls, both are counted.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.harness import markdown_table, run_script, write_text
from decoder.base import Decoding, SoftDecoder
from decoder.benchmark.reporting.provenance import collect_provenance
from decoder.catalog import decoder_spec
from decoder.scheduling import take_short_slices
from decoder.statistics import binomial_interval
from decoder.tandem.decoder import TandemDecoder
from decoder.tandem.opinions import OpinionPool
from decoder.tandem.pairs import make_pair
from decoder.tandem.rule import Opinion
from simulation.bits import PackedBits, pack_bits
from simulation.circuits import MemoryExperiment
from simulation.shots.sampling import sample

WARMUP_CALLS = 20
RESTLESS = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"

Calls = dict[str, npt.NDArray[Any]]
"""Of each call, what `time_calls` says."""


class TimedDecoder:
    """A decoder that keeps how long its last call took."""

    def __init__(self, decoder: SoftDecoder) -> None:
        self.decoder = decoder
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.decoder, name)

    def decode_soft(self, shots: npt.NDArray[np.generic], *, bit_packed_shots: bool = False) -> Decoding:
        began = time.perf_counter()
        decoded = self.decoder.decode_soft(shots, bit_packed_shots=bit_packed_shots)
        self.seconds = time.perf_counter() - began
        return decoded


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `second` is the pair's second decoder.

    Raises:
        ValueError: the decoder is no pair.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", default="bb72")
    parser.add_argument("--basis", choices=("X", "Z"), default="Z")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--p", type=float, default=0.003)
    parser.add_argument("--shots", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=2031)
    parser.add_argument("--decoder", default="tandem", help="a pair, such as tandem")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--share", type=float, help="of the shots, the least confident, that the second decoder gets")
    parser.add_argument("--threshold", type=float, help="of the confidence, in place of a share")
    parser.add_argument("--deadline-ms", type=float, default=5.0)
    parser.add_argument("--processes", type=int, default=1, help="worker processes of the second decoder")
    parser.add_argument("--load", type=int, default=0, help="processes beside them that never rest")
    parser.add_argument(
        "--realtime",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="niceness -20 and memory locked, for this process alone",
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results/deadline"))
    options = parser.parse_args(arguments)
    options.second = decoder_spec(options.decoder).second
    if options.second is None:
        raise ValueError(f"{options.decoder} is no pair of decoders; use tandem or tandem-tesseract")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Times every call and writes deadline.json and results.md."""
    options = parse(arguments)
    setup = {name: value for name, value in vars(options).items() if name not in ("shots", "weights", "out")}
    experiment = MemoryExperiment.create(**{name: setup[name] for name in ("code", "basis", "rounds", "p")})
    samples = sample(experiment.circuit, shots=options.shots, seed=options.seed)
    torch.set_num_threads(1)
    with ExitStack() as stack:
        pool = OpinionPool(options.second, processes=options.processes)
        stack.callback(pool.close)
        rule = {name: setup[name] for name in ("share", "threshold", "deadline_ms")}
        pair = make_pair(options.second, experiment, weights=options.weights, pool=pool, **rule)
        pool.warm_up(experiment)
        provenance = collect_provenance([experiment], [{options.decoder: pair}])
        stack.enter_context(busy(options.load))
        if options.realtime:
            take_priority()
        short_slices = take_short_slices()
        faults = major_page_faults()
        calls = time_calls(pair, samples.detection_events, samples.observable_flips)
        faults = major_page_faults() - faults
    setup |= {"threshold": pair.threshold, "short_slices": short_slices}
    found = {**summary(calls, deadline_ms=options.deadline_ms), "major_page_faults": faults}
    result = {"setup": setup, **found, "provenance": provenance}
    write_text(options.out / "deadline.json", json.dumps(result, indent=2) + "\n")
    text = markdown(setup, found, provenance)
    write_text(options.out / "results.md", text)
    print(text)
    return 0


def take_priority() -> None:
    """Before all others, and no page of memory ever on disk: now, so that neither the workers nor the load inherit it.

    Raises:
        OSError: no right to it.
    """
    for thread in os.listdir("/proc/self/task"):
        os.setpriority(os.PRIO_PROCESS, int(thread), -20)
    everything_now_and_later = 3
    if ctypes.CDLL(None, use_errno=True).mlockall(everything_now_and_later):
        raise OSError(ctypes.get_errno(), "mlockall failed; raise the limit of locked memory (ulimit -l)")


def major_page_faults() -> int:
    """How often this process has waited for the disk to get a page of its memory, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def core_wait_seconds() -> float:
    """How long this thread has been ready to run while others had the cores, so far, by Linux' scheduler."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def time_calls(pair: TandemDecoder, events: PackedBits, flips: PackedBits) -> Calls:
    """Decodes shot by shot: milliseconds of each call and of its first decoder, who answered, and whether it failed.

    core_wait_ms is what the call waited for a core, its first decoder included. It is read outside of what is timed, as
    that now and then takes the kernel 100 ms.
    """
    first = TimedDecoder(pair.first)
    pair.first = cast(SoftDecoder, first)
    for shot in events[:WARMUP_CALLS]:
        pair.decode_soft(shot[None], bit_packed_shots=True)
    total_ms, first_ms, core_wait_ms = np.zeros(len(events)), np.zeros(len(events)), np.zeros(len(events))
    opinions, failed = np.zeros(len(events), np.uint8), np.zeros(len(events), np.bool_)
    gc.collect()
    gc.disable()  # what it finds is decided by what else the program holds, not by the decoders
    try:
        for i, shot in enumerate(events):
            waited, began = core_wait_seconds(), time.perf_counter()
            decoded = pair.decode_soft(shot[None], bit_packed_shots=True)
            total_ms[i] = 1e3 * (time.perf_counter() - began)
            first_ms[i] = 1e3 * first.seconds
            core_wait_ms[i] = 1e3 * (core_wait_seconds() - waited)
            opinions[i] = decoded.opinions[0]
            failed[i] = (pack_bits(decoded.predictions) != flips[i]).any()
    finally:
        gc.enable()
    times = {"total_ms": total_ms, "first_ms": first_ms, "core_wait_ms": core_wait_ms}
    return {**times, "opinions": opinions, "failed": failed}


def summary(calls: Calls, *, deadline_ms: float) -> dict[str, Any]:
    """What the calls come to, in plain values."""
    total, first = calls["total_ms"], calls["first_ms"]
    shots, failures = len(total), int(calls["failed"].sum())
    low, high = binomial_interval(failures, shots)
    unsure = calls["opinions"] != Opinion.FIRST
    over_own, over_median = total - deadline_ms - first, total - deadline_ms - np.median(first)
    return {
        "shots": shots,
        "failures": failures,
        "ler_low": low,
        "ler_high": high,
        "answers": {one.name.lower(): int((calls["opinions"] == one).sum()) for one in Opinion},
        "later_than_deadline": int((total > deadline_ms).sum()),
        "later_than_deadline_and_own_network_time": int((over_own > 0).sum()),
        "of_these_waited_longer_for_a_core": int(((over_own > 0) & (calls["core_wait_ms"] >= over_own)).sum()),
        "of_these_unsure": int((over_own[unsure] > 0).sum()),
        "largest_overshoot_ms": max(0.0, float(over_own.max())),
        "later_than_deadline_and_median_network_time": int((over_median > 0).sum()),
        "largest_overshoot_of_median_ms": max(0.0, float(over_median.max())),
        "network_alone_later_than_both": int((first > deadline_ms + np.median(first)).sum()),
        # Beyond what no call can do better: the deadline, or the first decoder where that takes longer.
        "largest_wait_beyond_need_ms": float((total - np.maximum(first, deadline_ms))[unsure].max(initial=0.0)),
        "total_ms": quantiles(total),
        "network_ms": quantiles(first),
    }


def quantiles(milliseconds: npt.NDArray[np.float64]) -> dict[str, float]:
    """The mean and observed quantiles."""
    ranks = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999, "max": 1.0}
    observed = {name: float(np.quantile(milliseconds, q, method="inverted_cdf")) for name, q in ranks.items()}
    return {"mean": float(milliseconds.mean()), **observed}


def markdown(setup: dict[str, Any], found: dict[str, Any], provenance: dict[str, Any]) -> str:
    """The same for people."""
    shots, answers = found["shots"], found["answers"]
    ends = f"{100 * found['ler_low']:.3g} to {100 * found['ler_high']:.3g} %"
    rows = [
        ("failures/shots (95 %)", f"{found['failures']:,}/{shots:,} ({ends})"),
        *((f"answers: {name}", f"{n:,} ({100 * n / shots:.3g} %)") for name, n in answers.items()),
        ("calls later than the deadline", f"{found['later_than_deadline']:,}"),
        (
            "later than the deadline and their own network time",
            f"{found['later_than_deadline_and_own_network_time']:,} (unsure: {found['of_these_unsure']:,}), by "
            f"{found['largest_overshoot_ms']:.3g} ms at most; {found['of_these_waited_longer_for_a_core']:,} of them "
            "waited longer than that for a core",
        ),
        (
            "later than the deadline and the median network time",
            f"{found['later_than_deadline_and_median_network_time']:,}, by "
            f"{found['largest_overshoot_of_median_ms']:.3g} ms at most; with the network's time alone "
            f"{found['network_alone_later_than_both']:,}",
        ),
        ("pages read from disk meanwhile", f"{found['major_page_faults']:,}"),
        ("longest wait beyond deadline or network, unsure shots", f"{found['largest_wait_beyond_need_ms']:.3g} ms"),
    ]
    times = [["", *found["total_ms"]]]
    for name, key in (("call", "total_ms"), ("network alone, in it", "network_ms")):
        times.append([name, *(f"{value:.3g} ms" for value in found[key].values())])
    machine = provenance["machine"]
    priority = "niceness -20 and memory locked" if setup["realtime"] else "no priority"
    return (
        f"# A deadline of {setup['deadline_ms']:g} ms\n\n"
        f"{setup['decoder']} ({setup['second']} below a confidence of {setup['threshold']:g}), {setup['code']}, "
        f"{setup['basis']} memory, {setup['rounds']} rounds, p = {100 * setup['p']:g} %, seed {setup['seed']}: "
        f"{shots:,} single shots, worker processes: {setup['processes']}, busy processes: {setup['load']}, "
        f"{priority}, short slices: {'yes' if setup['short_slices'] else 'no'}.\n\n"
        f"{markdown_table([('', ''), *rows])}\n\n{markdown_table(times)}\n\n"
        f"- command: `{provenance['command']}`\n- time: {provenance['time']}\n"
        f"- machine: {machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores, load average before "
        f"{machine['load_average']}\n"
    )


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keeps as many processes busy."""
    workers = [subprocess.Popen([sys.executable, "-c", RESTLESS]) for _ in range(count)]
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


if __name__ == "__main__":
    run_script(main)
