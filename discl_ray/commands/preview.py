"""A look before a long job: few hard images at more levels, made as generate would, and what the
full plan will cost and give.

    discl-ray preview --config digits_lt generator.model=/models/sd15
    python jobs/preview.py --config conf/digits_lt.yaml generator.model=/models/sd15
    python jobs/preview.py preview.sources=4 preview.lams=[0,0.5] plan.replicas=16

Takes the same configuration as generate and leaves its directory alone. The default takes under a
minute on two cores. Rerunning resumes; rerunning a finished preview makes nothing and forecasts
anew.
"""

from discl_ray.config import PLUMBING, Config
from discl_ray.core.run_directory import locked
from discl_ray.core.schema import SPECTRUM
from discl_ray.core.storage import Store
from discl_ray.errors import IntegrityError
from discl_ray.plan.forecast import Speed, forecast
from discl_ray.process.calls import next_command
from discl_ray.report.acceptance import nothing_kept_words, real_words
from discl_ray.report.card import write_card, write_verdicts
from discl_ray.report.forecast import preview_figures, preview_words
from discl_ray.report.preview import preview_sheet
from discl_ray.spectrum.read import open_spectrum
from discl_ray.synthesize.checks import MAKING, crew
from discl_ray.synthesize.graph import staffed
from discl_ray.synthesize.layout import lay_out
from discl_ray.synthesize.rounds import generate
from discl_ray.synthesize.run import prepare, preview_of
from discl_ray.synthesize.summary import describe, warnings

FIGURES, SHEET = "preview.json", "preview.png"


def speed_before(store: Store) -> Speed | None:
    """What an earlier call wrote down; None if there is none, or it is damaged."""
    try:
        with store.reading(FIGURES):
            known = store.read_json(FIGURES)["speed"]
            if known is None:
                return None
            if not all(value > 0 for value in known.values()):
                raise ValueError("no speed")
            return Speed(**known)
    except IntegrityError:
        return None


def job(config: Config) -> None:
    """Makes the small plan; writes and prints what the full one will cost and give."""
    full = prepare(config, MAKING)
    demand = crew(config)
    small = preview_of(full)
    store = small.store
    with locked(store):
        lay_out(small)
        described = describe(small, demand)
        print(f"preview · {store.location()}")
        print(described, flush=True)
        for warning in warnings(full):
            print(f"  warning: {warning}", flush=True)
        signs = generate(small)
        speed = Speed.of(signs)
        if speed is None:  # nothing was made now: the speed measured by an earlier call
            speed = speed_before(store)
        spectrum = open_spectrum(store, config.filter, SPECTRUM.names)
        seen = forecast(
            spectrum, config.filter, full.plan, generators=demand.parts[0].actors, speed=speed
        )
        note = PLUMBING if config.plumbing_test else ""
        write_card(store, small.config, full.samples.classes, note)
        write_verdicts(store, spectrum)
        real = small.samples.with_images(small.hard)
        sheet = preview_sheet(spectrum, real, config.filter, note)
        store.write(SHEET, sheet)
        store.write_json(FIGURES, preview_figures(seen))
    staffed_config = staffed(config, demand)
    print(preview_words(seen, staffed_config))
    if note:
        print(f"  {note}")
    print(real_words(spectrum, config.filter))
    if empty := nothing_kept_words(spectrum, config.filter):
        print(empty)
    print(f"look at {store.location(SHEET)} · next: {next_command('generate')}")
