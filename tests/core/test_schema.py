"""Tables fit together, and other libraries know which column holds images."""

import json

import pyarrow as pa

from discl_ray.core.schema import PLAN, SAMPLES, SCORED, SPECTRUM, hf_dtype


def test_the_spectrum_is_the_plan_with_what_was_made_and_scored():
    assert SCORED.names[: len(PLAN.names)] == PLAN.names
    assert set(SPECTRUM.names) == {*SCORED.names, "class_name"}
    assert SPECTRUM.names.index("class_name") == SPECTRUM.names.index("label") + 1
    for field in SCORED:
        assert SPECTRUM.field(field.name).type == field.type


def test_datasets_decodes_the_image_column_and_no_other():
    for schema in (SAMPLES, SPECTRUM):
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        assert list(features) == schema.names
        assert [name for name, kind in features.items() if kind["_type"] == "Image"] == ["image"]


def test_types_have_the_names_that_datasets_uses():
    kinds = {"float32": pa.float32(), "float64": pa.float64(), "int32": pa.int32()}
    for name, kind in kinds.items():
        assert hf_dtype(kind) == name
    assert hf_dtype(pa.string()) == "string"
