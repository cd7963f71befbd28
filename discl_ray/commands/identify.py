"""Which images are hard: how many of each class, whose labels are suspect, and a picture of the
hardest.

    discl-ray identify --config digits_wild hard.quantile=0.1
    python jobs/identify.py --config conf/digits_wild.yaml hard.quantile=0.1
    ray job submit --working-dir . -- python jobs/identify.py run.root=/shared/runs

By class count this only counts. By confidence a classifier predicts every train and val image
first; `make generate` uses what is written here. Another cut is another query: it predicts
nothing again.
"""

import pyarrow as pa

from discl_ray.config import PLUMBING, Config
from discl_ray.core.columns import places_in
from discl_ray.core.run_directory import run_store
from discl_ray.data import Samples, read_samples, summarize_samples
from discl_ray.plan.hardness import describe_rule, hard_samples, hardness
from discl_ray.plan.prompts import load_prompts
from discl_ray.process.calls import next_command
from discl_ray.report.hardest import (
    agreement,
    class_table,
    hardest_rows,
    hardest_sheet,
    tail_rows,
    tail_sheet,
)
from discl_ray.synthesize.run import predictions_store

SHEET = "hardest.png"


def job(config: Config) -> None:
    """Finds the hard images; prints how many there are and writes a picture of the hardest."""
    prompts = load_prompts(config.prompts)
    samples = read_samples(
        config.data,
        config.seed,
        run_store(config.run.root, config.run.name, ""),
        num_cpus=config.run.num_cpus,
    )
    prompts.check(samples.classes)
    print(f"data · {samples.store.location()}")
    print(summarize_samples(samples), flush=True)
    by_confidence = config.hard.rule == "confidence"
    predictions = None
    place = samples.store
    if by_confidence:
        # takes seconds; what is wrong has been said by now
        from discl_ray.experiments.identify import identify

        place = predictions_store(config, samples, prompts)
        print(f"predictions · {place.location()}", flush=True)
        predictions = identify(config, samples, prompts)
    judged = hardness(samples.table, config.hard, predictions)
    rule = describe_rule(judged, config.hard)
    print(f"hard · {rule}")
    if by_confidence:
        print(f"  {agreement(judged)}")
    print(class_table(judged), flush=True)
    sources = hard_samples(samples.table, config.hard, predictions)  # ends here if there are none
    sheet = _sheet(config, samples, judged, rule)
    place.write(SHEET, sheet)
    following = next_command("preview")
    print(f"{source_words(sources)} · look at {place.location(SHEET)} · next: {following}")


def source_words(sources: pa.Table) -> str:
    """How many images get a spectrum: those to train on, and the probes."""
    splits = sources["split"].to_pylist()
    probes = splits.count("val")
    train = len(splits) - probes
    return f"{train} hard training images, {probes} val images for probes"


def _sheet(config: Config, samples: Samples, judged: pa.Table, rule: str) -> bytes:
    """The picture of the hardest images, or of the rarest classes."""
    by_confidence = config.hard.rule == "confidence"
    shown = hardest_rows(judged) if by_confidence else tail_rows(judged)
    ids = samples.table["sample_id"].combine_chunks()
    places = places_in(shown["sample_id"], ids)
    images = samples.with_images(samples.table.take(places))
    note = PLUMBING if config.plumbing_test else ""
    if by_confidence:
        return hardest_sheet(shown, images, samples.classes, title=rule, note=note)
    return tail_sheet(shown, images, judged, title=rule, note=note)
