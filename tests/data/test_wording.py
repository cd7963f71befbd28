import os

from hypothesis import given
from hypothesis import strategies as st

from discl_ray.data.wording import counted, first_few, readable, shown


@given(st.binary())
def test_readable_text_can_be_stored(name):
    readable(os.fsdecode(name)).encode()


@given(st.text())
def test_shown_text_is_one_line_without_control_characters(text):
    line = shown(text)
    assert line.isprintable()
    assert len(line) < 1500
    if text.isprintable() and len(text) <= 120:
        assert line == text


def test_bytes_that_are_no_text_are_written_as_escapes():
    assert readable(os.fsdecode(b"caf\xe9/x.png")) == "caf\\xe9/x.png"
    assert readable("café") == "café"


def test_long_text_is_cut_and_control_characters_are_escapes():
    assert shown("a\nb\x00") == "a\\nb\\x00"
    assert shown("x" * 130) == "x" * 120 + "… (130 characters)"


def test_the_first_names_and_whether_there_are_more():
    assert first_few(["a", "b"], 2) == "a, b"
    assert first_few(["a", "b", "c"], 2, quote="'") == "'a', 'b', …"
    assert first_few([]) == ""
    assert first_few(["x" * 9], width=4) == "xxxx… (9 characters)"


def test_numbers_agree_with_their_nouns():
    assert counted(1, "image") == "1 image"
    assert counted(0, "image") == "0 images"
    assert counted(2, "class", "classes") == "2 classes"
