"""What can be imported from the three packages themselves."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from importlib.metadata import version

import pytest

from tests.helpers import REPOSITORY

PACKAGES = ("simulation", "decoder", "service")


@pytest.mark.parametrize("package", PACKAGES)
def test_each_name_is_that_of_the_module_that_type_checkers_see(package):
    offered = importlib.import_module(package)
    tree = ast.parse((REPOSITORY / package / "__init__.py").read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    homes = {
        alias.name: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert {*homes, "__version__"} == set(offered.__all__) <= set(dir(offered))
    for name, module in homes.items():
        assert getattr(offered, name) is getattr(importlib.import_module(module), name)
    assert offered.__version__ == version("tandem-decoder")


def test_other_names_are_refused():
    with pytest.raises(ImportError, match="cannot import name 'make_code'"):
        from decoder import make_code  # noqa: F401
    with pytest.raises(AttributeError, match="module 'simulation' has no attribute 'Decoder'"):
        importlib.import_module("simulation").Decoder  # noqa: B018


def test_a_client_needs_neither_torch_nor_stim_nor_numba():
    heavy = "{'torch', 'stim', 'numba', 'scipy', 'sinter', 'fastapi'}"
    code = f"import sys; from service import Client; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
