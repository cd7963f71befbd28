"""What is beside a spectrum for other tools: a dataset card, and the filter's verdicts.

    README.md          what it is and how to open it; its front matter tells `datasets` the files,
                       the columns and the class names
    verdicts.parquet   gid, kept, reason

`make generate` writes both again when they change. They are above `spectrum/`: inside it they would
be read as data. Class names are in the card alone, as 8,142 of them would add .6 MB to the footer
of every Parquet file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import yaml

from discl_ray.config import Config
from discl_ray.core.schema import SPECTRUM, VERDICT, hf_dtype
from discl_ray.core.storage import Store, parquet_bytes
from discl_ray.report.acceptance import rule_words
from discl_ray.spectrum.files import data_files
from discl_ray.spectrum.remedies import DATA

CARD, VERDICTS = "README.md", "verdicts.parquet"

GROUP = 1 << 17
"""Rows of a row group of verdicts: without images, thousands are small."""

COLUMNS = {
    "gid": "the image's own id: equal ids are equal images",
    "shard_id": "the part of the plan it was made in, its file's name",
    "sample_id": "the real image it was made from",
    "label": "class",
    "class_name": "the class by name",
    "role": "`train`, or `probe`: made from a validation image, never to be trained on",
    "lam_pct": "level λ in percent: 0 follows the prompt alone, 100 would be the real image",
    "replica": "which of several images made from one real image at one level; "
    "those of a replica share their noise",
    "attempt": "which try at that image",
    "prompt": "what the generator was given",
    "negative_prompt": "what it was led away from",
    "filter_prompt": "the class prompt the image is scored against",
    "seed": "of the noise",
    "num_steps": "denoising steps",
    "source_sha256": "of the real image's bytes",
    "image": "encoded bytes; null where none could be made",
    "status": "`ok`, `error` or `crashed`",
    "error": "why there is no image",
    "generator": "the diffusion model",
    "revision": "its revision",
    "dtype": "its precision",
    "micro_batch": "images of its batch",
    "text_sim": "CLIP cosine to the own class prompt",
    "text_rank": "rank of the own among all class prompts; 1 is the closest",
    "image_sim": "CLIP cosine to the real image",
    "source_text_sim": "CLIP cosine of the real image to the class prompt",
    "source_text_rank": "rank of the class prompt for the real image",
}

OPEN = """```python
import os, datasets, duckdb, pandas, polars, pyarrow.parquet, ray

here = os.getcwd()  # the folder of this card
ray.init(address="local", ignore_reinit_error=True)  # joins no cluster that it finds
rows = datasets.load_dataset(here, split="train")  # images as PIL, labels with class names
frame = pandas.read_parquet("spectrum")
table = pyarrow.parquet.read_table("spectrum", columns=["gid", "label", "lam_pct"])
lazy = polars.scan_parquet("spectrum/*.parquet")
blocks = ray.data.read_parquet(f"{here}/spectrum")
kept = duckdb.sql(
    "select * from 'spectrum/*.parquet' join 'verdicts.parquet' using (gid) "
    "where kept and role = 'train'"
)
```"""

OLDER = (
    "This run, or a part of it, was made by a version that wrote a folder for each level. There "
    "pandas and pyarrow need `partitioning=None`, and the others `spectrum/**/*.parquet`, polars "
    'with `missing_columns="insert"`. What it made has neither `class_name` nor '
    "`source_text_rank`.\n"
)


class _Quoted(str):
    """A string that YAML writes in double quotes, which escape every special character."""


class _Dumper(yaml.SafeDumper):
    pass


def _in_quotes(dumper: yaml.SafeDumper, text: _Quoted) -> yaml.ScalarNode:
    """How YAML writes a _Quoted."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"')


_Dumper.add_representer(_Quoted, _in_quotes)


def write_card(run: Store, config: Config, classes: Sequence[str], note: str = "") -> None:
    """Writes the card of a run, complete or not.

    `classes` are the names by label; a `note` is shown above everything.
    """
    folders = data_files(run) or (DATA,)
    patterns = sorted(f"{folder}/*.parquet" for folder in folders)
    text = card(config, classes, patterns, note)
    _write(run, CARD, text.encode())


def write_verdicts(run: Store, spectrum: pa.Table) -> None:
    """Writes the verdicts of an opened spectrum."""
    columns = ["gid", *VERDICT.names]
    verdicts = spectrum.select(columns)
    starts = range(0, verdicts.num_rows, GROUP)
    _write(run, VERDICTS, parquet_bytes(verdicts, starts))


def _write(run: Store, name: str, data: bytes) -> None:
    """Writes a file of a run, unless it is there and the same."""
    if run.exists(name) and run.read(name) == data:
        return
    run.write(name, data)


def card(config: Config, classes: Sequence[str], patterns: Sequence[str], note: str = "") -> str:
    """The dataset card: front matter for `datasets`, then text.

    `patterns` match the data files, relative to the card.
    """
    scorer = config.scorer.model
    if config.scorer.pretrained:
        scorer += f" ({config.scorer.pretrained})"
    mode = config.filter.mode
    requires = rule_words(config.filter, mode)
    rule = f"`{mode}` ({requires})"
    described = [f"| `{name}` | {COLUMNS[name]} |" for name in SPECTRUM.names]
    columns = "\n".join(described)
    front = front_matter(classes, patterns)
    # only the folders of older layouts are named by a key and its value
    of_older = ["=" in pattern for pattern in patterns]
    parts = [
        f"---\n{front}---\n\n# Spectrum of {config.data.name}\n",
        f"**{note}**\n" if note else "",
        "Synthetic images made by discl-ray "
        "([Diffusion Curriculum](https://arxiv.org/abs/2410.13674)) from the hard images of "
        f"`{config.data.name}`, each at several levels λ between what the prompt alone gives and "
        f"the real image itself. Generator: `{config.generator.model}`. CLIP that scored them: "
        f"`{scorer}`.\n",
        "Rejected images are included. `verdicts.parquet` (`gid`, `kept`, `reason`) says which "
        f"ones the filter keeps, here {rule}; `make generate` with another filter writes it again, "
        "and makes no image again. "
        "Rows of role `probe` come from validation images: do not train on them.\n",
        "While there is no `MANIFEST.json` the images are still being made: each file in "
        "`spectrum/` is whole, but more will come, and `verdicts.parquet` is missing or older.\n",
        f"## Open it\n\n{OPEN}\n",
        "For scores and statistics: `folded/*.parquet` has every column but `image`, in one table; "
        "`file` says where an image lies.\n",
        OLDER if any(of_older) else "",
        f"## Columns\n\n| column | |\n|---|---|\n{columns}\n",
    ]
    return "\n".join(part for part in parts if part)


def front_matter(classes: Sequence[str], patterns: Sequence[str]) -> str:
    """YAML for `datasets.load_dataset` on the folder: the spectrum's files, class names, images."""
    names = {str(label): _Quoted(name) for label, name in enumerate(classes)}
    class_label = {"names": names}
    kinds: dict[str, Any] = {"image": "image", "label": {"class_label": class_label}}
    features: list[dict[str, Any]] = []
    for column in SPECTRUM:
        kind = kinds.get(column.name, hf_dtype(column.type))
        features.append({"name": column.name, "dtype": kind})
    files = patterns[0] if len(patterns) == 1 else list(patterns)
    content = {
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"config_name": "default", "features": features},
    }
    return yaml.dump(content, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=2**20)
