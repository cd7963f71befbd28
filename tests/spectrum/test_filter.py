import sys
import types

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.errors import ConfigError, DataError
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.filter import MODES, judge, verdicts

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
        ("source_text_sim", pa.float32()),
    ]
)


def table(*rows):
    default = {"sample_id": "a", "role": "train", "lam_pct": 0, "status": "ok", "error": None}
    default |= {"text_sim": 0.5, "text_rank": 1, "source_text_sim": 0.4}
    return pa.Table.from_pylist(
        [{**default, "replica": i, **row} for i, row in enumerate(rows)], schema=SCHEMA
    )


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


@pytest.mark.parametrize(
    "config",
    [
        {"mode": "rank", "rank": 1000},
        {"mode": "absolute", "threshold": -1.0},
        {"mode": "quantile", "quantile": 1e-9},
    ],
)
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
    assert reasons(rows, mode="quantile", quantile=1e-9) == ["text_sim"]


def test_only_the_best_passing_attempt_is_kept():
    rows = table(
        {"replica": 0, "text_sim": 0.4},
        {"replica": 0, "text_sim": 0.8, "text_rank": 2},
        {"replica": 0, "text_sim": 0.6},
        {"replica": 1, "text_sim": 0.1},
    )
    assert reasons(rows, mode="rank") == ["attempt", "rank", "", ""]
    assert reasons(rows, mode="absolute", threshold=0.3) == ["attempt", "", "attempt", "text_sim"]


@pytest.mark.parametrize(
    "key", [{"sample_id": "b"}, {"role": "probe"}, {"lam_pct": 30}, {"replica": 7}]
)
def test_rows_of_another_image_are_not_attempts(key):
    assert reasons(
        table({"replica": 0, "text_sim": 0.9}, {"replica": 0, "text_sim": 0.1, **key})
    ) == ["", ""]


def test_another_threshold_keeps_other_rows_of_the_same_table():
    rows = table(*({"text_sim": s / 10} for s in range(10)))
    kept = [reasons(rows, mode="absolute", threshold=t / 10 - 0.05).count("") for t in range(10)]
    assert kept == list(range(10, 0, -1))


def test_an_empty_table_is_judged():
    judged = judge(SCHEMA.empty_table(), FilterConfig())
    assert judged.num_rows == 0
    assert judged.column_names[-2:] == ["kept", "reason"]


def real(*sims, **row):
    """Rows that stand for one real image each, with `sims` as its own closeness to its prompt."""
    return [
        {"sample_id": f"s{i}", "text_sim": -1.0, "source_text_sim": sim, **row}
        for i, sim in enumerate(sims)
    ]


@pytest.mark.parametrize(
    ("quantile", "bar"), [(0.05, 0.12), (0.25, 0.2), (0.5, 0.3), (0.625, 0.35), (0.95, 0.48)]
)
def test_the_bar_is_the_quantile_of_the_real_images(quantile, bar):
    above, below = np.float32(bar + 1e-4), np.float32(bar - 1e-4)
    rows = table(
        *real(0.5, 0.1, 0.4, 0.2, 0.3), *({**real(0.5)[0], "text_sim": s} for s in (above, below))
    )
    assert reasons(rows, mode="quantile", quantile=quantile)[5:] == ["", "text_sim"]


@pytest.mark.parametrize("place", [7, 14, 28, 55])  # place / 100 * 100 is a little more than place
def test_an_image_as_close_as_the_quantile_itself_passes(place):
    sims = [0.1] * place + [0.2] + [0.9] * (100 - place)
    made = [{**real(0.1)[0], "text_sim": sim} for sim in (0.2, 0.1999)]
    assert reasons(table(*real(*sims), *made), mode="quantile", quantile=place / 100)[-2:] == [
        "",
        "text_sim",
    ]


def test_a_real_image_counts_once_however_many_rows_it_has():
    many = [
        {"sample_id": "s0", "source_text_sim": 0.1, "text_sim": -1.0, "lam_pct": lam}
        for lam in range(50)
    ]
    made = {**real(0.1)[0], "text_sim": 0.25}
    assert (
        reasons(table(*real(0.1, 0.3, 0.4), made), mode="quantile", quantile=0.5)[-1] == "text_sim"
    )
    assert (
        reasons(table(*many, *real(0.1, 0.3, 0.4), made), mode="quantile", quantile=0.5)[-1]
        == "text_sim"
    )
    assert (
        reasons(table(*many, *real(0.1, 0.2, 0.4), made), mode="quantile", quantile=0.5)[-1] == ""
    )


def test_probes_and_images_without_a_score_do_not_move_the_bar():
    others = [
        {"sample_id": "p", "role": "probe", "source_text_sim": 1.0},
        {"sample_id": "m", "source_text_sim": None, "status": "error"},
        {"sample_id": "n", "source_text_sim": float("nan")},
        {"sample_id": "s0", "source_text_sim": None, "status": "error"},
    ]
    rows = table(*others, {**real(0.2)[0], "text_sim": 0.2}, {**real(0.2)[0], "text_sim": 0.19})
    assert reasons(rows, mode="quantile", quantile=0.9)[-2:] == ["", "text_sim"]


@pytest.mark.parametrize(
    "rows", [[], real(None, None), real(0.3, role="probe"), real(float("nan"))]
)
def test_no_real_image_to_take_the_quantile_of_is_an_error(rows):
    with pytest.raises(DataError, match=r"filter\.mode = 'quantile'"):
        reasons(table(*rows), mode="quantile")


@pytest.mark.parametrize(
    ("own", "kind", "why"),
    [
        (
            lambda rows, config: rows["none"],
            ConfigError,
            r"raised KeyError: .*test_filter\.py, line",
        ),
        (lambda rows: None, ConfigError, r"raised TypeError: .*defined in .*test_filter\.py, line"),
        (lambda rows, config: sys.exit(0), ConfigError, "ended the program"),
        (lambda rows, config: None, DataError, "returned None; a bool for each of the 2 rows"),
        (lambda rows, config: [1, 2], DataError, r"returned int64 of shape \(2,\)"),
        (lambda rows, config: [[1], [1, 2]], ConfigError, "raised ValueError"),
    ],
)
def test_what_is_wrong_with_a_filter_of_ones_own_is_named(monkeypatch, own, kind, why):
    module = types.ModuleType("filter_of_test")
    module.own = own
    monkeypatch.setitem(sys.modules, "filter_of_test", module)
    with pytest.raises(kind, match=rf"filter\.mode = 'filter_of_test:own': {why}"):
        judge(table({}, {}), FilterConfig(mode="filter_of_test:own"))


SIMS = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20)
SHARE = st.floats(0, 1, exclude_min=True, exclude_max=True)


@given(SIMS, SIMS, SHARE, SHARE)
def test_a_higher_quantile_keeps_no_other_images(sources, made, one, other):
    rows = table(*real(*sources), *({**real(sources[0])[0], "text_sim": s} for s in made))
    low, high = (
        verdicts(rows, FilterConfig(mode="quantile", quantile=q))["quantile"][len(sources) :]
        for q in sorted((one, other))
    )
    assert not (high & ~low).any()
    assert all(low[np.asarray(made) >= max(sources)])
    assert not any(high[np.asarray(made) < min(sources)])


def test_verdicts_of_all_modes_agree_with_the_reasons():
    rows = table(
        {"sample_id": "a", "source_text_sim": 0.2, "text_sim": 0.35, "text_rank": 2},
        {"sample_id": "b", "source_text_sim": 0.4, "text_sim": 0.25, "text_rank": 1},
        {"sample_id": "b", "source_text_sim": 0.4, "text_sim": 0.35, "text_rank": 1},
        {
            "sample_id": "c",
            "status": "error",
            "text_sim": None,
            "text_rank": None,
            "source_text_sim": None,
        },
        {"sample_id": "a", "status": "error", "source_text_sim": 0.2},
    )
    config = {"threshold": 0.3, "quantile": 0.5, "rank": 1}
    found = verdicts(rows, FilterConfig(**config))
    assert {mode: passed.tolist() for mode, passed in found.items()} == {
        "absolute": [True, False, True, False, False],
        "quantile": [True, False, True, False, False],
        "rank": [False, True, True, False, False],
    }
    for mode in MODES:
        assert [r == "" for r in reasons(rows, mode=mode, **config)] == found[mode].tolist()


def test_verdicts_do_not_compare_attempts():
    rows = table({"replica": 0, "text_sim": 0.4}, {"replica": 0, "text_sim": 0.8})
    assert verdicts(rows, FilterConfig())["rank"].tolist() == [True, True]


def test_modes_without_scores_have_no_verdicts():
    config = FilterConfig(mode="quantile")
    assert set(verdicts(table({}), config)) == set(MODES)
    assert set(verdicts(table({"source_text_sim": None}), config)) == {"absolute", "rank"}
    assert set(verdicts(table({"text_sim": None}), config)) == {"rank"}
    assert set(verdicts(table({"text_rank": None}), config)) == {"absolute", "quantile"}
    assert verdicts(SCHEMA.empty_table(), config) == {}
