import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from discl_ray.core.weights import (
    Weight,
    compare,
    foreign_prefix,
    indexed_files,
    outline,
    read_header,
    read_headers,
)
from discl_ray.errors import ModelError

NAMES = ("a.weight", "b.0.weight", "b.1.bias")
EXPECTED = {name: Weight((2, 3), True) for name in NAMES}


def shards(folder, count=2, dtype=np.float32):
    """Files that hold NAMES in turn, and their index."""
    where = {}
    for i in range(count):
        file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        save_file({name: np.zeros((2, 3), dtype) for name in NAMES[i::count]}, folder / file)
        where |= dict.fromkeys(NAMES[i::count], file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return index


def refusal(work, *arguments):
    with pytest.raises(ModelError) as caught:
        work(*arguments)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_headers_tell_names_shapes_and_whether_numbers_are_real(tmp_path):
    save_file(
        {"x": np.zeros((4, 1), np.float16), "n": np.zeros((), np.int64)}, tmp_path / "w.safetensors"
    )
    assert read_header(tmp_path / "w.safetensors") == {
        "x": Weight((4, 1), True),
        "n": Weight((), False),
    }


def test_shards_are_read_as_one(tmp_path):
    assert read_headers(indexed_files(shards(tmp_path))) == EXPECTED
    compare(
        "here", EXPECTED, read_headers(indexed_files(tmp_path / "model.safetensors.index.json"))
    )


def test_a_shard_that_is_not_there_is_named(tmp_path):
    index = shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert "1 of the 2 shards" in (said := refusal(indexed_files, index))
    assert "model-00002-of-00002.safetensors" in said


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"metadata": {}}',
        '{"weight_map": {}}',
        '{"metadata": {}, "weight_map": {}}',
    ],
)
def test_an_index_that_is_none_is_named(tmp_path, text):
    index = shards(tmp_path)
    index.write_text(text)
    assert str(tmp_path) in refusal(indexed_files, index)


@pytest.mark.parametrize("change", [{"c.weight": "model-00001-of-00002.safetensors"}, None])
def test_an_index_of_another_model_is_named(tmp_path, change):
    """diffusers goes by the list.

    A weight that is listed and not there would be random, and nothing would be said.
    """
    index = shards(tmp_path)
    listed = json.loads(index.read_text())
    listed["weight_map"] = (
        {**listed["weight_map"], **change}
        if change
        else dict(list(listed["weight_map"].items())[1:])
    )
    index.write_text(json.dumps(listed))
    assert "differ in 1 weights" in refusal(indexed_files, index)


def test_a_shard_outside_the_folder_is_none(tmp_path):
    (tmp_path / "part").mkdir()
    index = shards(tmp_path / "part")
    index.write_text(index.read_text().replace("model-00002", "../model-00002"))
    assert "are missing" in refusal(indexed_files, index)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({n: EXPECTED[n] for n in NAMES[:2]}, ("1 of 3 weights are missing (b.1.bias)",)),
        ({**EXPECTED, "ema.x": Weight((1,), True)}, ("1 are not the model's (ema.x)",)),
        (
            {**EXPECTED, NAMES[0]: Weight((3, 2), True)},
            ("a.weight is [3, 2], not [2, 3]", "different models"),
        ),
        (
            {**EXPECTED, NAMES[0]: Weight((2, 3), False)},
            ("1 hold integers (a.weight)", "quantised"),
        ),
        (
            {f"module.{n}": w for n, w in EXPECTED.items()},
            ("3 of 3 weights are missing", "prefix 'module.'"),
        ),
        ({}, ("3 of 3 weights are missing",)),
    ],
)
def test_what_differs_is_said_with_counts_names_and_remedy(found, words):
    said = refusal(compare, "unet", EXPECTED, found)
    assert said.startswith("unet: ")
    assert all(word in said for word in words)
    assert "; " in said


def test_a_prefix_is_one_only_if_it_explains_what_is_missing():
    assert (
        foreign_prefix(NAMES, [f"cond_stage_model.transformer.{n}" for n in NAMES])
        == "cond_stage_model.transformer."
    )
    assert foreign_prefix(NAMES, [f"_orig_mod.{NAMES[0]}", "x"]) == ""
    assert foreign_prefix(NAMES, ["x.y", "z"]) == ""
    assert foreign_prefix([], ["module.x"]) == ""


def test_an_outline_sees_names_shapes_and_configs_but_no_numbers(tmp_path):
    def made(values, text):
        save_file({"x": np.asarray(values, np.float32)}, tmp_path / "w.safetensors")
        (tmp_path / "config.json").write_text(text)
        return outline({name: tmp_path / name for name in ("w.safetensors", "config.json")})

    assert made([1, 2], "a") == made([3, 4], "a")
    assert len({made([1, 2], "a"), made([1, 2, 3], "a"), made([1, 2], "b")}) == 3
