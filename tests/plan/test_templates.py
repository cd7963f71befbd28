import pytest

from discl_ray.plan.templates import broken_rule, has_control, placeholders


@pytest.mark.parametrize(
    "template", ["a photo of {name}", "{name}, {name}", "plain", "{{a}} {name}"]
)
def test_text_with_the_name_or_without_any_placeholder_is_a_template(template):
    assert broken_rule(template) is None


@pytest.mark.parametrize(
    ("template", "rule"),
    [
        ("", "empty"),
        (" \t ", "empty"),
        ("a\n{name}", "control character"),
        ("\ud800 {name}", "control character"),
        ("{other}", "only placeholder"),
        ("{}", "only placeholder"),
        ("{name.__class__}", "only placeholder"),
        ("{name!r}", "only placeholder"),
        ("{name:>9}", "only placeholder"),
        ("{name", "only placeholder"),
    ],
)
def test_what_is_wrong_with_another_is_said(template, rule):
    assert rule in str(broken_rule(template))


def test_placeholders_are_found_with_format_and_conversion_and_doubled_braces_are_text():
    assert placeholders("{{no}} {name} {other!r:>9}") == [("name", "", None), ("other", ">9", "r")]
    assert placeholders("none") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [("ordinary, Ünïcode 猫", False), ("bell \a", True), ("line\u2028", True), ("\udfff", True)],
)
def test_control_characters_line_breaks_and_surrogates_are_found(text, found):
    assert has_control(text) == found
