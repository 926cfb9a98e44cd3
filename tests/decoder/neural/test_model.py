import math

import pytest
import torch
from torch import Tensor

from decoder.neural.config import Mixing, ModelConfig
from decoder.neural.geometry import TorusGeometry
from decoder.neural.model import GroupConv, RecurrentTransformer
from simulation.codes import parse_code

SMALL = "3,3,x+1+y,x+1+xy^2"


def shifted(x: Tensor, geometry: TorusGeometry, dx: int, dy: int, dim: int) -> Tensor:
    """Moves what is at cell c to c + (dx, dy)."""
    l, m = geometry.code.l, geometry.code.m
    return x.unflatten(dim, (l, m)).roll((dx, dy), (dim, dim + 1)).flatten(dim, dim + 1)


@pytest.mark.parametrize("code", ["bb72", "bb90", SMALL])
def test_the_convolution_is_the_sum_over_displacements(code: str) -> None:
    geometry = TorusGeometry(parse_code(code))
    torch.manual_seed(0)
    displacements = geometry.check_displacements
    conv = GroupConv(geometry, displacements, 3, 5)
    h = torch.randn(geometry.code.cells, 4, 3)
    weight = conv.weight.view(5, len(displacements), 3)
    direct = sum(shifted(h, geometry, -dx, -dy, 0) @ weight[:, d].t() for d, (dx, dy) in enumerate(displacements))
    torch.testing.assert_close(conv(h), direct, atol=4e-6, rtol=1e-5)


@pytest.mark.parametrize("mixing", ["conv", "attention", "both"])
@pytest.mark.parametrize("code", ["bb72", "bb90"])
def test_translated_events_give_translated_outputs(code: str, mixing: Mixing) -> None:
    config = ModelConfig(
        code=code,
        width=16,
        round_mixing=mixing,
        readout_mixing=mixing,
        heads=2,
        judges=False,
    )
    torch.manual_seed(1)
    model = RecurrentTransformer(config).double()
    with torch.no_grad():
        for parameter in model.parameters():  # zeros at first, which would hide a broken symmetry
            parameter += 0.1 * torch.randn_like(parameter)
    geometry = model.geometry
    events = (torch.rand(4, 2, geometry.code.cells, 3) < 0.1).double()
    outputs = model(events, basis=1).unflatten(1, (geometry.num_operators, geometry.code.cells))
    assert outputs.std() > 1e-3
    for dx, dy in [(1, 0), (0, 1), (2, 1)]:
        moved = model(shifted(events, geometry, dx, dy, 2), basis=1).unflatten(1, outputs.shape[1:])
        # The only float32 parts are constant tables, rounded alike for all cells up to 1e-7.
        torch.testing.assert_close(moved, shifted(outputs, geometry, dx, dy, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("judges", [True, False])
def test_weights_do_not_depend_on_the_size_of_the_torus(judges: bool) -> None:
    """Not on the code at all, if the network judges."""
    shapes = [
        {name: p.shape for name, p in RecurrentTransformer(ModelConfig(code=code, judges=judges)).named_parameters()}
        for code in ("bb72", "bb90", "bb144")
    ]
    for other in shapes[1:]:
        assert {k for k in other if other[k] != shapes[0][k]} <= ({"readout.operator"} if not judges else set())


def test_steps_make_the_whole() -> None:
    torch.manual_seed(2)
    model = RecurrentTransformer(ModelConfig(width=16, readout_mixing="both", judges=False))
    events = (torch.rand(5, 2, 36, 2) < 0.1).float()
    h, spectra = model.start(2), model.spectra()
    for t, phase in enumerate([0, 1, 1, 1, 2]):
        h = model.step(h, events[t], basis=0, phase=phase, spectra=spectra)
    torch.testing.assert_close(model.readout(h), model(events, basis=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width"),
        ({"heads": 3}, "heads"),
        ({"round_mixing": "magic"}, "must be one of conv, attention, both"),
        ({"mlp_ratio": 0.0}, "mlp_ratio"),
        ({"round_blocks": -1}, "round_blocks"),
        ({"judges": 1}, "must be true or false"),
        ({"candidates": 1}, "candidates"),
        ({"judges": True, "architecture": "blue"}, "needs architecture=tandem"),
        ({"judges": True, "outputs": "basis"}, "and outputs=translates"),
        ({"architecture": "green"}, "must be one of tandem, blue"),
        ({"outputs": "some"}, "must be one of translates, basis"),
        ({"mlp_ratio": math.inf}, "mlp_ratio"),
    ],
)
def test_impossible_sizes(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**settings)  # type: ignore[arg-type]


def test_freezing_changes_nothing() -> None:
    torch.manual_seed(5)
    model = RecurrentTransformer(ModelConfig(width=16, readout_mixing="both", judges=False))
    events = (torch.rand(3, 2, 36, 4) < 0.1).float()
    before = model(events, basis=0)
    model.freeze()
    torch.testing.assert_close(model(events, basis=0), before)


def test_a_basis_of_outputs_tells_the_coset() -> None:
    torch.manual_seed(6)
    model = RecurrentTransformer(ModelConfig(width=16, outputs="basis", readout_mixing="both", judges=False))
    events = (torch.rand(3, 2, 36, 5) < 0.1).float()
    assert model(events, basis=0).shape == (5, 12)
    flips = (torch.rand(5, 12) < 0.5).float()
    labels = model.coset_vote.labels(events, flips)
    best = model.coset_vote.scores(2 * labels - 1, events).argmax(1)
    torch.testing.assert_close(model.cosets[best], flips)


def test_the_loss_is_that_of_the_outputs_and_the_coset() -> None:
    torch.manual_seed(7)
    model = RecurrentTransformer(ModelConfig(width=16, readout_mixing="both", judges=False))
    events = (torch.rand(3, 2, 36, 5) < 0.1).float()
    flips = (torch.rand(5, 12) < 0.5).float()
    labels, logits = model.coset_vote.labels(events, flips), model(events, basis=1)
    outputs = -(labels * logits.sigmoid().log() + (1 - labels) * (1 - logits.sigmoid()).log()).mean()
    torch.testing.assert_close(model.loss(events, flips, basis=1), outputs)
    posterior = torch.softmax(model.scores(events, basis=1) / (108 / 12), dim=1)
    true = [int(sum(int(bit) << i for i, bit in enumerate(row))) for row in flips.tolist()]
    joint = -torch.stack([posterior[shot, coset].log() for shot, coset in enumerate(true)]).mean()
    torch.testing.assert_close(model.loss(events, flips, basis=1, coset_weight=0.5), outputs + 0.5 * joint)
