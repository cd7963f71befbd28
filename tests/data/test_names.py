import json

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.core.storage import Store
from discl_ray.data.config import AnyDataConfig, ImageFolderConfig
from discl_ray.data.listing import inline
from discl_ray.data.names import class_names, code_like, load_names
from discl_ray.data.root import same_name
from discl_ray.errors import DataError


@pytest.fixture
def load(tmp_path):
    def of(name, content):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_names(str(file))

    return of


def test_three_forms_say_the_same(load, tmp_path):
    names = {"n01440764": "tench, Tinca tinca", "0123": "red fox", "🐈": "cat"}
    table = 'class,name\r\nn01440764,"tench, Tinca tinca"\r\n0123,red fox\r\n\r\n🐈,cat\r\n'
    assert load("a.csv", table) == names
    assert load("bom.CSV", b"\xef\xbb\xbf" + table.encode()) == names
    assert load("a.json", json.dumps(names)) == names
    assert load("bom.json", b"\xef\xbb\xbf" + json.dumps(names).encode()) == names
    lines = "n01440764 tench, Tinca tinca\n0123\tred fox  \n\n🐈 cat"
    assert load("a.txt", lines) == names
    assert load("LOC_synset_mapping", lines.replace("\n", "\r\n")) == names


def test_more_columns_and_blanks_do_no_harm(load):
    assert load("a.csv", 'name , id,class\n red fox ,7,a b\n "x ""y""",8,c\n') == {
        "a b": "red fox",
        "c": 'x "y"',
    }


KEYS = st.text(min_size=1).map(same_name)


@given(st.dictionaries(KEYS, st.text("abc é🐈,\"'{}", min_size=1).filter(str.strip), min_size=1))
def test_json_comes_back(tmp_path_factory, names):
    file = tmp_path_factory.getbasetemp() / "names.json"
    file.write_text(json.dumps(names))
    assert load_names(str(file)) == {key: name.strip() for key, name in names.items()}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "class,name\na,b\n\na,c\n", r"line 4: class 'a' is already in line 2"),
        ("a.csv", "class,name\na,\n", r"line 2: name of class 'a' is empty"),
        ("a.csv", "class,name\na,b,c\n", "line 2: has 3 fields, the header has 2"),
        ("a.csv", "key,label\na,b\n", "line 1: columns are key, label; needed: class,name"),
        ("a.csv", "class,name,name\na,b,c\n", "needed: class,name"),
        ("a.csv", 'class,name\na,"b\nc,d\n', "line 2: unexpected end"),
        ("a.csv", 'class,name\na,"b\nc"\n', "line 2: name of class 'a' holds a control character"),
        ("a.csv", "class,name\n", "holds no name"),
        ("a.csv", "", "holds no name"),
        ("a.csv", b"class,name\na,caf\xe9\n", "line 2: is not UTF-8"),
        ("a.json", '{"a": "b", "a": "c"}', r"entry 2: class 'a' is already in entry 1"),
        ("a.json", '{\n"a": "b",\n}', "line 3: "),
        ("a.json", '["a"]', "an object is needed"),
        ("a.json", '{"a": ["b"]}', "entry 1: the name of class 'a' is not text"),
        ("a.json", '{"a": {}}', "is not text"),
        ("a.json", '{"a": 5}', "entry 1: the name of class 'a' is not text"),
        ("a.json", '{"a": ' + "5" * 10_000 + "}", "is not text"),
        ("a.json", '{"a": "x\\u0007"}', "holds a control character"),
        ("a.json", '{"a": "\\ud800"}', "holds a control character"),
        ("a.json", '{"a": "' + "x" * 201 + '"}', "more than 200 characters"),
        ("a.json", "[" * 100_000, "an object is needed"),
        ("a.json", "", "line 1"),
        ("a.txt", "a b\nc\n", r"line 2: 'c' has no name"),
        ("a.txt", "a b\na c\n", r"line 2: class 'a' is already in line 1"),
        ("a.txt", "a b\x1bc\n", "holds a control character"),
    ],
)
def test_what_is_wrong_is_told_by_line_and_rule(load, name, content, message):
    with pytest.raises(DataError, match=message) as caught:
        load(name, content)
    assert name in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_two_hundred_characters_are_a_name(load):
    assert load("a.txt", "a " + "x" * 200) == {"a": "x" * 200}


def test_many_problems_are_one_error(load):
    with pytest.raises(DataError) as caught:
        load("a.csv", "class,name\n" + "a,\n" * 500)
    assert 10 < str(caught.value).count("line") <= 40


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load_names(str(tmp_path / "none.csv"))
    with pytest.raises(DataError, match="cannot be read"):
        load_names(str(tmp_path))
    with pytest.raises(DataError, match="cannot be read"):
        load_names("nosuchscheme://x/y.csv")


def test_a_file_at_a_uri():
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/names/x.txt", b"a ant\n")
    try:
        assert load_names("memory://names/x.txt") == {"a": "ant"}
    finally:
        filesystem.rm("/names", recursive=True)


CODES = """
n01440764; n99999999; 17; 0; 0123; 007; 1,000; 1 000; 3-4; 3.5; 1_2; -1; #5; sp_017; sp17; sp-17
sp_017b; sp 17; C3; c3; A310; A300B4; R2D2; x9; n0; id5; cls12; cls_12; cls-12; CLS12; class_5
class5; class-5; class 5; Class_05; Class #5; class_5b; category_12; category 12; label3; label_03
LABEL_0; idx17; species_0412; species12; species 12; taxon_991; genus_0012; genus0012; item000001
folder7; group_2; nat0001; 12a; 4x4; 1b; deadbeef01; a3f9c1; 0x1f; 0xdeadbeef; no5; no.5; obj_1
9e107d9d372bb682; d41d8cd98f00b204e9800998ecf8427e; 123e4567-e89b-12d3-a456-426614174000
"""
NAMES = """
zero; one; ant; T-shirt; t-shirt; X-ray; cat; tench; zebra; defaced; facade; decade; deed; bee; a; B
F-16; C-130; MD-11; Ω; 猫; кот; 🐈; café; O'Hare; naïve; e-mail; sp; species; class; label; cardiff
boeing747; red fox; boeing 747; Boeing 737-200; apollo 11; route 66; blue-footed booby
tench, Tinca tinca; n o; St. Bernard; 1957 Chevrolet Bel Air; Audi A4 Sedan 2012; 7 up can
Windows 95; class of 99; 001.Black_footed_Albatross
"""


def listed(text):
    return [name for line in text.strip().split("\n") for name in line.split("; ")]


@pytest.mark.parametrize("name", listed(CODES))
def test_codes(name):
    assert code_like(name)


@pytest.mark.parametrize("name", ["", *listed(NAMES)])
def test_names(name):
    assert not code_like(name)


@given(st.text("abcdefghijklmnopqrstuvwxyz -'", max_size=300))
def test_words_without_digits_are_never_codes(name):
    assert not code_like(name)


@given(st.integers(), st.sampled_from(["", "0", "sp_", "class ", "C"]))
def test_numbers_are_always_codes(number, before):
    assert code_like(f"{before}{abs(number)}")


def test_names_are_the_users_or_the_data_sets_or_the_keys(tmp_path):
    rows = [{"sample_id": key, "class_key": key, "bytes": b""} for key in ("a", "b", "c")]
    listing = inline(rows, Store.at("."))
    listing.names["b"] = "bee"
    assert class_names(AnyDataConfig(), listing) == ["a", "bee", "c"]
    file = tmp_path / "names.txt"
    file.write_text("a ant\nbee honey bee\n")
    config = ImageFolderConfig(root=".", names=str(file))
    assert class_names(config, listing) == ["ant", "honey bee", "c"]
    file.write_text("d dog\n")
    with pytest.raises(DataError, match=r"no class 'd'; classes are a, b, c, …"):
        class_names(config, listing)
    file.write_text("a c\n")
    with pytest.raises(DataError, match="two classes are both called 'c'"):
        class_names(config, listing)
