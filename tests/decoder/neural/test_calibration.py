import pytest
import torch

from decoder.neural.calibration import Calibration


def drawn(scores: torch.Tensor, calibration: Calibration) -> torch.Tensor:
    """True cosets, as probable as the calibration says."""
    return torch.multinomial(calibration.log_posterior(scores).exp(), 1).squeeze(1)


def test_power_one_is_a_temperature() -> None:
    scores = torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, -4.0]])
    posterior = Calibration(temperature=2.0).log_posterior(scores).exp()
    torch.testing.assert_close(posterior, torch.softmax(scores.double() / 2, dim=1))


def test_sure_shots_keep_their_order() -> None:
    scores = torch.tensor([[30.0, 0.0], [32.0, 0.0]])
    best = Calibration().log_posterior(scores).exp().max(dim=1).values
    assert best[0] < best[1] < 1


@pytest.mark.parametrize("made", [Calibration(3.0, 1.0), Calibration(1.5, 0.5)])
def test_the_fit_finds_what_made_the_data(made: Calibration) -> None:
    torch.manual_seed(1)
    scores = 12 * torch.randn(20_000, 16)
    found = Calibration.fit([scores[:5000], scores[5000:]], [t for t in drawn(scores, made).split([5000, 15_000])])
    # The true values' standard errors are below 3 %.
    assert found.temperature == pytest.approx(made.temperature, rel=0.2)
    assert found.power == pytest.approx(made.power, rel=0.15)


def test_only_the_best_cosets_have_a_chance() -> None:
    torch.manual_seed(3)
    scores = torch.randn(5, 4096)
    posterior = Calibration(2.0, 0.4).log_posterior(scores).exp()
    assert ((posterior > 0).sum(dim=1) == 64).all()
    assert (posterior.argmax(1) == scores.argmax(1)).all()
    torch.testing.assert_close(posterior.sum(1), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("values", [(0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0), (1.0, float("inf"))])
def test_impossible_calibrations(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="above 0 and finite"):
        Calibration(*values)
