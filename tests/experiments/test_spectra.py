"""The spectrum a job trains on.

It is named in the first line, with what has changed since it was made.
"""

from dataclasses import replace

from discl_ray.config import with_values
from discl_ray.core.storage import Store
from discl_ray.data.config import ImageFolderConfig
from discl_ray.experiments.spectra import open_for, samples_today, since_made, with_recorded


def test_the_first_line_names_the_spectrum_and_nothing_is_said_where_nothing_changed(
    small, capsys
) -> None:
    config, spectrum = small
    opened, found = open_for(config)
    assert opened == config
    assert found.name == spectrum.name
    assert capsys.readouterr().out.splitlines() == [f"  spectrum · {found.store.base}"]


def test_data_that_changed_is_a_sentence_and_data_that_is_gone_is_none(small) -> None:
    config, spectrum = small
    today = samples_today(config)
    assert today == spectrum.samples.name
    assert since_made(spectrum, today) == since_made(spectrum, "") == []
    (sentence,) = since_made(spectrum, "samples-another")
    assert spectrum.samples.name in sentence
    assert "samples-another" in sentence
    gone = config.model_copy(update={"data": ImageFolderConfig(root="/nowhere")})
    assert samples_today(gone) == ""


def test_a_spectrum_by_path_brings_the_configuration_that_made_it(small, tmp_path) -> None:
    config, spectrum = small
    other = with_values(config, {"hard.below": 3})
    assert with_recorded(other, spectrum) == other  # found by its configuration, which matches
    by_path = with_values(other, {"spectrum.path": spectrum.store.base})
    found = with_recorded(by_path, spectrum)
    assert found.hard == spectrum.recorded.hard != other.hard
    assert (found.seed, found.train) == (other.seed, other.train)
    unrecorded = replace(spectrum, store=Store.at(tmp_path))
    assert with_recorded(by_path, unrecorded) == by_path
