import pytest

from discl_ray.data.config import ManifestConfig
from discl_ray.data.manifest_rows import by_row
from discl_ray.data.root import open_root
from discl_ray.data.text_files import MOST_PROBLEMS
from discl_ray.errors import DataError
from tests.data import test_manifest as manifests

read = manifests.read  # a fixture


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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "label,path,group,more\n\ncat,./a.png,,x\n0123, b.png,g,\n"),
        ("m.tsv", "label\tpath\tgroup\ncat\t./a.png\t\n0123\tb.png\tg\n"),
        (
            "m.JSONL",
            '{"label": "cat", "path": "./a.png", "group": null}\n\n'
            '{"path": "b.png", "group": "g", "label": "0123", "more": [1]}\n',
        ),
    ],
)
def test_right_rows_are_listed_as_well(tmp_path, name, text):
    config = ManifestConfig(root=str(tmp_path), columns={"domain": "group"})
    rows = by_row(open_root(str(tmp_path)), config, name, text)
    assert [
        (row["sample_id"], row["path"], row["class_key"], row["domain"], row["group"])
        for row in rows.to_pylist()
    ] == [("a.png", "a.png", "cat", None, None), ("b.png", "b.png", "0123", "g", "g")]
