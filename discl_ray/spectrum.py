# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions at import; pyright cannot see them)
"""The seam between the phases: open a committed spectrum, verify it, filter it, count it.

Readers see committed shards only. A file that no commit names does not exist for them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from discl_ray.core.filter import KEPT, FilterConfig, judge
from discl_ray.core.ids import sha256
from discl_ray.core.schema import SAMPLES, SPECTRUM
from discl_ray.core.storage import Store, parquet_bytes
from discl_ray.errors import IntegrityError, SetupError
from discl_ray.run import MANIFEST

SAMPLES_AT = "samples.json"
"""Names the folder of the samples a spectrum was made from; it lies beside the spectrum's."""

COMMITS = "commits"
DATA = "spectrum"


def check_generated(generated: Store) -> None:
    """Raises SetupError unless the spectrum is complete."""
    if not generated.exists(MANIFEST):
        raise SetupError(
            f"{generated.base}: no complete spectrum for this configuration; run `make generate` with the same CONF and ARGS"
        )


def samples_of(run: Store) -> Store:
    """The folder of the samples a spectrum was made from."""
    beside = Store(run.filesystem, run.base.rsplit("/", 1)[0])
    return beside.within(run.read_json(SAMPLES_AT)["directory"])


def read_split(run: Store, split: str, columns: list[str] | None = None) -> pa.Table:
    """SAMPLES rows of one split; images in files as paths. `test` is for `discl_ray.evaluate` alone."""
    store = samples_of(run)
    tables = [store.read_table(name, columns) for name in store.list(split, ".parquet")]
    schema = SAMPLES if columns is None else pa.schema([SAMPLES.field(name) for name in columns])
    return pa.concat_tables([schema.empty_table(), *tables], promote_options="default").select(schema.names)


def class_names(run: Store) -> tuple[str, ...]:
    """Class names by label, of all splits."""
    return tuple(samples_of(run).read_json(MANIFEST)["classes"])


def write_shard(run: Store, shard_id: str, table: pa.Table) -> None:
    """Writes a shard's SPECTRUM rows, one file per λ, then its commit record, last.

    Names come from content, so a repeated attempt overwrites itself with the same bytes.
    """
    table = table.replace_schema_metadata(SPECTRUM.metadata)  # lost on the way through Ray; datasets needs it
    files = []
    for lam_pct in sorted(set(table["lam_pct"].to_pylist())):
        part = table.filter(pc.equal(table["lam_pct"], lam_pct))
        name, data = f"{DATA}/lam_pct={lam_pct}/{shard_id}.parquet", parquet_bytes(part)
        run.write(name, data)
        files.append({"name": name, "rows": part.num_rows, "sha256": sha256(data)})
    status = Counter(table["status"].to_pylist())
    run.write_json(f"{COMMITS}/{shard_id}.json", {"shard_id": shard_id, "files": files, "status": dict(status)})


def committed(run: Store) -> dict[str, Any]:
    """Commit records by shard."""
    return {record["shard_id"]: record for record in map(run.read_json, run.list(COMMITS, ".json"))}


def open_spectrum(run: Store, filter_config: FilterConfig, columns: list[str] | None = None) -> pa.Table:
    """Every committed row with `kept` and `reason`; `columns` limits what is read besides what the filter needs."""
    scores = ["text_sim", "text_rank", "source_text_sim"]
    needed = ["sample_id", "role", "lam_pct", "replica", "attempt", "status", "error", *scores, "gid", "label"]
    wanted = None if columns is None else list(dict.fromkeys([*columns, *needed]))
    names = sorted(file["name"] for record in committed(run).values() for file in record["files"])
    tables = [run.read_table(name, wanted) for name in names]
    schema = SPECTRUM if wanted is None else pa.schema([SPECTRUM.field(n) for n in wanted])
    # a spectrum scored before a column was added has nulls there
    table = pa.concat_tables([schema.empty_table(), *tables], promote_options="default").select(schema.names)
    order = [(name, "ascending") for name in ("sample_id", "lam_pct", "replica", "attempt")]
    return judge(table.sort_by(order), filter_config)


def verify(run: Store, plan: pa.Table) -> None:
    """Raises IntegrityError unless every planned row is committed once, in a file whose bytes are the recorded ones."""
    seen: Counter[str] = Counter()
    for record in committed(run).values():
        for file in record["files"]:
            data = run.read(file["name"])
            if sha256(data) != file["sha256"]:
                raise IntegrityError(
                    f"{run.path(file['name'])}: bytes differ from its commit; delete {COMMITS}/"
                    f"{record['shard_id']}.json and run generate again"
                )
            seen.update(run.read_table(file["name"], ["gid"])["gid"].to_pylist())
    planned = set(plan["gid"].to_pylist())
    if missing := planned - set(seen):
        raise IntegrityError(f"{run.base}: {len(missing)} planned images are not committed; run generate again")
    if foreign := set(seen) - planned:
        raise IntegrityError(f"{run.base}: {len(foreign)} committed images are not in the plan, e.g. {min(foreign)}")
    if twice := [gid for gid, count in seen.items() if count > 1]:
        raise IntegrityError(f"{run.base}: {len(twice)} images are committed twice, e.g. {min(twice)}")


def count_verdicts(table: pa.Table) -> dict[int, Counter[str]]:
    """λ -> verdicts: `kept`, or the reason of the rejection."""
    counts: dict[int, Counter[str]] = {}
    for lam_pct, reason in zip(table["lam_pct"].to_pylist(), table["reason"].to_pylist(), strict=True):
        counts.setdefault(lam_pct, Counter())["kept" if reason == KEPT else reason] += 1
    return dict(sorted(counts.items()))
