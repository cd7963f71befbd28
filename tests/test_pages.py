"""The pages say what is there.

Their links, keys, targets and files exist, and README stays short.
"""

import ast
import re
import types
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from discl_ray.config import Config

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
HISTORY = {"CHANGELOG.md"}
"""Pages that name what is gone."""

PATH = re.compile(r"(?:conf|discl_ray|jobs|tools|tests|benchmarks|docs)/[\w./-]*\w")
"""A file or folder of the repository."""

KEY = re.compile(r"(?<![\w./-])([a-z]+(?:\.[a-z_]+)+)(?==|$|[ `,\"'])")
"""A dotted name that may be a key of the configuration."""

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
current_page = pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in HISTORY], ids=lambda page: page.name
)


def _without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def _code(page: Path) -> list[str]:
    """The fenced blocks and the spans in backticks of a page."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", _without_fences(text))
    return [*blocks, *spans]


def _anchors(page: Path) -> set[str]:
    """The anchors GitHub gives a page's headings."""
    found: list[str] = []
    text = _without_fences(page.read_text(encoding="utf-8"))
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        repeated = sum(
            re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found
        )
        found.append(f"{slug}-{repeated}" if repeated else slug)
    return set(found)


def _links(page: Path) -> list[str]:
    """What a page links to or shows, without addresses of the web."""
    text = _without_fences(page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"src=\"([^\"]+)\"", text)
    return [target for target in targets if "://" not in target]


def _parts(annotation: object) -> list[object]:
    """The types an annotation is made of."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return [part for inner in typing.get_args(annotation) for part in _parts(inner)]
    return [annotation]


def _is_key(dotted: str) -> bool:
    """Whether the configuration has a key; of a mapping every key."""
    kinds: list[object] = [Config]
    for name in dotted.split("."):
        if any(typing.get_origin(kind) is dict or kind is dict for kind in kinds):
            return True
        models = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        fields = [model.model_fields[name] for model in models if name in model.model_fields]
        kinds = [part for field in fields for part in _parts(field.annotation)]
        if not kinds:
            return False
    return True


def _targets(code: str) -> list[str]:
    """The targets of the calls of make in code."""
    begins = r"(?:^|&& |; |[A-Z_]+=\S+ )"
    calls = re.findall(rf"{begins}make((?: +[a-z]+(?![\w=./-]))+)", code, re.MULTILINE)
    return [target for call in calls for target in call.split()]


def _makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_readme_is_short_and_comes_to_own_photographs_early():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    photographs = next(i for i, line in enumerate(lines, 1) if "own photographs" in line.lower())
    assert photographs <= 40
    assert "make generate && make train" in lines[:photographs]


def test_readme_keeps_the_places_for_what_is_added_later():
    comments = re.findall(r"<!-- (.+?):", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert {"own photographs", "pictures", "results"} <= set(comments)


@every_page
def test_links_lead_somewhere(page):
    for link in _links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


@current_page
def test_keys_that_a_page_names_exist(page):
    named = {key for code in _code(page) for key in KEY.findall(code)}
    sections = set(Config.model_fields)
    unknown = [key for key in named if key.partition(".")[0] in sections and not _is_key(key)]
    assert [key for key in unknown if not _is_library(key)] == []


def _is_library(dotted: str) -> bool:
    """`train.py` and the like: a file, not a key."""
    return dotted.rpartition(".")[2] in {"py", "md", "yaml", "json", "csv", "png", "parquet"}


@current_page
def test_targets_that_a_page_names_are_in_the_makefile(page):
    named = {target for code in _code(page) for target in _targets(code)}
    assert named <= _makefile_targets()


@current_page
def test_files_that_a_page_names_exist(page):
    named = {path for code in _code(page) for path in PATH.findall(code)}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def _messages() -> str:
    """Every text of the package, `…` for its values; one a line."""
    found: list[str] = []
    for path in sorted((ROOT / "discl_ray").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_messages_that_are_explained_are_said_by_the_package():
    headings = re.findall(r"^### `(.+)`$", (ROOT / "docs/faq.md").read_text("utf-8"), re.MULTILINE)
    messages = _messages()
    assert headings
    assert [heading for heading in headings if heading not in messages] == []


def test_every_page_is_linked_from_readme():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in _links(ROOT / "README.md")}
    assert [page.name for page in PAGES if page not in linked and page.name != "README.md"] == []


def _defined(path: Path) -> set[str]:
    """The names a module defines at its top."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found.update(target.id for target in targets if isinstance(target, ast.Name))
    return found


@current_page
def test_names_that_a_page_places_in_a_file_are_defined_there(page):
    text = " ".join(page.read_text(encoding="utf-8").split())
    placed = re.findall(r"`(\w+)` in `(discl_ray/[\w/]+\.py)`", text)
    assert [name for name, file in placed if name not in _defined(ROOT / file)] == []


def test_readmes_test_command_is_what_the_checks_call():
    timed = re.findall(r"^timed (.+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("\n## Tests\n")[2].partition("\n## ")[0]
    command = re.findall(r"^```\n(.+)\n```", section, re.MULTILINE)
    assert len(command) == 1
    assert timed[-1].startswith(command[0])


@pytest.mark.parametrize(
    ("dotted", "exists"),
    [
        ("filter.threshold", True),
        ("data.root", True),
        ("data.columns.path", True),
        ("data.long_tail.imbalance", True),
        ("train.augment.crop", True),
        ("filter.treshold", False),
        ("train.augment.crops", False),
    ],
)
def test_keys_are_told_from_what_is_none(dotted, exists):
    assert _is_key(dotted) is exists


def test_anchors_and_targets_are_read_as_their_tools_read_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# What `a.b` costs, by hand\n\n## One\n## One\n```\n# no heading\n```\n")
    assert _anchors(page) == {"what-ab-costs-by-hand", "one", "one-1"}
    assert _targets('make generate train CONF="a b" && make test') == ["generate", "train", "test"]
    assert _targets("phase 1: make the spectrum") == []
