"""Prints how often settings of Relay-BP fail on the same shots, as a Markdown table.

    python scripts/relay_settings.py --detectors XZ --shots 40000 --solutions 1 5 --gamma0 0.125 --pre-iter 80 200

The shots are of a Z memory of bb72 over 6 rounds, with uniform circuit noise of p = 0.3 %. What came out is in
docs/results/relay-settings.md.
"""

import argparse
from dataclasses import replace
from itertools import product

from decoder.classical.relay_bp import RELAY_1, RelayBpSettings
from decoder.statistics import binomial_interval
from simulation.bases import Detectors
from simulation.circuits import MemoryExperiment
from simulation.sampling import sample


def failures(settings: RelayBpSettings, *, detectors: Detectors, shots: int, seed: int) -> int:
    """Shots with any observable predicted wrongly."""
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=6, p=0.003)
    samples = sample(experiment.circuit, shots=shots, seed=seed)
    decoder = settings.decoder(experiment.fault_model, grid=experiment.grid, detectors=detectors)
    predictions = decoder.decode_batch(samples.detection_events, bit_packed_shots=True)
    return int((predictions != samples.unpacked_observable_flips()).any(axis=1).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--detectors", choices=("XZ", "XYZ"), default="XZ")
    parser.add_argument("--shots", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=2029)
    parser.add_argument("--solutions", type=int, nargs="+", default=[RELAY_1.stop_nconv])
    parser.add_argument("--gamma0", type=float, nargs="+", default=[RELAY_1.gamma0])
    parser.add_argument("--pre-iter", type=int, nargs="+", default=[RELAY_1.pre_iter])
    arguments = parser.parse_args()
    print("| detectors | solutions | gamma0 | pre_iter | failures/shots | block failures (95 %) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for solutions, gamma0, pre_iter in product(arguments.solutions, arguments.gamma0, arguments.pre_iter):
        settings = replace(RELAY_1, stop_nconv=solutions, gamma0=gamma0, pre_iter=pre_iter)
        count = failures(settings, detectors=arguments.detectors, shots=arguments.shots, seed=arguments.seed)
        low, high = binomial_interval(count, arguments.shots)
        counts, rate = f"{count:,}/{arguments.shots:,}", count / arguments.shots
        interval = f"{100 * rate:.2f} % ({100 * low:.2f} % to {100 * high:.2f} %)"
        row = (arguments.detectors, solutions, gamma0, pre_iter, counts, interval)
        print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
