import csv
import io
import json
import os

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from discl_ray.config import load_config
from discl_ray.data.config import ManifestConfig
from discl_ray.data.manifest import by_column, manifest
from discl_ray.data.manifest_rows import by_row
from discl_ray.data.root import open_root
from discl_ray.data.settle import settled
from discl_ray.errors import ConfigError, DataError
from tests.support.by_column import agree
from tests.support.runs import promptly


@pytest.fixture
def read(tmp_path):
    """Writes a manifest and lists it."""

    def of(content, file="manifest.csv", **config):
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        return manifest(ManifestConfig(root=str(tmp_path), file=file, **config), 0)

    return of


def cells(listing, *columns):
    return list(zip(*(listing.table[c].to_pylist() for c in columns), strict=True))


def test_the_least_there_may_be(read):
    listing = read("path,label\na/1.png,cat\nb/2.png,0123\n")
    nothing = {"row": None, "split": None, "domain": None, "group": None}
    assert listing.table.to_pylist() == [
        {"sample_id": "a/1.png", "path": "a/1.png", "class_key": "cat", **nothing},
        {"sample_id": "b/2.png", "path": "b/2.png", "class_key": "0123", **nothing},
    ]
    assert listing.in_files
    assert [error.reason for error in listing.read(listing.root, listing.table)] == [
        "missing",
        "missing",
    ]


def test_all_columns_in_any_order_and_by_other_names(read):
    content = (
        'site,y,fold,more,file,id\r\nnorth,"cat, tabby",Training,x,./a//1.png,i1\r\n'
        ",dog,,,b\\2.png,i2\r\n\r\nsouth,x,DEV,,c.png,i3"
    )
    columns = {
        "label": "y",
        "split": "fold",
        "path": "file",
        "sample_id": "id",
        "domain": "site",
        "group": "site",
    }
    assert cells(
        read(content, columns=columns), "sample_id", "path", "class_key", "split", "domain", "group"
    ) == [
        ("i1", "a/1.png", "cat, tabby", "train", "north", "north"),
        ("i2", "b/2.png", "dog", None, None, None),
        ("i3", "c.png", "x", "val", "south", "south"),
    ]


BLANKS = {
    "1.png": "red fox",
    "2.png ": "red fox ",
    " 3.png": "\u00a0red fox",
    "4.png": "caf\u00e9 ",
    "5.png": "owl",
}


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_blanks_at_the_ends_of_labels_and_paths_are_no_part_of_them(read, tmp_path, form):
    for name in ("1.png", "2.png ", "3.png", "4.png", "5.png"):
        (tmp_path / name).touch()
    table = "path,label\n" + "".join(f'"{path}","{label}"\n' for path, label in BLANKS.items())
    lines = "\n".join(json.dumps({"path": path, "label": label}) for path, label in BLANKS.items())
    listing = settled(read(table if form == "csv" else lines, f"manifest.{form}"), links=False)
    assert listing.table["path"].to_pylist() == [
        "1.png",
        "2.png ",
        "3.png",
        "4.png",
        "5.png",
    ]  # one is spelt so
    assert listing.table["class_key"].to_pylist() == ["red fox"] * 3 + ["caf\u00e9", "owl"]
    merged, trimmed = listing.notes
    assert "'red fox' and 'red fox ' and '\\xa0red fox' are 'red fox'" in merged
    assert trimmed == "blanks at the ends of a class are no part of its name: 'caf\u00e9 '"


@pytest.mark.parametrize("name", ["manifest.csv", "list.jsonl"])
def test_a_manifest_that_is_a_link_out_of_the_root_is_refused(tmp_path, name):
    (tmp_path / "root").mkdir()
    (tmp_path / name).write_text(
        "path,label\na,b\n" if name.endswith("csv") else '{"path": "a", "label": "b"}'
    )
    (tmp_path / "root" / name).symlink_to(tmp_path / name)
    config = ManifestConfig(root=str(tmp_path / "root"), file=name)
    with pytest.raises(DataError) as caught:
        manifest(config, 0)
    where = f"data.file = '{name}'"
    assert (
        str(caught.value)
        == f"{where}: is a symbolic link out of data.root; data.allow_links_outside=true follows it"
    )
    assert manifest(config.model_copy(update={"allow_links_outside": True}), 0).table.num_rows == 1


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_three_forms_say_the_same(read, bom, end):
    lines = {
        "m.csv": [b"path, label, split", 'a 1.png, "katt, grå", test'.encode(), b"b.png,17,"],
        "m.TSV": [b"path\tlabel\tsplit", 'a 1.png\t"katt, grå"\ttest'.encode(), b"b.png\t17\t"],
        "m.jsonl": [
            '{"label": "katt, grå", "path": "a 1.png", "split": "test"}'.encode(),
            b"",
            b'{"path": "b.png", "label": 17}',
        ],
    }
    for file, content in lines.items():
        listing = read(bom + end.join(content) + end, file)
        assert cells(listing, "path", "class_key", "split") == [
            ("a 1.png", "katt, grå", "test"),
            ("b.png", "17", None),
        ]


def test_numbers_in_json_are_text_as_written(read):
    content = "\n".join(
        f'{{"path": "{i}.png", "label": {n}}}'
        for i, n in enumerate(["1.0", "1", "1e3", "-0", "9" * 5000])
    )
    assert [key for (key,) in cells(read(content, "m.jsonl"), "class_key")] == [
        "1.0",
        "1",
        "1e3",
        "-0",
        "9" * 5000,
    ]


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), min_size=1).filter(
            lambda x: x == x.strip()
        )
    )
)
def test_any_label_comes_back(tmp_path_factory, labels):
    root = tmp_path_factory.getbasetemp()
    rows = [(f"{i}.png", label) for i, label in enumerate(["first", *labels])]
    out = io.StringIO()
    csv.writer(out).writerows([("path", "label"), *rows])
    (root / "any.csv").write_text(out.getvalue(), encoding="utf-8", newline="")
    (root / "any.jsonl").write_text(
        "\n".join(json.dumps({"path": p, "label": k}, ensure_ascii=False) for p, k in rows), "utf-8"
    )
    for file in ("any.csv", "any.jsonl"):
        assert (
            cells(manifest(ManifestConfig(root=str(root), file=file), 0), "path", "class_key")
            == rows
        )


def test_links_out_of_the_root_are_refused(read, tmp_path, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "s.png").write_bytes(b"s")
    (tmp_path / "out").symlink_to(outside)
    (tmp_path / "s.png").symlink_to(outside / "s.png")
    for path in ("out/s.png", "s.png"):
        kept = settled(read(f"path,label\n{path},cat\nnone.png,cat\n"), links=False)
        assert kept.table["path"].to_pylist() == ["none.png"]
        assert kept.refused.to_pylist()[0]["sample_id"] == path
        assert "is a symbolic link out of data.root" in kept.refused["detail"][0].as_py()
        listing = read(f"path,label\n{path},cat\n", allow_links_outside=True)
        assert list(listing.read(listing.root, listing.table)) == [b"s"]
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="pipe"):
        read("path,label\npipe.png,cat\n")


def test_absolute_paths_under_the_root_are_taken(read, tmp_path):
    (tmp_path / "1.png").write_bytes(b"x")
    listing = read(f"path,label\n{tmp_path}/1.png,cat\nnone.png,cat\n")
    assert cells(listing, "sample_id", "path") == [("1.png", "1.png"), ("none.png", "none.png")]
    there, missing = listing.read(listing.root, listing.table)
    assert (there, missing.reason) == (b"x", "missing")


def test_the_stamp_changes_with_the_manifest_and_with_the_images(read, tmp_path):
    content = "path,label\n1.png,cat\n2.png,dog\n"
    (tmp_path / "1.png").write_bytes(b"x")
    stamp = read(content).stamp
    assert read(content).stamp == stamp
    assert read(content + "\n").stamp != stamp
    os.utime(tmp_path / "1.png", (5, 5))
    later = read(content).stamp
    assert later != stamp
    (tmp_path / "2.png").write_bytes(b"x")
    assert read(content).stamp not in (stamp, later)


def test_a_manifest_that_is_not_there(read, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "train.csv").write_text("path,label\na,b\n")
    with promptly():
        for file, message in (
            ("manifest.csv", r"no such file in data.root = .*; there are train.csv"),
            ("images/none.csv", r"no such file in .*; there is no \*.csv"),
            ("../x.csv", r"leaves data\.root"),
            ("/etc/x.csv", "is absolute"),
        ):
            with pytest.raises(DataError, match=message):
                manifest(ManifestConfig(root=str(tmp_path), file=file), 0)
        with pytest.raises(DataError, match="no such folder"):
            manifest(ManifestConfig(root=str(tmp_path / "none")), 0)
        (tmp_path / "folder.csv").mkdir()
        with pytest.raises(DataError, match="cannot be read"):
            manifest(ManifestConfig(root=str(tmp_path), file="folder.csv"), 0)


def test_wrong_configurations_are_told_before_anything_is_read(tmp_path):
    base = ["data.name=manifest", "data.root=x"]
    empty = tmp_path / "empty.yaml"
    empty.write_text("seed: 0\n")
    for override, message in (
        (
            "data.columns.lable=y",
            r"'lable' is none of our columns, .*data.columns.label=THEIR_NAME",
        ),
        ("data.columns.image=y", "'image' is none of our columns"),
        ("data.file=x.xlsx", r"data.file = 'x.xlsx': is neither \*.csv, \*.tsv nor \*.jsonl"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(empty, [*base, override])
    with pytest.raises(ValidationError, match="has no name"):
        ManifestConfig(root="x", columns={"label": ""})


def test_a_remote_manifest_reads_the_same(read, tmp_path):
    content = b"path,label\na/1.png,cat\nnone.png,dog\n"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"x")
    local = read(content)
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe({"/listed/manifest.csv": content, "/listed/a/1.png": b"x"})
    try:
        remote = manifest(ManifestConfig(root="memory://listed"), 0)
        assert remote.table.equals(local.table)
        there, missing = remote.read(remote.root, remote.table)
        assert (there, missing.reason) == (b"x", "missing")
        with pytest.raises(DataError, match=r"there are manifest\.csv"):
            manifest(ManifestConfig(root="memory://listed", file="none.csv"), 0)
    finally:
        filesystem.rm("/listed", recursive=True)


def test_paths_are_found_as_the_disk_spells_them(read, tmp_path):
    for folder, file in (("cafe\u0301", "u\u0308.png"), ("caf\u00e8", "\u00fc.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_bytes(file.encode())
    rows = "caf\u00e9/\u00fc.png,cat\ncafe\u0300/u\u0308.png,dog\ncaf\u00e9/none.png,dog\n"
    listing = settled(read(f"path,label\n{rows}"), links=False)
    first, second, missing = listing.read(listing.root, listing.table)
    assert (first, second, missing.reason) == (
        "u\u0308.png".encode(),
        "\u00fc.png".encode(),
        "missing",
    )
    assert cells(listing, "sample_id")[:2] == [("caf\u00e9/\u00fc.png",), ("caf\u00e8/\u00fc.png",)]


RIGHT = {
    "path": ["a.png", "./b.png", " c.png", "d//e.png", "caf\u00e9.png", "f g.png", "ROOT/h.png"],
    "label": ["cat", "cat ", "0123", "1e3", "caf\u00e9", "cafe\u0301"],
    "split": ["", "train", "DEV", "testing"],
    "group": ["", "g"],
}
ANY = {
    "path": [*RIGHT["path"], "a.png", "../x", "d/", "link.png", "", "ROOT/a.png", "ROOT/../x"],
    "label": [*RIGHT["label"], "dog", " ", "", "a\x01b", "a\tb"],
    "split": [*RIGHT["split"], "holdout", "\u00a0"],
    "group": ["", "g"],
}
ODD_CSV = ["", ",,", ",,,,,", "x", '"a', 'a,"b"c,d,e', '"x\ny",cat,,', "a\0,cat,,", "x" * 5000]
ODD_JSON = [
    *("", " ", "null", "[]", "{", "{}", '{"path": "a", "path": "b"}', "[" * 100_000, "\ufeff{}"),
    *('{"path": "a", "label": true}', '{"path": "b", "label": "c", "domain": false}'),
    *('{"path": "a", "label": {"a": 1}}', '{"path": "b", "label": "c", "group": []}'),
    *('{"path": "e", "label": "c", "more": ["x"]}', '{"path": "f", "label": 1e3, "group": NaN}'),
    '{"path": "g", "label": "\\ud800"}',
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A root with an accent spelt in another form, a link and a pipe."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "cafe\u0301.png").touch()
    os.mkfifo(folder / "pipe.png")
    (folder / "link.png").symlink_to("pipe.png")
    return open_root(str(folder))


def rows_of(draw, *, careful, with_ids):
    """Rows of a manifest."""
    columns = {name: st.sampled_from(cells) for name, cells in (RIGHT if careful else ANY).items()}
    key = {"unique_by": lambda row: row["path"]} if careful else {}
    rows = draw(st.lists(st.fixed_dictionaries(columns), min_size=careful, max_size=4, **key))
    if with_ids:
        for number, row in enumerate(rows):
            row["sample_id"] = draw(st.sampled_from(["", f"i{number}", "" if careful else "i0"]))
    if careful and with_ids:
        rows += [{**row, "sample_id": f"again {row['path']}"} for row in rows]
    return rows


def joined(draw, lines, odd, *, careful):
    """Text of lines, among which one is odd."""
    if not careful:
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(odd)))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return end.join(lines) + draw(st.sampled_from(["", end]))


OTHER_NAMES = st.sampled_from([{}, {}, {"domain": "group"}, {"domain": "none"}])


@given(
    data=st.data(),
    form=st.sampled_from(["m.csv", "m.tsv"]),
    careful=st.booleans(),
    with_ids=st.booleans(),
)
def test_a_table_by_column_is_what_it_is_by_row(base, data, form, careful, with_ids):
    rows = rows_of(data.draw, careful=careful, with_ids=with_ids)
    names = ["path", "label", "split", "group", *(["sample_id"] if with_ids else [])]
    out = io.StringIO()
    writer = csv.DictWriter(out, names, delimiter="\t" if form == "m.tsv" else ",")
    writer.writeheader()
    writer.writerows(rows)
    lines = out.getvalue().split("\r\n")[:-1]
    text = joined(data.draw, lines, ODD_CSV, careful=careful).replace("ROOT", base.base)
    config = ManifestConfig(root=base.base, columns=data.draw(OTHER_NAMES))
    assert agree(
        lambda: by_column(base, config, form, text), lambda: by_row(base, config, form, text)
    )


@given(data=st.data(), careful=st.booleans(), with_ids=st.booleans())
def test_objects_by_column_are_what_they_are_by_row(base, data, careful, with_ids):
    lines = []
    for row in rows_of(data.draw, careful=careful, with_ids=with_ids):
        empty = data.draw(st.sampled_from(["keep", "null", "drop"]))
        kept = {name: cell for name, cell in row.items() if cell or empty != "drop"}
        value = {name: cell or (None if empty == "null" else "") for name, cell in kept.items()}
        lines.append(json.dumps(value))
    text = joined(data.draw, lines, ODD_JSON, careful=careful).replace("ROOT", base.base)
    config = ManifestConfig(root=base.base, columns=data.draw(OTHER_NAMES))
    assert agree(
        lambda: by_column(base, config, "m.jsonl", text),
        lambda: by_row(base, config, "m.jsonl", text),
    )
