import shutil

import pyarrow as pa
import pytest

from discl_ray.core.schema import IMAGE
from discl_ray.core.storage import Store
from discl_ray.errors import DataError, IntegrityError
from discl_ray.spectrum.open import Spectrum
from discl_ray.train.images.table import table_rows
from discl_ray.train.images.writer import SegmentWriter, cut, values_of, write_segments

SIDE = 20


def test_an_image_that_is_in_no_file_is_told(spectrum_run, tmp_path):
    source = spectrum_run[1].store.local
    shutil.copytree(source.parent, tmp_path, dirs_exist_ok=True)
    spectrum_of_run = Spectrum.open(Store.at(tmp_path / source.name))
    samples = spectrum_of_run.samples
    rows = table_rows(spectrum_of_run, spectrum_run[0].filter)
    name = samples.list("train", ".parquet")[0]
    samples.write_table(name, samples.read_table(name).slice(1))
    target = spectrum_of_run.store.within("t")
    writer = SegmentWriter(samples, spectrum_of_run.store, target, SIDE, "decoded")
    with pytest.raises(IntegrityError, match="1 image is gone"):
        write_segments(rows, writer, None)


def test_an_image_with_neither_bytes_nor_a_path_is_told_with_its_row(spectrum_run, tmp_path):
    source = spectrum_run[1].store.local
    shutil.copytree(source.parent, tmp_path, dirs_exist_ok=True)
    spectrum_of_run = Spectrum.open(Store.at(tmp_path / source.name))
    samples = spectrum_of_run.samples
    rows = table_rows(spectrum_of_run, spectrum_run[0].filter)
    name = samples.list("train", ".parquet")[0]
    table = samples.read_table(name)
    images = [{"bytes": None, "path": None}] * table.num_rows
    place = table.column_names.index("image")
    samples.write_table(name, table.set_column(place, "image", pa.array(images, IMAGE)))
    target = spectrum_of_run.store.within("t")
    writer = SegmentWriter(samples, spectrum_of_run.store, target, SIDE, "decoded")
    sample_id = table["sample_id"][0].as_py()
    said = f"image of sample_id {sample_id}: it has neither bytes nor a path; one of them is needed"
    with pytest.raises(DataError, match=said):
        write_segments(rows, writer, None)


def test_rows_are_cut_in_order():
    rows = pa.table({"number": list(range(7)), "text": list("abcdefg")})
    parts = cut(rows, 3)
    assert [part.num_rows for part in parts] == [3, 3, 1]
    assert pa.concat_tables(parts).equals(rows)


def test_values_come_row_by_row():
    rows = pa.table({"number": [1, 2], "text": ["a", "b"], "more": [True, False]})
    assert list(values_of(rows, "text", "number")) == [("a", 1), ("b", 2)]
