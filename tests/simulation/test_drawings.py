"""Codes and experiments show themselves in notebooks and at the prompt."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
import stim

from simulation import CODES, ForeignExperiment, MemoryExperiment, NoiseModel, parse_code, sample
from simulation.drawings import CELL, HALF, X_COLOUR, Z_COLOUR, tanner_svg

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", ["bb72", "bb90", "bb144", "bb756"])
def test_the_bold_edges_are_those_of_a_check_of_each_type(name):
    code = CODES[name]
    text = tanner_svg(l=code.l, m=code.m, a=code.a, b=code.b, label=f"Tanner graph of {name}")
    assert len(text) < 40_000
    ends: dict[str, set[int]] = {X_COLOUR: set(), Z_COLOUR: set()}
    for line in ET.fromstring(text).iter(f"{SVG}line"):
        if line.get("stroke-width") is None:
            continue
        x, y = (int(line.get(end)) - HALF // 2 for end in ("x2", "y2"))
        right = x % CELL != 0  # of the two data qubits of a cell, R has odd coordinates
        assert right == (y % CELL != 0)
        cell = x // CELL % code.l * code.m + y // CELL % code.m
        ends[line.get("stroke")].add(cell + code.cells * right)
    middle = code.l // 2 * code.m + code.m // 2
    for colour, checks in ((X_COLOUR, code.hx), (Z_COLOUR, code.hz)):
        assert ends[colour] == set(checks[[middle]].indices.tolist())


def test_codes_that_are_not_published_are_drawn_too():
    page = parse_code("6,3,1+x+y,1+x^2+y^2")._repr_html_()
    assert 'aria-label="Tanner graph of 6,3,1+x+y,1+x^2+y^2"' in page
    assert "[[36, 4, ?]]" in page


def test_reprs_say_what_a_thing_is():
    experiment = MemoryExperiment.create(code="bb72", basis="Z", rounds=2, p=0.003)
    shots = sample(experiment.circuit, shots=3, seed=5)
    foreign = ForeignExperiment.of(experiment.circuit, name="mine")
    assert [repr(thing) for thing in (experiment.code, experiment, shots, experiment.fault_model, foreign)] == [
        "<BivariateBicycleCode bb72: [[72, 12, 6]]>",
        "<MemoryExperiment bb72 Z memory, 2 rounds, uniform p=0.003, XYZ>",
        "<Samples: 3 shots of 144 detectors and 12 observables, seed 5>",
        f"<FaultModel: {experiment.fault_model.num_mechanisms:,} mechanisms of 144 detectors and 12 observables>",
        "<ForeignExperiment mine: stim circuit, 144 detectors, 12 observables>",
    ]


def test_experiments_in_a_notebook():
    noise = NoiseModel.si1000(0.002)
    page = MemoryExperiment(CODES["bb72"], "X", 4, noise)._repr_html_()
    for words in ("X memory of bb72", "288: 36, 3 x 72, 36", "si1000"):
        assert words in page
    foreign = ForeignExperiment.of(stim.Circuit.generated("repetition_code:memory", distance=3, rounds=2), name="<b>")
    assert "<strong>&lt;b&gt;: stim circuit</strong>" in foreign._repr_html_()
