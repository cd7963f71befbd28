"""Makes the spectrum: hard samples -> plan -> diffusion actors -> CLIP actors -> Parquet.

    discl-ray generate --config digits_lt plan.replicas=4
    python jobs/generate.py --config conf/digits_lt.yaml plan.replicas=4
    ray job submit --working-dir . -- python jobs/generate.py run.root=/shared/runs

The default takes under two minutes on two cores. Rerunning resumes; rerunning a finished run makes
nothing.
"""

from discl_ray.config import PLUMBING, Config
from discl_ray.core.run_directory import locked
from discl_ray.core.schema import FILE
from discl_ray.data import summarize_samples
from discl_ray.process.calls import next_command
from discl_ray.report.acceptance import made_words, nothing_kept_words, real_words
from discl_ray.report.card import write_card, write_verdicts
from discl_ray.report.sheet import contact_sheet, made_from, pick_shown
from discl_ray.spectrum.read import open_spectrum, with_images
from discl_ray.synthesize.layout import lay_out
from discl_ray.synthesize.rounds import generate, prepare_to_make
from discl_ray.synthesize.summary import describe, summarize, warnings

SHEET = "contact_sheet.png"


def job(config: Config) -> None:
    """Makes the spectrum; writes its card, its verdicts and a contact sheet."""
    run, demand = prepare_to_make(config)
    store, samples = run.store, run.samples
    classes = samples.classes
    print(f"data · {samples.store.location()}")
    print(summarize_samples(samples), flush=True)
    with locked(store):
        lay_out(run)
        described = describe(run, demand)
        print(f"plan · {store.location()}")
        print(described, flush=True)
        for warning in warnings(run):
            print(f"  warning: {warning}", flush=True)
        note = PLUMBING if config.plumbing_test else ""
        write_card(store, config, classes, note)  # others may look while images are being made
        made_now = bool(generate(run))
        spectrum = open_spectrum(store, config.filter, [FILE.name])
        write_card(store, config, classes, note)
        write_verdicts(store, spectrum)
        shown = samples.with_images(pick_shown(run.hard))
        made = made_from(spectrum, shown)
        sheet = contact_sheet(with_images(store, made), shown, note=note)
        store.write(SHEET, sheet)
        summary = summarize(spectrum)
        print(f"spectrum · filter {config.filter.mode}")
        print(summary)
        print(real_words(spectrum, config.filter))
        if note:
            print(f"  {note}")
        result = made_words(spectrum, made_now=made_now)
        sheet_path = store.location(SHEET)
        following = next_command("train")
        print(f"{result} · look at {sheet_path} · next: {following}")
        empty = nothing_kept_words(spectrum, config.filter)
        if empty:
            print(empty)
