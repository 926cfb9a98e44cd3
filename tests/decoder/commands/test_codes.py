"""`tandem codes`."""

import json


def test_codes_lists_the_published_parameters(succeed):
    rows = json.loads(succeed("codes --json"))["codes"]
    assert {row["code"]: (row["n"], row["k"]) for row in rows} == {
        "bb18": (18, 4),
        "bb72": (72, 12),
        "bb90": (90, 8),
        "bb108": (108, 8),
        "bb120": (120, 8),
        "bb144": (144, 12),
        "bb196": (196, 12),
        "bb288": (288, 12),
        "bb360": (360, 12),
        "bb756": (756, 16),
    }


def test_codes_describes_one_code(succeed):
    [row] = json.loads(succeed("codes bb72 --json"))["codes"]
    assert row == {
        "code": "bb72",
        "n": 72,
        "k": 12,
        "d": 6,
        "d_is_upper_bound": False,
        "l": 6,
        "m": 6,
        "A": "x^3+y+y^2",
        "B": "y^3+x+x^2",
        "logical_weights": [6] * 12,
    }
    table = succeed("codes bb72")
    assert "x^3+y+y^2" in table
    assert "6: 12" in table


def test_codes_takes_polynomials(succeed):
    [row] = json.loads(succeed("codes 6,6,x^3+y+y^2,y^3+x+x^2 --json"))["codes"]
    assert (row["code"], row["n"], row["k"]) == ("bb72", 72, 12)
