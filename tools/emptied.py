"""Empties functions, one at a time, and tells which of them no test misses.

    python tools/emptied.py --draw 20 --seed 0
    python tools/emptied.py --draw 5 --seed 1 discl_ray/curriculum

Each drawn function's body becomes `return None` in a copy of the tree, where its module's mirror
file of tests runs. A function that can be emptied without a failing test is named, and the exit
code is 1.
"""

from __future__ import annotations

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("discl_ray", "jobs", "tools", "tests", "conf", "docs", "benchmarks")
FILES = ("pyproject.toml", "Makefile", "README.md", "CHANGELOG.md")


@dataclass(frozen=True)
class Function:
    """A function of the package, by where it begins."""

    module: Path
    """Relative to the root."""
    name: str
    line: int


def mirror(module: Path) -> Path:
    """The file of tests that belongs to a module: `discl_ray/a/b.py` to `tests/a/test_b.py`.

    The parts of the configuration are tested as one, in `tests/test_config.py`, and the readers by
    the package's own functions, in `tests/data/test_readers.py`.
    """
    if module.name == "config.py" or module.parent.name == "config":
        return Path("tests/test_config.py")
    inside = module.relative_to("discl_ray")
    if inside == Path("data/__init__.py"):
        return Path("tests/data/test_readers.py")
    return Path("tests") / inside.parent / f"test_{inside.name}"


def functions(module: Path) -> list[Function]:
    """The functions of a module that do something: not those of protocols, and no stubs."""
    tree = ast.parse((ROOT / module).read_text())
    found: list[Function] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and _does_something(node):
            found.append(Function(module, node.name, node.lineno))
    return found


def _does_something(function: ast.FunctionDef) -> bool:
    """Whether a body is more than a docstring, `pass`, `...` or `return None`."""
    body = [part for part in function.body if not _is_constant(part)]
    return any(not isinstance(part, ast.Pass) for part in body)


def _is_constant(part: ast.stmt) -> bool:
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)


def emptied(text: str, line: int) -> str:
    """A module's source in which the function that begins at a line only returns None."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.lineno == line:
            node.body = [ast.Return(value=ast.Constant(value=None))]
            return ast.unparse(ast.fix_missing_locations(tree))
    raise ValueError(f"no function begins at line {line}")


def survives(function: Function, copy: Path) -> bool:
    """Whether the mirror's tests pass although a function is empty."""
    path = copy / function.module
    whole = path.read_text()
    path.write_text(emptied(whole, function.line))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "", str(mirror(function.module))]
    try:
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    finally:
        path.write_text(whole)
    return done.returncode == 0


def _copy_to(folder: Path) -> None:
    """Copies what the tests need."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)


def main() -> int:
    """Draws, empties, and prints a line a function."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draw", type=int, default=20, metavar="N", help="how many functions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("folder", nargs="?", default="discl_ray", help="where to draw from")
    asked = parser.parse_args()
    modules = sorted(path.relative_to(ROOT) for path in (ROOT / asked.folder).rglob("*.py"))
    chosen = random.Random(asked.seed).sample(modules, min(asked.draw, len(modules)))
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        _copy_to(copy)
        for module in chosen:
            missed += _try(module, asked.seed, copy)
    print(f"{missed} of {len(chosen)} can be emptied")
    return int(missed > 0)


def _try(module: Path, seed: int, copy: Path) -> bool:
    """Empties one function of a module; True if no test of its mirror misses it."""
    candidates = functions(module)
    if not candidates:
        print(f"{module}: no function")
        return False
    function = random.Random(f"{seed} {module}").choice(candidates)
    place = f"{module}:{function.line} {function.name}"
    if not (ROOT / mirror(module)).exists():
        print(f"{place}: {mirror(module)} is missing")
        return True
    survived = survives(function, copy)
    print(f"{place}: {'NOT MISSED' if survived else 'missed'}", flush=True)
    return survived


if __name__ == "__main__":
    sys.exit(main())
