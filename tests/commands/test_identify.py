"""Which images are hard: by class count nothing is predicted, only counted and drawn."""

import io
from pathlib import Path

import pyarrow as pa
from PIL import Image

from discl_ray.commands.identify import SHEET, job, source_words


def test_training_images_and_probes_are_counted_apart():
    sources = pa.table({"split": ["train", "val", "train", "train"]})
    assert source_words(sources) == "3 hard training images, 1 val images for probes"


def test_by_class_count_a_picture_lies_beside_the_samples(small, capsys):
    config = small("hard.rule=class_count")
    job(config)
    said = capsys.readouterr().out
    (sheet,) = Path(config.run.root).rglob(SHEET)
    assert Image.open(io.BytesIO(sheet.read_bytes())).size[0] > 96
    assert f"look at {sheet} · next: make preview" in said
    assert "hard · " in said
    assert "predictions · " not in said
