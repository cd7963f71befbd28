"""The tables phase 1 and phase 2 meet at, and the only place where a column name is spelt.

SAMPLES      one row per real image
PLAN         one row per image to make
SHARDS       one row per shard of a plan: where its rows and its real images lie
SPECTRUM     PLAN plus class name, image, scores and provenance; one Parquet file a shard
PREDICTIONS  one row per train and val image: the output of a classifier that was not trained on it
METRICS      one row per measured number

An operator adds columns; it never drops a row.
"""

from __future__ import annotations

import json

import pyarrow as pa

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""Hugging Face's `Image`: encoded bytes, or a path when there are none."""


def _with_hf_image(schema: pa.Schema) -> pa.Schema:
    """Adds the metadata by which `datasets` decodes the `image` column to PIL images."""
    features: dict[str, object] = {
        field.name: {"_type": "Image"}
        if field.name == "image"
        else {"dtype": hf_dtype(field.type), "_type": "Value"}
        for field in schema
    }
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def hf_dtype(dtype: pa.DataType) -> str:
    """A column's type as `datasets` calls it."""
    return {"float": "float32", "double": "float64"}.get(str(dtype), str(dtype))


SAMPLES = _with_hf_image(
    pa.schema(
        [
            ("sample_id", pa.string()),
            ("image", IMAGE),
            ("label", pa.int32()),
            ("class_name", pa.string()),
            ("split", pa.string()),  # train | val | test
            ("domain", pa.string()),
            ("group", pa.string()),  # what may not be divided between splits: here, the writers
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("sha256", pa.string()),
        ]
    )
)

PLAN = pa.schema(
    [
        ("gid", pa.string()),
        ("shard_id", pa.string()),
        ("sample_id", pa.string()),
        ("label", pa.int32()),
        ("role", pa.string()),  # train | probe
        ("lam_pct", pa.int32()),
        ("replica", pa.int32()),
        ("attempt", pa.int32()),
        ("prompt", pa.string()),
        ("negative_prompt", pa.string()),
        ("filter_prompt", pa.string()),
        ("seed", pa.int64()),
        ("num_steps", pa.int32()),
        ("source_sha256", pa.string()),
    ]
)

SHARDS = pa.schema(
    [
        ("shard_id", pa.string()),
        ("plan", pa.string()),  # the file of PLAN that has its rows
        ("plan_first", pa.int64()),  # the number of the first of them in it
        ("rows", pa.int64()),
        # the file of SAMPLES that has its real images, and which of its rows they are; null in a
        # run of an earlier version, where they are looked up by id in sources.parquet
        ("sources", pa.string()),
        ("sources_first", pa.int64()),
        ("sources_rows", pa.int64()),
        ("new_sources", pa.int64()),  # real images that no shard before it in its file has
        ("probes", pa.int64()),  # rows whose role is probe
        ("unet_steps", pa.int64()),
    ]
)

BROKEN = "black_or_not_finite"
"""`error` of an image that came out black or not finite, even in float32; another seed may do."""

MADE = pa.schema(
    [
        ("image", IMAGE),
        ("status", pa.string()),  # ok | error | crashed
        ("error", pa.string()),
        ("generator", pa.string()),
        ("revision", pa.string()),
        ("dtype", pa.string()),
        ("micro_batch", pa.int32()),
    ]
)
"""What the generator adds to PLAN."""

SCORES = pa.schema(
    [
        ("text_sim", pa.float32()),  # CLIP cosine to the filter prompt of the own class
        ("text_rank", pa.int32()),  # 1 + number of other class prompts that are closer
        ("image_sim", pa.float32()),  # CLIP cosine to the source image
        ("source_text_sim", pa.float32()),  # CLIP cosine of the source image to the filter prompt
        ("source_text_rank", pa.int32()),  # the same rank of the source image
    ]
)
"""What the scorer adds."""

SCORED = pa.schema([*PLAN, *MADE, *SCORES])
"""What is committed, before its classes are named."""

SPECTRUM = _with_hf_image(
    SCORED.insert(SCORED.get_field_index("label") + 1, pa.field("class_name", pa.string()))
)

FILE = pa.field("file", pa.string())
"""The committed file of a spectrum's row, relative to its run; added when it is opened."""

VERDICT = pa.schema([("kept", pa.bool_()), ("reason", pa.string())])
"""What the filter computes from SPECTRUM when it is opened; never stored."""

PREDICTIONS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("label", pa.int32()),
        # prob_true, pred and prob_pred are null if the image could not be read
        ("prob_true", pa.float32()),  # of the image's own class
        ("pred", pa.int32()),  # the most probable class
        ("prob_pred", pa.float32()),
        ("fold", pa.int32()),  # whose classifier was not trained on it; -1: none was trained on it
        ("scorer", pa.string()),  # the model that predicted
    ]
)

METRICS = pa.schema(
    [
        ("run", pa.string()),
        ("seed", pa.int64()),
        ("epoch", pa.int32()),
        ("split", pa.string()),
        ("metric", pa.string()),
        ("group", pa.string()),
        ("value", pa.float64()),
        ("n", pa.int64()),
    ]
)
