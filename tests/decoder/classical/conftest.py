"""Small fault models, and what is right for them."""

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import stim

from simulation.faults import FaultModel

Bits = npt.NDArray[np.bool_]


def _all_strings(length: int) -> Bits:
    return np.array(list(itertools.product([False, True], repeat=length)), dtype=np.bool_).reshape(-1, length)


@pytest.fixture(scope="session")
def model_of() -> Callable[[str], FaultModel]:
    """The fault model of a DEM's text."""
    return lambda dem: FaultModel.from_dem(stim.DetectorErrorModel(dem))


@pytest.fixture(scope="session")
def all_shots() -> Callable[[int], Bits]:
    """All shots of so many detectors."""
    return _all_strings


@pytest.fixture(scope="session")
def likeliest_error() -> Callable[[FaultModel, Bits], Bits | None]:
    """The single likeliest set of mechanisms with a shot's symptoms, found by trying all; None if there is none."""

    def find(model: FaultModel, shot: Bits) -> Bits | None:
        errors = _all_strings(model.num_mechanisms)
        fits = ((errors @ model.check_matrix.T.toarray()) % 2 == shot).all(axis=1)
        probabilities = np.where(errors, model.priors, 1 - model.priors).prod(axis=1)
        return errors[fits][np.argmax(probabilities[fits])] if fits.any() else None

    return find
