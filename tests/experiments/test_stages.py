"""Stages: what they ask for, what is refused, and what is only said."""

import shutil

import pyarrow.compute as pc
import pytest

from discl_ray.config import with_values
from discl_ray.core.lam import REAL
from discl_ray.errors import ConfigError
from discl_ray.experiments.rows import plan_run, table_of
from discl_ray.experiments.stages import (
    check_kept,
    check_points,
    check_stages,
    passed,
    probe_line,
    supplies,
)
from discl_ray.spectrum.open import Spectrum
from discl_ray.train.images.table import open_table

STRICTER = {"filter.mode": "absolute", "filter.threshold": 0.999}
"""A filter that keeps nothing."""


class WithoutProbes(Spectrum):
    """Neither probes nor images of val that have a spectrum."""

    def table(self, filter_config, columns=None):
        rows = super().table(filter_config, columns)
        return rows.filter(pc.equal(rows["role"], "train"))

    def sources(self):
        rows = super().sources()
        return rows.filter(pc.equal(rows["split"], "train"))


def test_a_stage_without_a_kept_image_is_refused_before_training_unless_it_is_wanted(
    small, capsys
) -> None:
    config, spectrum = small
    empty = with_values(config, STRICTER)
    with pytest.raises(ConfigError) as caught:
        check_stages({"seed 0, CE": plan_run(empty, spectrum)}, spectrum)
    assert caught.value.exit_code == 2
    words = str(caught.value)
    assert words.startswith("seed 0, CE: curriculum.strategy = ")
    for part in (
        "λ 0 ",
        "filter.mode = absolute, filter.threshold = 0.999",
        "λ 0: 0 of",
        "λ 0.5: 0 of",
        "allow_empty=true",
    ):
        assert part in words
    check_stages(
        {"real": plan_run(with_values(empty, {"curriculum.strategy": "real_only"}), spectrum)},
        spectrum,
    )
    assert capsys.readouterr().out == ""
    allowed = with_values(empty, {"curriculum.allow_empty": True})
    check_stages({label: plan_run(allowed, spectrum) for label in "ABCDE"}, spectrum)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2  # a line a level
    (found, _) = supplies(plan_run(allowed, spectrum), spectrum)
    assert (found.kept, found.borrowed, found.real) == (0, 0, found.asked)
    assert lines[0] == (
        f"  A, B, C and 2 more rows: stage λ 0 asks for {found.asked} synthetic images an epoch: "
        f"0 kept; 0 drawn from a higher level, {found.asked} from the real images"
    )
    full = with_values(
        config, {"filter.mode": "absolute", "filter.threshold": -1.0, "curriculum.scale": 5}
    )
    for stage in supplies(plan_run(full, spectrum), spectrum):
        times = stage.asked / stage.kept
        assert times > 1
        check_stages({"X": plan_run(full, spectrum)}, spectrum)
        assert (
            f"{stage.kept} kept, each shown {times:.1f} times an epoch on average; 0 drawn"
            in capsys.readouterr().out
        )


def test_an_adaptive_curriculum_without_a_probe_is_refused_before_training(small, tmp_path) -> None:
    config, spectrum = small
    config = with_values(config, {"curriculum.strategy": "adaptive"})
    check_kept(plan_run(config, spectrum), spectrum)
    for store in (spectrum.store, spectrum.samples):
        shutil.copytree(store.base, tmp_path / store.name)
    spectrum = WithoutProbes.open(str(tmp_path / spectrum.store.name))
    with pytest.raises(
        ConfigError, match=r"no probe at any level.*raise hard\.probe_sources"
    ) as caught:
        check_kept(plan_run(config, spectrum), spectrum)
    assert caught.value.exit_code == 2
    check_kept(plan_run(with_values(config, {"curriculum.strategy": "random"}), spectrum), spectrum)


def test_a_sweep_is_refused_where_no_point_has_an_image_for_each_stage(small) -> None:
    config, spectrum = small
    full = with_values(config, {"filter.mode": "absolute", "filter.threshold": -1.0})
    seeds = [(full, spectrum)]
    strict, loose = {"filter.threshold": 0.999}, {"filter.threshold": -1.0}
    check_points(seeds, [strict, loose])
    check_kept(plan_run(with_values(full, loose), spectrum), spectrum)
    with pytest.raises(
        ConfigError, match=r"^curriculum\.strategy = .* drawn with filter\.threshold=0\.999"
    ):
        check_points(seeds, [strict, strict | {"train.learning_rate": 0.1}])
    with pytest.raises(
        ConfigError,
        match=r"^none of the 2 points has a synthetic image for each stage; the first: ",
    ):
        check_points(seeds, [strict, {"filter.threshold": 0.998}])
    check_points(seeds, [strict, {"filter.threshold": 0.999, "curriculum.strategy": "real_only"}])


def test_probes_are_not_filtered_and_the_filters_word_on_them_is_told(small) -> None:
    config, spectrum = small
    table = open_table(table_of(with_values(config, STRICTER), spectrum))
    probes = table.role == "probe"
    by_level = {
        level: sorted(table.sample_id[probes & (table.lam_pct == level)]) for level in (0, 50)
    }
    assert (
        by_level[0] == by_level[50] == sorted(table.sample_id[(table.role == "val") & table.hard])
    )
    assert not ((table.role == "train") & (table.lam_pct != REAL)).any()
    found = passed(spectrum, with_values(config, STRICTER).filter, "probe")
    assert found == {level: (0, len(sources)) for level, sources in by_level.items()}
    assert probe_line(found).endswith(
        f"λ 0: 0 % of {len(by_level[0])}, λ 0.5: 0 % of {len(by_level[50])}"
    )
