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
from discl_ray.data.manifest import manifest
from discl_ray.data.settle import settled
from discl_ray.data.text_files import MOST_PROBLEMS
from discl_ray.errors import ConfigError, DataError
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\na,cat,x\n", "line 2: has 3 fields, the header has 2"),
        ("path,label\na\n", "line 2: has 1 fields, the header has 2"),
        ("path,label\na,\n", "line 2: label '' is empty"),
        ('path,label\na,"  "\n', "line 2: label '  ' is empty"),
        ("path,label\na,cat \n\na, dog\n", "line 4: 'a' is 'dog' here and 'cat ' in line 2"),
        ('path,label\na,"cat\nb,dog"\n', r"line 2: label 'cat\\nb,dog' holds a control character"),
        ("path,label\na,cat\n\na,dog\n", "line 4: 'a' is 'dog' here and 'cat' in line 2"),
        ("path,label\na,cat\n./a,cat\n", "line 3: sample_id 'a' is already in line 2"),
        ("path,label,sample_id\na,cat,1\nb,cat,1\n", "line 3: sample_id '1' is already in line 2"),
        (
            "path,label,sample_id\na,cat,1\na,dog,2\n",
            "line 3: 'a' is 'dog' here and 'cat' in line 2",
        ),
        (
            "path,label,split\na,cat,holdout\n",
            "line 2: split 'holdout' is none of train, training, val, valid, validation, dev, test",
        ),
        ("path,label\n../a,cat\n", r"line 2: path '\.\./a' leaves data\.root"),
        ("path,label\n/etc/passwd,cat\n", "line 2: path '/etc/passwd' is absolute and not under"),
        ("path,label\nfile:///etc/passwd,cat\n", "line 2: path 'file:///etc/passwd' is a URI"),
        ("path,label\na\0b,cat\n", r"line 2: path 'a\\x00b' holds a NUL"),
        (
            "path,label\n" + "x" * 5000 + ",cat\n",
            r"line 2: path 'x+… \(5000 characters\)' holds a NUL byte or more than 4096",
        ),
        ("path,label\n,cat\n", "line 2: path '' is empty"),
        ('path,label\n"x\ny",cat\nz,\n', "line 4: label '' is empty"),
        ('path,label\na,cat\n"b,cat\n', r"line 3: .*; is a quote not closed\?"),
        ('path,label\na,"cat"x\n', r"line 2: .*is a quote not closed\?"),
        ("path,label\n" + "x" * 200_000 + ",cat\n", "line 2: field larger than"),
        (
            "path,lable\na,cat\n",
            r"no column 'label' \(did you mean 'lable'\?\); its columns are path, lable",
        ),
        ("path,label,label\na,cat,cat\n", "2 columns are called 'label'"),
        ("path;label\na;cat\n", "line 1: columns are separated by ';'; needed: commas"),
        ("path,label\n", "has no row"),
        ("", "is empty"),
        (" \n\n", "is empty"),
        (",,\n\n", "line 1: there is no header"),
        ('"path', "line 1: unexpected end"),
        (b"path,label\na,caf\xe9\n", r"line 2: is not UTF-8 \(byte 0xe9\)"),
        ("path,label\n".encode("utf-16"), r"is not UTF-8 \(UTF-16\); save it as UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "line 1: is not UTF-8"),
    ],
)
def test_what_is_wrong_in_a_table_is_told_by_line_and_rule(read, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(content)
    assert str(caught.value).startswith("manifest.csv: ")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"path": "a", "label": "cat"}\n{"path": "b", "label": \n',
            "line 2: is not JSON: .*; one object a line is needed",
        ),
        ('[{"path": "a", "label": "cat"}]', "line 1: is not an object"),
        (
            '{"path": "a", "label": "cat"}\n5\nnull\n',
            r"(?s)line 2: is not an object.*line 3: is not an object",
        ),
        ('{"path": "a", "path": "b", "label": "cat"}', "line 1: a key is duplicated"),
        ('{"path": "a", "label": true}', "line 1: label = True: text or a number is needed"),
        ('{"path": ["a"], "label": "cat"}', "line 1: path = ..a..: text or a number is needed"),
        (
            '{"path": "a", "label": "\\ud800"}',
            "line 1: label = .*ud800.*: text or a number is needed",
        ),
        ('{"path": "a", "label": "cat"}\n{"path": "b"}', "line 2: label '' is empty"),
        (
            '{"path": "a", "label": null}\n{"path": "b", "label": "cat"}',
            "line 1: label '' is empty",
        ),
        ('{"path": "a", "label": "cat", "split": "holdout"}', "line 1: split 'holdout'"),
        ('{"path": "a"}\n{"path": "b"}', "no column 'label'.*; its columns are path;"),
        ('{"path": "a\\u0000", "label": "cat"}', "NUL"),
        ("[" * 100_000, "line 1: "),
        ("{}", "no column 'path'; no column 'label'; its columns are none"),
        ("path,label\na,b\n", r"(?s)line 1: is not JSON.*line 2: is not JSON"),
    ],
)
def test_what_is_wrong_in_json_is_told_by_line_and_rule(read, content, message):
    with pytest.raises(DataError, match=message):
        read(content, "m.jsonl")


def test_problems_are_told_together_up_to_a_number(read):
    rows = ["ok,cat", "../x,cat", "b,", "c,dog,3", "ok,dog"]
    with pytest.raises(DataError) as caught:
        read("\n".join(["path,label", *rows]))
    told = str(caught.value).split("\n")
    assert [line.split(":")[0].strip() for line in told[1:]] == [
        "line 3",
        "line 4",
        "line 5",
        "line 6",
        "line 6",
    ]
    with pytest.raises(DataError, match="there may be more") as caught:
        read("path,label\n" + "../x,cat\n" * 100_000)
    assert str(caught.value).count("line ") == MOST_PROBLEMS


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
