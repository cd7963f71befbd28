"""Every module of the package has the file of tests that bears its name.

That file imports it.
"""

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


def dotted(module: Path) -> str:
    return ".".join(module.with_suffix("").parts)


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


def reached(path: Path) -> set[str]:
    """What a file of tests imports, itself or by a helper of tests/support."""
    found = imported(path)
    for helper in (ROOT / "tests" / "support").glob("*.py"):
        if dotted(helper.relative_to(ROOT)) in found:
            found |= imported(helper)
    return found


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_has_its_file_of_tests(module):
    if not functions(module):
        pytest.skip("nothing but declarations")
    tests = ROOT / mirror(module)
    assert tests.exists(), f"{tests.relative_to(ROOT)} is missing"
    # the parts of the configuration are tested through the whole
    whole = "discl_ray.config" if tests.name == "test_config.py" else dotted(module)
    assert whole in reached(tests), f"{tests.relative_to(ROOT)} does not import {whole}"
