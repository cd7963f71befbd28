"""A forecast as a table and as plain values."""

import json
from dataclasses import asdict, replace

import pytest

from discl_ray.config import Config, with_values
from discl_ray.plan.forecast import Forecast, Level, Speed
from discl_ray.report.forecast import TITLE, preview_figures, preview_words

MEASURED = Level(
    lam_pct=0,
    shown=4,
    accepted={"absolute": 0.5, "rank": 0.25},
    low=0.1,
    high=0.9,
    bytes=1e6,
    planned=60,
    to_train=40,
)
BETWEEN = Level(
    lam_pct=30,
    shown=0,
    accepted={"absolute": 1.0, "rank": 0.75},
    low=None,
    high=None,
    bytes=2e6,
    planned=40,
    to_train=0,
)
FORECAST = Forecast(
    mode="absolute",
    levels=(MEASURED, BETWEEN),
    sources=3,
    images=100,
    unet_steps=2000,
    generators=2,
    speed=None,
)
SPEED = Speed(steps_per_s=10.0, peak_bytes=2_500_000_000, micro_batch=8, generators=1)


def cells(line: str) -> list[str]:
    return line.split()


def test_every_level_is_a_line_and_the_configured_filter_has_a_star() -> None:
    title, head, first, second, *_ = preview_words(FORECAST, Config()).splitlines()
    assert title == f"{TITLE} · full plan: without probes"
    assert cells(head)[:4] == ["λ", "n", "absolute*", "rank"]
    assert cells(first) == ["0", "4", "50%", "25%", "10-90%", "20", "of", "40"]
    assert cells(second) == ["0.3", "–", "100%", "75%", "interpolated", "–"]
    assert len({len(line) for line in (head, first, second)}) == 1


def test_a_quantile_says_of_how_few_images_it_is() -> None:
    level = replace(MEASURED, accepted={"absolute": 0.5, "quantile": 0.5})
    words = preview_words(replace(FORECAST, levels=(level,)), Config())
    assert "quantile by 3 real images only" in words.splitlines()[0]


def test_without_a_speed_no_time_is_told() -> None:
    lines = preview_words(FORECAST, Config()).splitlines()[4:]
    assert lines[0] == "full plan · 100 images, 60 of them probes, 2000 UNet steps, 2 generators"
    assert lines[1].startswith("  time    not measured")
    assert lines[2] == "  disk    about 140 MB of images"
    assert lines[3] == "  kept    about 20 images to train on by filter absolute"


@pytest.mark.parametrize(("steps", "duration"), [(2000, "1.7 min (0.028 h)"), (720_000, "10.0 h")])
def test_a_measured_speed_gives_hours_seconds_an_image_and_memory(steps, duration) -> None:
    config = with_values(Config(), {"generator.num_gpus": 0})
    forecast = replace(FORECAST, speed=SPEED, unet_steps=steps)
    time, each, memory = preview_words(forecast, config).splitlines()[5:8]
    assert time == f"  time    about {duration}, loading is extra"
    assert f"{steps / 100:.1f} steps at 10/s, measured while 1 worked" in each
    assert memory == "  memory  up to 2.5 GB a generator, at generator.micro_batch=8"


def test_tries_and_gigabytes_are_told() -> None:
    tried = with_values(Config(), {"plan.attempts": 3, "plan.until_text_sim": 0.3})
    level = replace(MEASURED, bytes=1e8)
    words = preview_words(replace(FORECAST, levels=(level,), speed=SPEED), tried)
    assert " for the first of up to 3 attempts" in words
    assert "about 6 GB of images" in words


def test_the_figures_are_plain_values_from_which_the_speed_is_read_back() -> None:
    figures = preview_figures(replace(FORECAST, speed=SPEED))
    assert json.loads(json.dumps(figures))["levels"][0] == asdict(MEASURED)
    assert Speed(**figures["speed"]) == SPEED
    assert figures["kept"] == 20
    assert figures["gigabytes"] == pytest.approx(0.14)
    assert figures["seconds_per_image"] == pytest.approx(2.0)
    assert figures["hours"] == pytest.approx(2000 / 20 / 3600)
