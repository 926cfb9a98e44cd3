"""Bivariate bicycle codes: `code`, all of one by name; `torus`, its cells; `checks`; `logicals`, those operators."""

from simulation.codes.code import CODES, MAX_PARSED_CELLS, BivariateBicycleCode, parse_code

__all__ = ["CODES", "MAX_PARSED_CELLS", "BivariateBicycleCode", "parse_code"]
