"""A commit record says what was written, and one that is damaged is named."""

import pytest

from discl_ray.core.ids import sha256
from discl_ray.errors import IntegrityError
from discl_ray.spectrum.records import (
    Commit,
    committed,
    committed_ids,
    each_of,
    read_commit,
    record_name,
    shard_of,
)

pytestmark = pytest.mark.timeout(600)


def test_a_record_holds_sizes_hashes_and_counts_of_what_was_written(spectrum_run):
    run = spectrum_run[1]
    records = committed(run.store)
    assert set(records) == committed_ids(run.store) == set(run.plan["shard_id"].to_pylist())
    for shard_id, record in records.items():
        (file,) = record.files
        data = run.store.read(file.name)
        assert (file.size, file.sha256) == (len(data), sha256(data))
        rows = run.store.read_table(file.name, ["role", "lam_pct", "status"]).to_pylist()
        assert record.status == {"ok": len(rows)}
        assert record.levels is not None
        levels = {
            (role, int(lam)): count
            for role, of_role in record.levels.items()
            for lam, count in of_role.items()
        }
        assert levels == {
            (r["role"], r["lam_pct"]): [(o["role"], o["lam_pct"]) for o in rows].count(
                (r["role"], r["lam_pct"])
            )
            for r in rows
        }
        assert shard_of(record_name(shard_id)) == shard_id


def test_a_record_of_an_earlier_version_is_read():
    file = {"name": "spectrum/a.parquet", "rows": 2, "sha256": "0" * 64}
    record = Commit.from_json({"shard_id": "a", "files": [file]})
    assert record.files[0].size is None
    assert record.levels is None
    assert record.status == {}


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"{}", b'{"shard_id": "another", "files": []}', b"\xff"]
)
def test_a_damaged_record_is_named(copy, content):
    name = copy.list("commits", ".json")[0]
    copy.write(name, content)
    with pytest.raises(IntegrityError, match=copy.path(name)):
        read_commit(copy, "make it again", name)
    with pytest.raises(IntegrityError, match="which makes its images again"):
        committed(copy)


def test_results_come_in_the_order_of_the_names():
    names = [str(number) for number in range(100)]
    assert each_of(int, names) == list(range(100))
