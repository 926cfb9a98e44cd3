"""Which memory experiment of Tandem's own an experiment is, but for names: `value` is the answer, `search` finds it."""

from simulation.placement.search import placement_of
from simulation.placement.value import NotPlacedError, Placement, translated, with_checks

__all__ = ["NotPlacedError", "Placement", "placement_of", "translated", "with_checks"]
