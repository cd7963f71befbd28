import pyarrow as pa
import pytest

from discl_ray.core.schema import SPECTRUM
from discl_ray.report.acceptance import nothing_kept_words, other_settings, real_words
from discl_ray.spectrum.config import FilterConfig
from discl_ray.spectrum.filter import accepts_real, judge


def opened(config, *rows):
    """An opened spectrum.

    A row is (sample, source_text_sim, source_text_rank) and what differs from a plain image.
    """
    default = {
        "role": "train",
        "lam_pct": 0,
        "replica": 0,
        "attempt": 0,
        "status": "ok",
        "text_sim": 0.2,
        "text_rank": 5,
    }
    table = [
        {
            **default,
            "gid": f"g{i}",
            "sample_id": sample,
            "source_text_sim": sim,
            "source_text_rank": rank,
            "replica": i,
            **more,
        }
        for i, (sample, sim, rank, more) in enumerate(rows)
    ]
    return judge(pa.Table.from_pylist(table, schema=SPECTRUM), config)


REAL = [
    ("a", 0.1, 3, {}),
    ("a", 0.1, 3, {"lam_pct": 50}),
    ("b", 0.2, 1, {}),
    ("c", 0.3, 1, {}),
    ("d", 0.4, 2, {}),
    ("probe", 0.9, 1, {"role": "probe"}),
    ("lost", None, None, {"status": "error", "text_sim": None, "text_rank": None}),
]


@pytest.mark.parametrize(
    ("settings", "accepted"),
    [
        ({"mode": "rank"}, 2),
        ({"mode": "rank", "rank": 2}, 3),
        ({"mode": "absolute", "threshold": 0.3}, 2),
        ({"mode": "absolute", "threshold": -1}, 4),
        ({"mode": "quantile", "quantile": 0.25}, 3),
    ],
)
def test_each_real_training_image_counts_once(settings, accepted):
    config = FilterConfig(**settings)
    assert accepts_real(opened(config, *REAL), config) == (accepted, 4)
    assert f"would accept {25 * accepted} % ({accepted} of 4 train images)" in real_words(
        opened(config, *REAL), config
    )


def test_below_one_half_it_says_what_to_try():
    strict = FilterConfig(mode="absolute", threshold=0.35)
    words = real_words(opened(strict, *REAL), strict)
    assert "would accept 25 %" in words
    assert all(
        remedy in words for remedy in ("filter.mode=quantile", "scorer.model", "prompts.filter")
    )
    lax = FilterConfig(mode="absolute", threshold=0.3)
    assert "warning" not in real_words(opened(lax, *REAL), lax)
    deep = FilterConfig(mode="quantile", quantile=0.9)
    assert "a smaller filter.quantile" in real_words(opened(deep, *REAL), deep)


@pytest.mark.parametrize(
    ("ranks", "first"), [([1, 1, 1, 2], "note"), ([1, 1, 2, 2], "note"), ([1, 2, 2, 3], "warning")]
)
def test_few_accepted_real_images_are_judged_by_what_is_kept_of_the_most_text_typical_ones(
    ranks, first
):
    """At λ = 0 an image is what the prompt says: if those are kept, the CLIP knows the prompts."""
    made = [("a", 0.1, 9, {"text_rank": rank}) for rank in ranks]
    near_real = [("a", 0.1, 9, {"text_rank": 9, "lam_pct": 90}) for _ in range(9)]
    probes = [("p", 0.1, 1, {"text_rank": 1, "role": "probe"}) for _ in range(9)]
    words = real_words(opened(FilterConfig(), *made, *near_real, *probes), FilterConfig()).split(
        "\n"
    )
    assert "0 % (0 of 1 train image)" in words[0]
    assert words[1].startswith(f"  {first}: fewer than half")
    share = f"{25 * ranks.count(1)} %"
    if first == "note":
        assert f"of those made it keeps {share} at λ = 0 and 0 % at λ = 0.9" in words[1]
    else:
        assert (
            f"of those made at λ = 0 it keeps {share}: this CLIP hardly knows the classes"
            in words[1]
        )
    assert "filter.mode=quantile" in words[-1]


def test_a_spectrum_scored_before_the_rank_was_stored_says_that_it_does_not_know():
    rows = [(sample, sim, None, more) for sample, sim, _, more in REAL]
    assert "unknown" in real_words(opened(FilterConfig(), *rows), FilterConfig())
    absolute = FilterConfig(mode="absolute", threshold=0.3)
    assert "50 % (2 of 4 train images)" in real_words(opened(absolute, *rows), absolute)


@pytest.mark.parametrize("mode", ["absolute", "rank", "quantile"])
def test_where_nothing_is_kept_other_settings_are_named_with_what_they_keep(mode):
    config = FilterConfig(mode=mode, threshold=0.9, rank=1, quantile=0.5)
    rows = [("a", 0.8, 1, {"text_sim": 0.1 + 0.05 * i, "text_rank": 12 - i}) for i in range(10)]
    spectrum = opened(config, *rows)
    others = other_settings(spectrum, config)
    assert list(others.values()) == sorted(others.values())
    assert min(others.values()) >= 1
    assert max(others.values()) >= 9
    for setting, kept in others.items():
        update = dict(part.removeprefix("filter.").split("=") for part in setting.split())
        again = FilterConfig.model_validate({**config.model_dump(), **update})
        assert sum(opened(again, *rows)["kept"].to_pylist()) == kept
    words = nothing_kept_words(spectrum, config)
    assert "keeps none of 10 images" in words
    assert all(f"{setting} would keep {kept}" in words for setting, kept in others.items())


def test_nothing_is_said_where_something_is_kept_and_images_that_failed_are_not_the_filters_fault():
    lax, lost = (
        FilterConfig(mode="absolute", threshold=0),
        [row for row in REAL if row[0] == "lost"],
    )
    assert nothing_kept_words(opened(lax, *REAL), lax) == ""
    assert "none of 1 image has a score" in nothing_kept_words(opened(lax, *lost), lax)
    assert nothing_kept_words(opened(lax), lax) == ""


def test_the_configured_rule_is_named_with_the_share_of_real_images_it_accepts():
    config = FilterConfig(mode="absolute", threshold=0.3)
    words = real_words(opened(config, *REAL), config)
    assert "(absolute: text_sim ≥ 0.3) would accept 50 % (2 of 4 train images)" in words
