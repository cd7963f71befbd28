import pyarrow as pa
import pytest

from discl_ray.data.text_files import (
    BATCH,
    MOST_PROBLEMS,
    Problems,
    are_distinct,
    csv_rows,
    decode_text,
    distinct,
    gathered,
    translated,
)
from discl_ray.errors import DataError


def test_problems_are_told_together_and_not_endlessly():
    problems = Problems("x.csv")
    problems.check()
    assert not problems
    problems.add("line 2", "is odd")
    assert problems
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


def lines(*rows):
    return enumerate(rows, start=1)


def test_cells_are_gathered_by_column_whatever_the_number_of_batches():
    rows = [[str(number), "", f"é{number % 7}"] for number in range(2 * BATCH + 1)]
    last, first = gathered(lines(*rows), 3, [2, 0])
    assert last.to_pylist() == [row[2] for row in rows]
    assert first.to_pylist() == [row[0] for row in rows]
    assert [column.to_pylist() for column in gathered(lines(), 3, [1])] == [[]]
    assert gathered(lines(["a"], [None]), 1, [0])[0].to_pylist() == ["a", None]


@pytest.mark.parametrize("odd", [["a"], ["a", "b", "c"], []])
def test_rows_of_another_width_are_not_gathered(odd):
    assert gathered(lines(["a", "b"], odd), 2, [0]) is None


@pytest.mark.parametrize("cell", [True, False, 1, 1.5, ["a"], {}, {"a": "b"}, "\ud800"])
def test_what_is_no_text_is_not_gathered(cell):
    with pytest.raises((ValueError, TypeError)):
        gathered(lines(["a"], [cell]), 1, [0])


def test_texts_are_distinct_if_no_two_rows_hold_one():
    texts = pa.chunked_array([["a", "b"], ["a"]])
    assert distinct(texts) == ["a", "b"]
    assert not are_distinct(texts)
    assert are_distinct(texts.slice(1))


def test_each_distinct_text_is_translated_once():
    asked = []

    def length(text):
        asked.append(text)
        return len(text)

    texts = pa.chunked_array([["a", "bb", "a"], ["bb", ""]])
    assert translated(texts, length, pa.int64()).to_pylist() == [1, 2, 1, 2, 0]
    assert asked == ["a", "bb", ""]
    assert translated(texts, lambda text: text or None).to_pylist() == ["a", "bb", "a", "bb", None]
    assert translated(pa.array([], pa.string()), str).type == pa.string()
