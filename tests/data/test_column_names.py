import pytest

from discl_ray.data.column_names import choose_columns
from discl_ray.errors import DataError


def test_columns_are_found_by_our_name_or_theirs():
    options = {"required": ("path", "label"), "optional": ("split",), "where": "x.csv"}
    assert choose_columns({}, ["label", "path", "more"], **options) == {
        "path": "path",
        "label": "label",
    }
    assert (
        choose_columns({"label": "y"}, ["y", "label", "path", "split"], **options)["label"] == "y"
    )
    with pytest.raises(
        DataError,
        match=r"x.csv: no column 'label' \(did you mean 'Label'\?\); its columns are path, Label",
    ):
        choose_columns({}, ["path", "Label"], **options)
    with pytest.raises(DataError, match="no column 'fold'"):
        choose_columns({"split": "fold"}, ["path", "label"], **options)
    with pytest.raises(DataError, match="2 columns are called 'path'"):
        choose_columns({}, ["path", "label", "path"], **options)
    assert choose_columns({}, ["path", "label", "more", "more"], **options)
