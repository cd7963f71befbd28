"""Measures how dense the code is, with limits that `make check` keeps.

    python tools/shape.py                   # the whole package: figures, an error above a limit
    python tools/shape.py discl_ray/data    # one folder: figures, and the places that raise them

The limits hold for the whole package. A folder's figures are printed beside them for comparison.

A line's nodes are the nodes of the syntax tree that begin on it; lines without any (comments, the
rest of a docstring) do not count.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHOLE = ("discl_ray", "jobs")

NODES_A_LINE = 5.3
DENSE = 20
"""Nodes from which on a line is dense."""
DENSE_PER_1000 = 5.0
NESTED_PER_1000 = 1.0
WIDEST = 100
LONGEST_FUNCTION = 50

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass
class Shape:
    """Figures of some files, and the places that raise them."""

    lines: int = 0
    """Lines that are not empty."""
    nodes: list[int] = field(default_factory=list)
    """Of every line that has any."""
    dense: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)
    wide: list[str] = field(default_factory=list)
    long: list[str] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Counts a file in."""
        text = path.read_text()
        tree = ast.parse(text)
        place = path.relative_to(ROOT)
        for number, line in enumerate(text.splitlines(), start=1):
            self.lines += bool(line.strip())
            if len(line) > WIDEST:
                self.wide.append(f"{place}:{number}: {len(line)} characters")
        per_line = Counter(getattr(node, "lineno", 0) for node in ast.walk(tree))
        del per_line[0]  # what has no place: contexts, operators
        self.nodes.extend(per_line.values())
        for number, count in sorted(per_line.items()):
            if count >= DENSE:
                self.dense.append(f"{place}:{number}: {count} nodes")
        self.nested.extend(f"{place}:{number}: nested comprehension" for number in _nested(tree))
        for name, number, length in _functions(tree):
            if length > LONGEST_FUNCTION:
                self.long.append(f"{place}:{number}: {name} has {length} lines")

    def figures(self) -> dict[str, tuple[float, float]]:
        """Each figure by name, and its limit."""
        thousand = self.lines / 1000
        return {
            "nodes a line": (sum(self.nodes) / len(self.nodes), NODES_A_LINE),
            f"lines with {DENSE} nodes or more, per 1000": (
                len(self.dense) / thousand,
                DENSE_PER_1000,
            ),
            "nested comprehensions per 1000 lines": (len(self.nested) / thousand, NESTED_PER_1000),
            f"lines over {WIDEST} characters": (len(self.wide), 0),
            f"functions over {LONGEST_FUNCTION} lines": (len(self.long), 0),
        }


def _nested(tree: ast.AST) -> Iterator[int]:
    """Lines of comprehensions that hold another one, or have more than one `for`."""
    for node in ast.walk(tree):
        if not isinstance(node, COMPREHENSIONS):
            continue
        inner = (part for part in ast.walk(node) if part is not node)
        if len(node.generators) > 1 or any(isinstance(part, COMPREHENSIONS) for part in inner):
            yield node.lineno


def _functions(tree: ast.AST) -> Iterator[tuple[str, int, int]]:
    """Name, first line and length of every function, decorators apart."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last = node.end_lineno or node.lineno
            yield node.name, node.lineno, last - node.lineno + 1


def shape_of(folders: list[Path]) -> Shape:
    """The shape of all Python files below some folders, or of single files."""
    shape = Shape()
    for folder in folders:
        files = [folder] if folder.is_file() else sorted(folder.rglob("*.py"))
        for path in files:
            shape.add(path)
    return shape


def main(words: list[str]) -> int:
    """Prints the figures; 1 if one of the whole package is above its limit."""
    shape = shape_of([ROOT / word for word in words or WHOLE])
    over = 0
    for name, (value, limit) in shape.figures().items():
        if words:
            print(f"{name}: {value:.2f} (the whole package: at most {limit:g})")
            continue
        above = value > limit
        over += above
        mark = " <- above" if above else ""
        print(f"{name}: {value:.2f} (at most {limit:g}){mark}")
    if words or over:
        places = (*shape.wide, *shape.long, *shape.nested, *shape.dense)
        print("\n".join(places))
    return int(over > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
