"""One function on every block, here or by Ray Data, and long calls as Ray tasks."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from discl_ray.cluster.map_blocks import SMALL, as_tasks, in_ray_worker, map_blocks, share
from discl_ray.cluster.session import ray_session
from discl_ray.errors import DataError


def blocks_of(rows, size):
    numbers = range(rows)
    return [pa.table({"n": numbers[start : start + size]}) for start in range(0, rows, size)]


def doubled(block):
    return pa.table({"n": pc.multiply(block["n"], 2)})


def test_few_rows_are_processed_here_block_by_block_in_order():
    seen = []

    def work(block):
        seen.append(block.num_rows)
        return doubled(block)

    done = list(map_blocks(blocks_of(10, 4), work, "rows", None))
    assert seen == [4, 4, 2]
    assert pa.concat_tables(done)["n"].to_pylist() == list(range(0, 20, 2))


def test_a_process_has_a_gpu_and_no_cpu_or_cpus():
    assert share(True, 4) == {"num_cpus": 0, "num_gpus": 1}
    assert share(False, 4) == {"num_cpus": 4}


def test_this_process_is_no_ray_worker():
    assert not in_ray_worker()


@pytest.mark.ray
@pytest.mark.slow
def test_many_rows_are_processed_by_ray_data_and_counted(caplog):
    rows = SMALL + 100

    def work(block):
        assert in_ray_worker()
        return pa.table({"total": [sum(block["n"].to_pylist())], "rows": [block.num_rows]})

    caplog.set_level("INFO", logger="discl_ray")
    done = list(map_blocks(blocks_of(rows, 1700), work, "rows read", 4, weigh="rows"))
    assert sorted(result["rows"][0].as_py() for result in done) == [1700] * 3  # no block is split
    assert sum(result["total"][0].as_py() for result in done) == sum(range(rows))
    assert any(f"{rows}/{rows} rows read" in record.getMessage() for record in caplog.records)


@pytest.mark.ray
@pytest.mark.slow
def test_tasks_are_yielded_by_number_and_one_that_fails_ends_them_with_its_own_error():
    def divide(number, by):
        if not by:
            raise DataError("nothing to divide by")
        return number / by

    with ray_session(num_cpus=4, needs={}):
        results = dict(as_tasks(divide, [(6, 2), (9, 3), (8, 1)], gpu=False))
        assert results == {0: 3, 1: 3, 2: 8}
        with pytest.raises(DataError, match="nothing to divide by"):
            list(as_tasks(divide, [(6, 2), (9, 0)], gpu=False))
