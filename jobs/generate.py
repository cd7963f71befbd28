"""Makes the spectrum: hard samples -> plan -> diffusion actors -> CLIP actors -> Parquet.

    python jobs/generate.py --config conf/digits_lt.yaml plan.replicas=4
    ray job submit --working-dir . -- python jobs/generate.py run.root=/shared/runs

The default takes under two minutes on two cores. Rerunning resumes; rerunning a finished run makes nothing.
"""

from discl_ray.command import run_job
from discl_ray.config import PLUMBING, Config
from discl_ray.core.schema import SPECTRUM
from discl_ray.data import summarize_samples
from discl_ray.pipeline import describe, draft, generate, prepare, summarize, warnings, write_layout
from discl_ray.report.sheet import contact_sheet
from discl_ray.run import locked
from discl_ray.spectrum import open_spectrum


def job(config: Config) -> None:
    ready = prepare(config)
    store, samples = ready.store, ready.samples
    print(f"data · {samples.store.base}\n{summarize_samples(samples)}", flush=True)
    prepared = draft(config, *ready)
    with locked(store):
        write_layout(prepared, config)
        print(f"plan · {store.base}\n{describe(prepared, config)}", flush=True)
        for warning in warnings(prepared, config):
            print(f"  warning: {warning}", flush=True)
        generate(prepared, config)
        spectrum = open_spectrum(store, config.filter, SPECTRUM.names)
        note = PLUMBING if config.plumbing_test else ""
        store.write("contact_sheet.png", contact_sheet(spectrum, store.read_table("sources.parquet"), note=note))
        kept = sum(spectrum["kept"].to_pylist())
        print(f"spectrum · filter {config.filter.mode}\n{summarize(prepared, config)}")
        if note:
            print(f"  {note}")
        print(f"{spectrum.num_rows} images made, {kept} kept · look at {store.path('contact_sheet.png')} · next: make train")


if __name__ == "__main__":
    run_job(__doc__, job)
