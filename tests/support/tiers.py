"""The tier of a test, from its source: what is imported for it.

    pure    neither torch nor Ray            ray     Ray
    model   torch                            jobs    whole jobs in processes of their own

Counted are what importing its file imports, and what the test itself, its fixtures and the helpers
it names import, here and in tests/support. What a function of the package imports when it is called
is not seen: such a test carries its tier as a marker. The pure tier tells which, for in it torch
and Ray cannot be imported.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.machinery import ModuleSpec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"

TIERS = ("pure", "model", "ray", "jobs")
"""From the quickest to the slowest."""

TORCH = {"torch", "torchvision", "torchmetrics", "diffusers", "transformers", "open_clip", "timm"}
"""Libraries that import torch."""

BLOCKED = ("torch", "ray")
"""What the pure tier cannot import."""

PROCESSES = ("subprocess", "multiprocessing")
"""A slow test that needs one of these starts whole jobs."""

Libraries = frozenset[str]
"""Top-level packages that are not ours."""

NOTHING: Libraries = frozenset()


@dataclass(frozen=True)
class Source:
    """A module of the package or of the tests, parsed."""

    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        """The module's syntax."""
        return ast.parse(self.path.read_text())

    @cached_property
    def when_imported(self) -> dict[str, str]:
        """Names that are bound by imports when the module is imported, with what they stand for."""
        bound: dict[str, str] = {}
        for statement in _executed(self.tree.body):
            bound |= imported(statement)
        return bound

    @cached_property
    def definitions(self) -> dict[str, ast.stmt]:
        """Functions, classes and values of the module by name."""
        found: dict[str, ast.stmt] = {}
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = node
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
                found |= dict.fromkeys(names, node)
        return found

    @cached_property
    def with_fixtures(self) -> list[Source]:
        """This file of tests and the conftest.py that apply to it, nearest first."""
        files = [folder / "conftest.py" for folder in self.path.parents]
        near = [file for file in files if file.is_relative_to(TESTS) and file.is_file()]
        return [self, *map(source, near)]


source = cache(Source)


def _executed(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that importing a module executes, those in `if`, `try` and classes too."""
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        for part in ("body", "orelse", "handlers", "finalbody"):
            yield from _executed(getattr(node, part, []))


def imported(node: ast.AST) -> dict[str, str]:
    """Names that an import statement binds, with the dotted name each stands for."""
    if isinstance(node, ast.Import):
        return {alias.asname or alias.name: alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return {}


@cache
def files_of(dotted: str) -> tuple[Path, ...]:
    """Files of ours that importing a dotted name executes; the last is the module it names."""
    files: list[Path] = []
    place = ROOT
    for part in dotted.split("."):
        place = place / part
        choices = (place / "__init__.py", place.with_suffix(".py"))
        files += [file for file in choices if file.is_file()][:1]
        if not place.is_dir():
            break
    return tuple(files)


@cache
def loads(dotted: str) -> Libraries:
    """Libraries that importing a dotted name imports."""
    files = files_of(dotted)
    if not files:
        return frozenset([dotted.partition(".")[0]])
    return NOTHING.union(*map(loaded_by, files))


@cache
def loaded_by(path: Path) -> Libraries:
    """Libraries that importing a module of ours imports, and the modules that it imports."""
    seen: set[Path] = set()
    libraries: set[str] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for dotted in source(file).when_imported.values():
            files = files_of(dotted)
            waiting += files
            if not files:
                libraries.add(dotted.partition(".")[0])
    return frozenset(libraries)


def needed_by(module: Source, name: str, seen: set[tuple[Path, str]]) -> Libraries:
    """Libraries that a definition in a file of tests needs, with all it names in the tests."""
    place = (module.path, name)
    node = module.definitions.get(name)
    if node is None or place in seen:
        return NOTHING
    seen.add(place)
    found: list[Libraries] = []
    bound = module.when_imported
    for inner in ast.walk(node):
        for here in imported(inner).values():
            found.append(loads(here))
            bound = bound | imported(inner)
        if isinstance(inner, ast.Name):
            found.append(needed_by(module, inner.id, seen))
            if inner.id in bound:
                found.append(_needed_from(bound[inner.id], seen))
        elif isinstance(inner, ast.arg):
            found += [needed_by(near, inner.arg, seen) for near in module.with_fixtures]
        elif isinstance(inner, ast.Constant) and _names_a_module(inner.value):
            found.append(loads(inner.value))
    return NOTHING.union(*found)


def _needed_from(dotted: str, seen: set[tuple[Path, str]]) -> Libraries:
    """What an imported name needs: a library itself, a helper what it names."""
    files = files_of(dotted)
    if not files:
        return frozenset([dotted.partition(".")[0]])
    if not files[-1].is_relative_to(TESTS):
        return NOTHING
    return needed_by(source(files[-1]), dotted.rpartition(".")[2], seen)


def _names_a_module(value: object) -> bool:
    """Whether a constant is a dotted name in the package, as where something is patched."""
    return isinstance(value, str) and re.fullmatch(r"discl_ray(\.\w+)+", value) is not None


def _always(module: Source) -> Iterator[tuple[Source, str]]:
    """Fixtures that every test of a file uses, and the marks of all."""
    for near in module.with_fixtures:
        for name, node in near.definitions.items():
            decorators = getattr(node, "decorator_list", [])
            automatic = any("autouse=True" in ast.unparse(one) for one in decorators)
            if automatic or name == "pytestmark":
                yield near, name


@cache
def tier_of_file(path: Path) -> str:
    """The lowest tier that a test in a file can have, because the file is imported."""
    return _tier(loaded_by(path))


@cache
def tier_of(path: Path, test: str, *, slow: bool) -> str:
    """The tier of a test in a file."""
    module = source(path)
    seen: set[tuple[Path, str]] = set()
    needs = needed_by(module, test, seen)
    for near, name in _always(module):
        needs |= needed_by(near, name, seen)
    without_ray = any(name == "without_ray" for _, name in seen)
    if without_ray or (slow and needs.intersection(PROCESSES)):
        return "jobs"
    return _tier(needs | loaded_by(path))


def _tier(libraries: Libraries) -> str:
    if "ray" in libraries:
        return "ray"
    return "model" if libraries & TORCH else "pure"


class Blocked:
    """Finds what the pure tier must not import, as libraries look whether it is there."""

    @staticmethod
    def find_spec(name: str, *_: object) -> ModuleSpec | None:
        """A spec that cannot be loaded."""
        return ModuleSpec(name, Blocked()) if name in BLOCKED else None

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """Raises ModuleNotFoundError."""
        message = f"a test of the pure tier imports {spec.name}; mark it with its tier"
        raise ModuleNotFoundError(message, name=spec.name)

    @staticmethod
    def exec_module(module: object) -> None:
        """Is never called."""


def block() -> None:
    """Makes torch and Ray impossible to import in this process."""
    loaded = [name for name in BLOCKED if name in sys.modules]
    if loaded:
        raise RuntimeError(f"imported before the tests: {', '.join(loaded)}")
    sys.meta_path.insert(0, Blocked)
