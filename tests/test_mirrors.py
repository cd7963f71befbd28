"""Every module of the package has the file of tests that bears its name, and that file imports it."""

import ast
from pathlib import Path

import pytest

from tests.support.runs import ROOT
from tools.emptied import functions, mirror

MODULES = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "discl_ray").rglob("*.py")
    if path.name != "__init__.py"
)


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_has_its_file_of_tests(module: Path) -> None:
    if not functions(module):
        pytest.skip("nothing but declarations")
    tests = ROOT / mirror(module)
    assert tests.exists(), f"{tests.relative_to(ROOT)} is missing"
    name = ".".join(module.with_suffix("").parts)
    assert name in imported(tests), f"{tests.relative_to(ROOT)} does not import {name}"
