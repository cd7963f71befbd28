import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discl_ray.core.ids import stable_id, stable_seed
from discl_ray.core.schema import BROKEN, PLAN
from discl_ray.core.storage import Store
from discl_ray.data import read_samples
from discl_ray.plan import grid as module
from discl_ray.plan.config import PlanConfig, PromptConfig
from discl_ray.plan.grid import (
    GID_COLUMNS,
    Grid,
    PlanSize,
    make_plan,
    next_attempt,
    plan_of_sources,
    shard_starts,
    source_blocks,
)
from discl_ray.plan.hardness import class_counts, hard_samples
from discl_ray.plan.prompts import Prompts
from tests.support.runs import tiny_config


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    root = tmp_path_factory.mktemp("samples")
    return read_samples(tiny_config(root).data, 0, Store.at(root)).table


@pytest.fixture(scope="module")
def hard(samples, tmp_path_factory):
    return hard_samples(samples, tiny_config(tmp_path_factory.mktemp("hard")).hard)


def plan_of(hard, *, prompts=PromptConfig(), fingerprint="f", base_seed=0, **config):  # noqa: B008
    settings = PlanConfig(
        **{"lams": (0.0, 0.1, 0.5), "replicas": 3, "num_steps": 10, "shard_steps": 40, **config}
    )
    return make_plan(
        hard, settings, Prompts(config=prompts), fingerprint=fingerprint, base_seed=base_seed
    )


def rows_of(sources, grid):
    """PLAN row by row, as the equations say it."""
    config, prompts = grid.config, grid.prompts
    rows, load = [[]], 0
    for source in sources.to_pylist():
        probe = source["split"] == "val"
        for replica in range(config.probe_replicas if probe else config.replicas):
            identity = (source["sample_id"], source["sha256"], replica, 0)
            for lam_pct in config.levels:
                row = {
                    "sample_id": source["sample_id"],
                    "label": source["label"],
                    "role": "probe" if probe else "train",
                    "replica": replica,
                    "attempt": 0,
                    "seed": stable_seed(grid.base_seed, *identity),
                    "source_sha256": source["sha256"],
                    "prompt": prompts.generation(source["class_name"], replica),
                    "negative_prompt": prompts.config.negative,
                    "filter_prompt": prompts.filter(source["class_name"]),
                    "lam_pct": lam_pct,
                    "num_steps": config.num_steps * (100 - lam_pct) // 100,
                }
                gid = stable_id(*(row[name] for name in GID_COLUMNS), grid.fingerprint)
                if load >= config.shard_steps:
                    rows.append([])
                    load = 0
                rows[-1].append({**row, "gid": gid})
                load += row["num_steps"]
    named = []
    for shard in rows:
        shard_id = stable_id(*(row["gid"] for row in shard))[:16]
        named += [{**row, "shard_id": shard_id} for row in shard]
    return pa.Table.from_pylist(named, schema=PLAN)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
names = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="{}"))


@given(
    st.lists(st.tuples(texts, texts, names, st.sampled_from(["train", "val"])), max_size=8),
    st.lists(names.filter(lambda text: len(text) < 9), min_size=1, max_size=3),
    st.sets(st.integers(0, 9), min_size=1, max_size=4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 150),
)
def test_columns_give_what_rows_give_byte_for_byte(
    sources, templates, tenths, replicas, probes, full
):
    columns = list(zip(*sources, strict=True)) or [()] * 4
    ids, sha256, classes, splits = (list(column) for column in columns)
    labels = [len(name) for name in classes]
    hard = pa.table(
        {
            "sample_id": pa.array(ids, pa.string()),
            "label": pa.array(labels, pa.int32()),
            "class_name": pa.array(classes, pa.string()),
            "split": pa.array(splits, pa.string()),
            "sha256": pa.array(sha256, pa.string()),
        }
    )
    prompts = PromptConfig(
        generation=tuple(f"{text} {{name}}" for text in templates), filter='"{name}\\', negative="é"
    )
    config = PlanConfig(
        lams=tuple(tenth / 10 for tenth in tenths),
        num_steps=20,
        replicas=replicas,
        probe_replicas=probes,
        shard_steps=full,
    )
    grid = Grid(config=config, prompts=Prompts(config=prompts), fingerprint="f", base_seed=3)
    made = plan_of_sources(hard, grid)
    assert made.schema == PLAN
    assert made.equals(rows_of(hard, grid))


def test_each_block_is_planned_alone_and_its_shards_hold_no_other_blocks_rows(hard, monkeypatch):
    whole = plan_of(hard)
    monkeypatch.setattr(module, "BLOCK_SOURCES", 3)
    parts = plan_of(hard)
    grid = Grid(
        config=PlanConfig(lams=(0.0, 0.1, 0.5), replicas=3, num_steps=10, shard_steps=40),
        prompts=Prompts(config=PromptConfig()),
        fingerprint="f",
        base_seed=0,
    )
    blocks = list(source_blocks(hard, grid.block_sizes(hard.num_rows)))
    assert [block.num_rows for block in blocks[:-1]] == [3] * (len(blocks) - 1)
    assert pa.concat_tables(blocks).equals(hard)
    alone = [plan_of_sources(block, grid) for block in reversed(blocks)]
    assert pa.concat_tables(reversed(alone)).equals(parts)
    assert parts.drop(["shard_id"]).equals(whole.drop(["shard_id"]))
    shards = [set(part["shard_id"].to_pylist()) for part in alone]
    assert len(set.union(*shards)) == sum(map(len, shards))
    monkeypatch.setattr(module, "BLOCK_ROWS", 1)
    assert grid.block_sizes(3) == [1, 1, 1]  # a source's rows are never divided


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 100))
def test_a_shard_ends_with_the_row_that_fills_it(steps, full):
    starts, load = [], full
    for row, taken in enumerate(steps):
        if load >= full:
            starts.append(row)
            load = 0
        load += taken
    assert shard_starts(np.array(steps, np.int32), full).tolist() == starts


def test_ids_are_unique_and_the_grid_is_complete(hard):
    plan = plan_of(hard, probe_replicas=2)
    rows = plan.to_pylist()
    train, val = (sum(s == split for s in hard["split"].to_pylist()) for split in ("train", "val"))
    assert train > 0
    assert val > 0
    assert len(rows) == len({r["gid"] for r in rows}) == 3 * (3 * train + 2 * val)
    assert len({(r["sample_id"], r["replica"], r["lam_pct"]) for r in rows}) == len(rows)
    assert {(r["lam_pct"], r["num_steps"]) for r in rows} == {(0, 10), (10, 9), (50, 5)}
    size = PlanSize.of(plan)
    assert (size.rows, size.sources, size.unet_steps) == (
        len(rows),
        hard.num_rows,
        (3 * train + 2 * val) * 24,
    )


def test_all_levels_of_a_replica_start_from_one_seed_and_no_two_replicas_do(hard):
    seeds: dict[tuple[str, int], set[int]] = {}
    for row in plan_of(hard).to_pylist():
        seeds.setdefault((row["sample_id"], row["replica"]), set()).add(row["seed"])
    assert all(len(s) == 1 for s in seeds.values())
    assert len(set.union(*seeds.values())) == len(seeds)


@pytest.mark.parametrize("shard_steps", [1, 7, 40, 100, 10**6])
def test_shards_partition_the_plan_and_are_filled(hard, shard_steps):
    plan = plan_of(hard, shard_steps=shard_steps)
    ids, steps = plan["shard_id"].to_pylist(), plan["num_steps"].to_pylist()
    order = list(dict.fromkeys(ids))
    assert ids == sorted(ids, key=order.index)  # contiguous, so no shard comes twice
    load = {s: sum(n for i, n in zip(ids, steps, strict=True) if i == s) for s in order}
    assert all(load[s] >= shard_steps for s in order[:-1])
    assert all(load[s] < shard_steps + 10 for s in order)
    assert len(order) == PlanSize.of(plan).shards
    others = set(
        plan_of(hard, shard_steps=shard_steps, fingerprint="other")["shard_id"].to_pylist()
    )
    assert not others & set(order)


def test_shards_do_not_change_what_is_made(hard):
    a, b = plan_of(hard, shard_steps=7), plan_of(hard, shard_steps=100)
    assert a.drop(["shard_id"]).equals(b.drop(["shard_id"]))


def test_a_test_row_among_the_sources_is_refused(samples, hard):
    leak = samples.filter(pc.equal(samples["split"], "test")).slice(0, 1)
    with pytest.raises(ValueError, match="of split test"):
        plan_of(pa.concat_tables([hard, leak]))


def test_train_rows_come_from_train_and_probe_rows_from_val(samples, hard, small):
    split = dict(zip(samples["sample_id"].to_pylist(), samples["split"].to_pylist(), strict=True))
    counts = class_counts(samples)
    rows = plan_of(hard).to_pylist()
    assert {(r["role"], split[r["sample_id"]]) for r in rows} == {
        ("train", "train"),
        ("probe", "val"),
    }
    assert {r["label"] for r in rows} == {c for c, n in counts.items() if n < 4}
    hard_train = {s for s in hard["sample_id"].to_pylist() if split[s] == "train"}
    assert len(hard_train) == sum(n for n in counts.values() if n < 4)
    probes = {(r["label"], r["sample_id"]) for r in rows if r["role"] == "probe"}
    assert len(probes) == len({label for label, _ in probes}) == len({r["label"] for r in rows})


def test_the_splits_share_no_image_and_no_writer(samples):
    writers = {
        s: set(samples.filter(pc.equal(samples["split"], s))["group"].to_pylist())
        for s in ("train", "val", "test")
    }
    assert all(writers.values())
    assert sum(map(len, writers.values())) == len(set.union(*writers.values()))
    assert len(set(samples["sample_id"].to_pylist())) == samples.num_rows


def test_the_plan_is_the_same_every_time(samples, hard, small, tmp_path):
    assert plan_of(hard).equals(plan_of(hard))
    again = hard_samples(
        read_samples(small().data, 0, Store.at(tmp_path / "again")).table, small().hard
    )
    assert plan_of(again).equals(plan_of(hard))


def test_the_order_of_the_grid_does_not_matter(hard):
    assert plan_of(hard, lams=(0.5, 0.0, 0.1)).equals(plan_of(hard))


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "g"},
        {"base_seed": 1},
        {"num_steps": 20},
        {"prompts": PromptConfig(generation=("a {name}",))},
        {"prompts": PromptConfig(filter="a {name}")},
        {"prompts": PromptConfig(negative="blur")},
    ],
)
def test_whatever_changes_an_image_changes_every_id(hard, change):
    assert not set(plan_of(hard)["gid"].to_pylist()) & set(
        plan_of(hard, **change)["gid"].to_pylist()
    )


def test_more_replicas_or_levels_keep_the_ids_there_were(hard):
    base = set(plan_of(hard)["gid"].to_pylist())
    assert base < set(plan_of(hard, replicas=4)["gid"].to_pylist())
    assert base < set(plan_of(hard, lams=(0.0, 0.1, 0.3, 0.5))["gid"].to_pylist())


def test_replicas_take_the_prompts_in_turn(hard):
    rows = plan_of(hard, prompts=PromptConfig(generation=("one {name}", "two {name}"))).to_pylist()
    taken = {(r["replica"], r["prompt"].split()[0]) for r in rows if r["role"] == "train"}
    assert taken == {(0, "one"), (1, "two"), (2, "one")}


def made_of(plan, outcome):
    """SPECTRUM columns that the next round looks at.

    `outcome` maps a row's position to (status, error, text_sim).
    """
    outcomes = [outcome.get(i, ("ok", None, 0.9)) for i in range(plan.num_rows)]
    for name, values in zip(
        ("status", "error", "text_sim"), zip(*outcomes, strict=True), strict=True
    ):
        plan = plan.append_column(
            name, pa.array(values, pa.float32() if name == "text_sim" else pa.string())
        )
    return plan


def test_the_next_attempt_is_what_fell_short_with_other_noise_and_nothing_else_changed(hard):
    plan = plan_of(hard)
    low = {
        0: ("ok", None, 0.1),
        4: ("ok", None, 0.3),
        5: ("error", BROKEN, None),
        6: ("error", "truncated", None),
        7: ("crashed", "crashed", None),
    }
    settings = PlanConfig(attempts=3, until_text_sim=0.3, shard_steps=40)
    again = next_attempt(made_of(plan, low), settings, fingerprint="f", base_seed=0)
    assert again.schema == PLAN
    before, after = plan.to_pylist(), again.to_pylist()
    assert [r["attempt"] for r in after] == [1, 1, 1]
    for old, new in zip((before[0], before[4], before[5]), after, strict=True):
        changed = {name for name in PLAN.names if old[name] != new[name]}
        assert changed == {"attempt", "seed", "gid", "shard_id"}
    assert again.equals(next_attempt(made_of(plan, low), settings, fingerprint="f", base_seed=0))
    third = next_attempt(
        made_of(again, {0: ("ok", None, 0.0)}), settings, fingerprint="f", base_seed=0
    ).to_pylist()
    assert [r["attempt"] for r in third] == [2]
    assert len({r["gid"] for r in (*before, *after, *third)}) == len(before) + 4
    assert next_attempt(made_of(plan, {}), settings, fingerprint="f", base_seed=0).num_rows == 0


def test_all_levels_of_a_replica_share_the_noise_of_an_attempt_too(hard):
    plan = plan_of(hard)
    everything = dict.fromkeys(range(plan.num_rows), ("ok", None, 0.0))
    again = next_attempt(
        made_of(plan, everything),
        PlanConfig(attempts=2, until_text_sim=0.3),
        fingerprint="f",
        base_seed=0,
    )
    seeds: dict[tuple[str, int], set[int]] = {}
    for row in again.to_pylist():
        seeds.setdefault((row["sample_id"], row["replica"]), set()).add(row["seed"])
    assert all(len(s) == 1 for s in seeds.values())
    assert not set.union(*seeds.values()) & set(plan["seed"].to_pylist())


def test_attempts_need_something_to_reach():
    with pytest.raises(ValueError, match="attempts = 3 needs a text_sim to reach"):
        PlanConfig(attempts=3)
