"""`tandem code`: what is found of codes, published ones and others."""

import json

import pytest

BB18 = "3,3,1+x+y,1+x^2+y^2"
"""[[18, 4, 4]], with the parameters of the smallest code of the tests of trmue/relay."""
TABLE_3 = {
    "bb90": ("15,3,x^9+y+y^2,1+x^2+x^7", 90, 8, 10),
    "bb108": ("9,6,x^3+y+y^2,y^3+x+x^2", 108, 8, 10),
    "bb288": ("12,12,x^3+y^2+y^7,y^3+x+x^2", 288, 12, 18),
}
"""Of Bravyi et al., arXiv 2308.07915."""


@pytest.mark.parametrize("name", TABLE_3)
def test_published_codes(name, succeed):
    text, n, k, d = TABLE_3[name]
    found = json.loads(succeed(f"code {text} --searches 2 --rounds 1 --json"))
    assert (found["code"], found["n"], found["k"], found["distance_at_most"]) == (name, n, k, d)
    assert found["published_distance"] == str(d)
    assert found["circuit_distance_at_most"] >= d / 2


def test_a_circuit_that_keeps_the_distance_and_one_that_does_not(succeed):
    found = json.loads(succeed("code bb72 --searches 20 --json"))
    assert (found["distance_at_most"], found["circuit_distance_at_most"]) == (6, 6)  # Bravyi et al., Table 3
    assert found["schedule_keeps_it"] == "no lighter error was found"
    found = json.loads(succeed(f"code {BB18} --searches 20 --json"))
    assert (found["n"], found["k"], found["published_distance"]) == (18, 4, "?")
    assert (found["distance_at_most"], found["circuit_distance_at_most"]) == (4, 3)
    assert found["schedule_keeps_it"].startswith("no: ")


def test_what_is_refused(refuse):
    assert "k = 0" in refuse("code 3,3,1+x+y,1+x+x*y")
    assert "unknown code" in refuse("code bb73") or "bb73" in refuse("code bb73")
