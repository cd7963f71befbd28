import pyarrow as pa
import pytest

from discl_ray.core.filter import FilterConfig, judge

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("role", pa.string()),
        ("lam_pct", pa.int32()),
        ("replica", pa.int32()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("text_sim", pa.float32()),
        ("text_rank", pa.int32()),
    ]
)


def table(*rows):
    default = {"sample_id": "a", "role": "train", "lam_pct": 0, "status": "ok", "error": None, "text_sim": 0.5, "text_rank": 1}
    return pa.Table.from_pylist([{**default, "replica": i, **row} for i, row in enumerate(rows)], schema=SCHEMA)


def reasons(rows, **config):
    judged = judge(rows, FilterConfig(**config))
    assert judged.num_rows == rows.num_rows
    assert judged["kept"].to_pylist() == [r == "" for r in judged["reason"].to_pylist()]
    return judged["reason"].to_pylist()


def test_threshold_is_inclusive():
    rows = table({"text_sim": 0.25}, {"text_sim": 0.2499}, {"text_sim": 0.9, "text_rank": 10})
    assert reasons(rows, mode="absolute", threshold=0.25) == ["", "text_sim", ""]


def test_rank_is_inclusive_and_ignores_the_threshold():
    rows = table({"text_rank": 1, "text_sim": -0.9}, {"text_rank": 2}, {"text_rank": 3})
    assert reasons(rows, mode="rank", rank=1, threshold=1.0) == ["", "rank", "rank"]
    assert reasons(rows, mode="rank", rank=2) == ["", "", "rank"]


@pytest.mark.parametrize("config", [{"mode": "rank", "rank": 1000}, {"mode": "absolute", "threshold": -1.0}])
def test_failed_rows_keep_their_own_reason_under_the_laxest_filter(config):
    rows = table(
        {"status": "error", "error": "truncated", "text_sim": None, "text_rank": None},
        {"status": "error", "error": None, "text_sim": None, "text_rank": None},
        {},
    )
    assert reasons(rows, **config) == ["truncated", "error", ""]


def test_missing_scores_are_rejected_not_kept():
    rows = table({"text_sim": None, "text_rank": None})
    assert reasons(rows, mode="absolute", threshold=-1.0) == ["text_sim"]
    assert reasons(rows, mode="rank", rank=1000) == ["rank"]


def test_only_the_best_passing_attempt_is_kept():
    rows = table(
        {"replica": 0, "text_sim": 0.4},
        {"replica": 0, "text_sim": 0.8, "text_rank": 2},
        {"replica": 0, "text_sim": 0.6},
        {"replica": 1, "text_sim": 0.1},
    )
    assert reasons(rows, mode="rank") == ["attempt", "rank", "", ""]
    assert reasons(rows, mode="absolute", threshold=0.3) == ["attempt", "", "attempt", "text_sim"]


@pytest.mark.parametrize("key", [{"sample_id": "b"}, {"role": "probe"}, {"lam_pct": 30}, {"replica": 7}])
def test_rows_of_another_image_are_not_attempts(key):
    assert reasons(table({"replica": 0, "text_sim": 0.9}, {"replica": 0, "text_sim": 0.1, **key})) == ["", ""]


def test_another_threshold_keeps_other_rows_of_the_same_table():
    rows = table(*({"text_sim": s / 10} for s in range(10)))
    kept = [reasons(rows, mode="absolute", threshold=t / 10 - 0.05).count("") for t in range(10)]
    assert kept == list(range(10, 0, -1))


def test_an_empty_table_is_judged():
    judged = judge(SCHEMA.empty_table(), FilterConfig())
    assert judged.num_rows == 0
    assert judged.column_names[-2:] == ["kept", "reason"]
