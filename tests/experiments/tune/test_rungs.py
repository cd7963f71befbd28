"""Rungs: a killed sweep judges its trials as one that was not."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from discl_ray.core.storage import Store
from discl_ray.experiments.tune.outcomes import Seeded, Sweep, read_outcome, write_outcome
from discl_ray.experiments.tune.rungs import Rungs
from discl_ray.spectrum.open import Spectrum
from tests.support.sweeps import LR, config


class Judged:
    """A sweep whose trials report given curves, one trial after the other.

    It may be killed and taken up again.
    """

    def __init__(self, store: Store, curves: list[list[int]]) -> None:
        points = tuple(
            {"train.learning_rate": float(number)} for number in range(1, len(curves) + 1)
        )
        seeded = (
            Seeded(
                config=config(LR),
                spectrum=Spectrum(store=store, samples=store, classes=()),
                start=None,
            ),
        )
        self.sweep, self.curves = (
            Sweep(dimensions=(), points=points, seeded=seeded, store=store),
            curves,
        )
        self.trials = [
            SimpleNamespace(trial_id=f"t{n}", config={"point": n}) for n in range(len(curves))
        ]
        self.reports = 0

    def start(self, stop_after: int | None, lag: int, over: set[int]) -> bool:
        """Runs what is left; False if it was killed after so many reports.

        `lag` is how far checkpoints are behind records.
        """

        rungs = Rungs(self.sweep, max_t=len(self.curves[0]), grace_period=2)
        rungs.set_search_properties("dev", "max")
        for trial in self.trials:
            rungs.on_trial_add(None, trial)
        for number, (trial, point) in enumerate(zip(self.trials, self.sweep.points, strict=True)):
            if number in over:
                continue
            name, rows = self.sweep.record(point), []
            known = read_outcome(self.sweep.store, name) if self.sweep.store.exists(name) else None
            if known is not None:
                rows = (
                    list(known.rows)
                    if known.over
                    else list(known.rows[: max(0, len(known.rows) - lag)])
                )
            for epoch in range(
                1 if known is not None and known.over else len(rows) + 1,
                len(self.curves[number]) + 1,
            ):
                if known is not None and known.over and epoch > len(rows):
                    break
                if known is None or not known.over:
                    rows = [
                        *rows,
                        {
                            "epoch": epoch,
                            "metric": "val",
                            "dev": float(self.curves[number][epoch - 1]),
                        },
                    ]
                    write_outcome(self.sweep, point, rows=rows, epochs=len(self.curves[number]))
                self.reports += 1
                if self.reports == stop_after:
                    return False
                if rungs.on_trial_result(None, trial, rows[epoch - 1]) == Rungs.STOP:
                    break
            over.add(number)
        return True

    def verdicts(self) -> list[tuple[str, int]]:
        """What became of each trial, in the order of the points."""

        found = [
            read_outcome(self.sweep.store, self.sweep.record(point)) for point in self.sweep.points
        ]
        return [(outcome.status, outcome.epoch) for outcome in found]


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=18, max_size=18), min_size=2, max_size=6),
    st.integers(1, 60),
    st.integers(0, 2),
    st.booleans(),
)
def test_a_killed_sweep_judges_its_trials_as_one_that_was_not(
    tmp_path_factory, curves, kill, lag, known
) -> None:
    whole = Judged(Store.at(tmp_path_factory.mktemp("whole")), curves)
    assert whole.start(None, 0, set())
    killed, over = Judged(Store.at(tmp_path_factory.mktemp("killed")), curves), set()
    if not killed.start(kill, lag, over):
        assert killed.start(
            None, lag, over if known else set()
        )  # Ray Tune may know which trials are over, or none
    assert killed.verdicts() == whole.verdicts()
