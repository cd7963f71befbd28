"""Scores as text."""

from discl_ray.report.tables import (
    LONG_TAIL,
    LOW_QUALITY,
    count,
    markdown_line,
    markdown_rule,
    percent,
    score_table,
)


def test_what_was_not_measured_is_a_dash():
    assert (percent(12.34), percent(float("nan"))) == ("12.3", "–")
    assert percent(1.0, "+.1f") == "+1.0"
    assert (count(12345.4), count(None)) == ("12,345", "–")


def test_a_long_tail_is_told_by_group_with_the_difference_of_two_rows():
    first = dict.fromkeys(LONG_TAIL, (50.0, 10))
    second = {column: (float("nan") if column[1] == "few" else 40.5, 10) for column in LONG_TAIL}
    seen = {"baseline": 30_000, "curriculum": None}
    rows = {"baseline": first, "curriculum": second}
    lines = score_table(rows, seen=seen, difference=("baseline", "curriculum")).splitlines()
    cells = [line[32:].split() for line in lines[1:]]
    few = [column[1] for column in LONG_TAIL].index("few")
    assert [line[:32].strip() for line in lines] == [
        "on test [%]",
        "baseline",
        "curriculum",
        "difference",
    ]
    assert cells[0] == ["50.0"] * len(LONG_TAIL) + ["30,000"]
    assert cells[1][few] == cells[2][few] == cells[1][-1] == "–"
    assert [cell for cell in cells[2] if cell != "–"] == ["-9.5"] * (len(LONG_TAIL) - 1)
    assert "few (n=10)" in lines[0]
    assert len({len(line) for line in lines[:3]}) == 1  # columns stand under each other


def test_two_domains_are_told_by_domain():
    scores = dict.fromkeys(LOW_QUALITY, (50.0, 7))
    head, row = score_table({"a": scores}, seen={"a": 3}).splitlines()
    heads = [f"{metric.replace('_', ' ')} {domain} (n=7)" for metric, domain in LOW_QUALITY]
    places = [head.index(name) for name in heads]
    assert places == sorted(places)
    assert row.split() == ["a", "50.0", "50.0", "50.0", "50.0", "3"]


def test_a_markdown_table_has_as_many_cells_in_its_rule_as_in_its_lines():
    line = markdown_line(["λ", "kept", "–"])
    assert line == "| λ | kept | – |"
    assert markdown_rule(3).count("|") == line.count("|")
