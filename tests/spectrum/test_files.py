"""Which files hold the rows of a spectrum, and their hashes."""

import pytest

from discl_ray.core.ids import sha256
from discl_ray.spectrum.files import committed_files, content_of, data_files
from discl_ray.spectrum.records import committed

pytestmark = pytest.mark.timeout(600)


def test_only_what_a_record_names_is_committed(copy):
    names = [file.name for record in committed(copy).values() for file in record.files]
    copy.write("spectrum/ffff.parquet", b"begun")
    copy.write("spectrum/lam_pct=50/ffff.parquet", b"begun by an earlier version")
    assert committed_files(copy) == sorted(names)
    assert content_of(copy) == sorted(sha256(copy.read(name)) for name in names)
    assert data_files(copy) == {
        "spectrum": sorted([*names, "spectrum/ffff.parquet"]),
        "spectrum/lam_pct=50": ["spectrum/lam_pct=50/ffff.parquet"],
    }


def test_all_files_of_another_tool_count(of_another_tool):
    names = of_another_tool.list("spectrum", ".parquet")
    assert committed_files(of_another_tool) == names
    assert content_of(of_another_tool) == sorted(sha256(of_another_tool.read(n)) for n in names)
