"""Pairs whose second decoder works in processes of its own, so that they can keep a deadline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from decoder.base import Decoder
from decoder.benchmark.common import make_decoders
from decoder.catalog import decoder_spec, has_weights
from decoder.tandem.decoder import TandemDecoder
from decoder.tandem.opinions import NoOpinionError, OpinionPool
from decoder.tandem.pairs import make_pair
from simulation.experiments import Experiment


@contextmanager
def pairs_in_time(
    experiments: Sequence[Experiment], names: Sequence[str], *, weights: Path | None, deadline_ms: float
) -> Iterator[list[dict[str, Decoder]]]:
    """Makes decoders, those that are pairs with a deadline; the processes end with the context.

    Args:
        experiments: what to decode.
        names: decoders of the catalog, one of them a pair at least.
        weights: weights of the neural decoder; None for those that are shipped.
        deadline_ms: see `decoder.tandem.decoder.TandemDecoder`.

    Yields:
        For each experiment its decoders by name. All workers have made theirs.

    Raises:
        ValueError: no pair, a deadline that is not above 0, weights that do not fit, or a second decoder that cannot be
            made.
        OSError: the weights cannot be read.
    """
    seconds = {name: second for name in names if (second := decoder_spec(name).second) is not None}
    if not seconds:
        raise ValueError(
            f"a deadline needs a pair of decoders such as 'tandem', and {', '.join(names)} holds none; "
            "leave the deadline out or name one"
        )
    if not deadline_ms > 0:
        raise ValueError(f"deadline_ms={deadline_ms} must be above 0; leave it out to wait for all answers")
    others = [name for name in names if name not in seconds]
    others_weights = weights if any(map(has_weights, others)) else None
    with ExitStack() as stack:
        pools = {name: stack.enter_context(closing(OpinionPool(second))) for name, second in seconds.items()}

        def pair(name: str, experiment: Experiment) -> TandemDecoder:
            made = make_pair(seconds[name], experiment, weights=weights, pool=pools[name], deadline_ms=deadline_ms)
            try:
                pools[name].warm_up(experiment)
            except NoOpinionError as error:
                raise ValueError(f"{error}; a deadline takes a second decoder that works") from None
            return made

        made: list[dict[str, Decoder]] = []
        for experiment in experiments:
            by_name = make_decoders(experiment, others, weights=others_weights)
            made.append({name: pair(name, experiment) if name in seconds else by_name[name] for name in names})
        yield made
