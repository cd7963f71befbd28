"""A run in words."""

import json
import shutil
from dataclasses import replace

import pyarrow.compute as pc
import pytest

from discl_ray.core.run_directory import MANIFEST
from discl_ray.embedded import GENERATOR
from discl_ray.report.acceptance import made_words
from discl_ray.spectrum.read import open_spectrum
from discl_ray.synthesize.checks import check_diffusion
from discl_ray.synthesize.run import prepare
from discl_ray.synthesize.summary import describe, summarize, warnings

pytestmark = pytest.mark.timeout(600)


def test_the_summary_and_the_plan_in_words_have_the_right_numbers(spectrum_run):
    config, run = spectrum_run
    rows = run.plan.num_rows
    role = run.plan["role"].to_pylist()
    words = describe(run)
    assert f"{rows} images of {rows // 2} real ones at λ = 0, 0.5 in" in words
    trains, probes = role.count("train"), role.count("probe")
    assert (
        f": {trains} of {trains // 2} train images to train on, "
        f"{probes} of {probes // 2} val images as probes" in words
    )
    assert f"{rows // 2 * 6} guided UNet steps · all of them are made" in words
    assert "time" not in words
    spectrum = open_spectrum(run.store, config.filter, columns=[])
    told = made_words(spectrum, made_now=False)
    kept = spectrum.filter(pc.equal(spectrum["role"], "train"))["kept"].to_pylist().count(True)
    assert told == (
        f"nothing was left to make: {trains} images to train on, {kept} of them kept, "
        f"and {probes} probes"
    )
    larger = config.model_copy(
        update={"generator": config.generator.model_copy(update={"size": (64, 320)})}
    )
    assert f"at most {rows * 64 * 320 * 3 / 1e6:.1f} MB of pixels" in describe(
        replace(run, config=larger)
    )
    table = [line.split() for line in summarize(spectrum).splitlines()[2:]]
    assert [(line[0], line[1], line[4]) for line in table] == [
        (lam, str(trains // 2), str(probes // 2)) for lam in ("0", "0.5")
    ]
    assert sum(int(line[2]) for line in table) == kept
    assert run.store.read_json(MANIFEST)["rows"] == rows


@pytest.mark.model
def test_what_is_worth_knowing_before_a_long_job_is_said(small, tmp_path):
    config = small("prompts.negative=" + "blurry " * 100)
    run = prepare(config)
    shown = "blurry " * 8 + "blur…"  # 60 characters
    assert warnings(run) == [
        "1 prompt is longer than the 16 tokens the generator takes, and its rest is ignored: "
        f"prompts.negative, '{shown}'"
    ]
    assert warnings(prepare(small())) == []
    wordy = small('prompts.generation=["the digit {name}' + " on paper" * 20 + '"]', "hard.below=9")
    (told,) = warnings(prepare(wordy))
    count = len(prepare(wordy).plan["prompt"].unique())
    assert told.startswith(
        f"{count} prompts are longer than the 16 tokens the generator takes, "
        "and the rest of each is ignored: class '"
    )
    assert told.count("'the digit ") == min(count, 3)
    assert told.endswith("more") is (count > 3)
    large = small("generator.size=128")
    assert warnings(prepare(large)) == []
    folder = shutil.copytree(GENERATOR, tmp_path / "model")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(
        json.dumps(
            {**json.loads(file.read_text()), "_class_name": "PNDMScheduler", "clip_sample": True}
        )
    )
    other = small(f"generator.model={folder}")
    kind, clipped = warnings(prepare(other))
    assert "is of a PNDMScheduler: generator.sampler = ddim takes its noise schedule" in kind
    assert "clip_sample = True: not followed" in clipped
    assert check_diffusion(other).split("\n") == [
        str(folder),
        kind,
        clipped,
    ]  # what the doctor says
