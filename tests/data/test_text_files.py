import pytest

from discl_ray.data.text_files import MOST_PROBLEMS, Problems, csv_rows, decode_text
from discl_ray.errors import DataError


def test_problems_are_told_together_and_not_endlessly():
    problems = Problems("x.csv")
    problems.check()
    problems.add("line 2", "is odd")
    problems.add("line 9", "is even")
    with pytest.raises(DataError, match=r"x.csv: .*\n  line 2: is odd\n  line 9: is even"):
        problems.check()
    for line in range(MOST_PROBLEMS - 3):
        problems.add(f"line {line}", "is odd")
    with pytest.raises(DataError, match="there may be more") as caught:
        problems.add("line 99", "is odd")
    assert str(caught.value).count("line ") == MOST_PROBLEMS


def test_text_is_decoded_with_or_without_a_byte_order_mark():
    assert decode_text("x", b"\xef\xbb\xbfa") == decode_text("x", b"a") == "a"
    with pytest.raises(DataError, match=r"^x: line 2: is not UTF-8 \(byte 0xe9\); save it"):
        decode_text("x", b"a\ncaf\xe9")
    with pytest.raises(DataError, match=r"is not UTF-8 \(UTF-16\); fetch it$"):
        decode_text("x", "a".encode("utf-16"), "fetch it")


def test_rows_of_a_table_have_the_number_of_their_first_line():
    problems = Problems("x.csv")
    rows = list(csv_rows('a, b\n\n"c\nd",e\nf\n', problems, trim=True))
    assert rows == [(1, ["a", "b"]), (3, ["c\nd", "e"]), (5, ["f"])]
    assert list(csv_rows("a\t b", problems, delimiter="\t")) == [(1, ["a", " b"])]
    problems.check()
    assert list(csv_rows('a,b\n"c,d', problems)) == [(1, ["a", "b"])]
    with pytest.raises(DataError, match=r"line 2: .*is a quote not closed"):
        problems.check()
