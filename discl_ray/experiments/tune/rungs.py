"""ASHA that does not forget."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import ASHAScheduler

from discl_ray.experiments.tune.outcomes import DEV, Outcome, Sweep, read_outcome

REDUCTION = 3
"""ASHA: of so many trials that reach a rung, one goes on."""


class Rungs(ASHAScheduler):
    """ASHA that does not forget: a sweep that is taken up again judges its trials by all that were ever at a rung.

    Ray Tune keeps no scheduler's state. The trials' records hold every report, so a rung is filled from them when Ray Tune adds its
    trials; the first report of one that goes on takes back what its record was ahead of its checkpoint, to be judged again. A verdict
    is written into the trial's record at once, and holds.
    """

    def __init__(self, sweep: Sweep, **settings: Any) -> None:
        super().__init__(time_attr="epoch", reduction_factor=REDUCTION, **settings)
        self.sweep = sweep
        self._heard: set[str] = set()
        self._over: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A new trial, or one of before, whose place at each rung is taken from its record."""
        super().on_trial_add(tune_controller, trial)
        before = self._before(trial)
        if before is None:
            return
        if before.over:
            self._over.add(trial.trial_id)
        for row in before.rows:
            self._trial_info[trial.trial_id].on_result(trial, row["epoch"], row[DEV])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ray Tune's verdict on a report; none on what a trial that is over says again."""
        if trial.trial_id in self._over:
            return self.CONTINUE
        if trial.trial_id not in self._heard and "epoch" in result:
            self._heard.add(trial.trial_id)
            self._take_back(trial, result["epoch"])
        verdict = super().on_trial_result(tune_controller, trial, result)
        if verdict == self.STOP and "epoch" in result:
            self._write(trial, result["epoch"])
        return verdict

    def _take_back(self, trial: Any, epoch: int) -> None:
        """Empties the trial's places at rungs that it had not reached before a report of this epoch."""
        before = self._before(trial)
        reached = max(
            (row["epoch"] for row in (before.rows if before else ()) if row["epoch"] < epoch),
            default=0,
        )
        for milestone, recorded in self._trial_info[trial.trial_id]._rungs:
            if milestone > reached:
                recorded.pop(trial.trial_id, None)

    def _before(self, trial: Any) -> Outcome | None:
        name = self.sweep.record(self.sweep.point(trial.config))
        return read_outcome(self.sweep.store, name) if self.sweep.store.exists(name) else None

    def _write(self, trial: Any, epoch: int) -> None:
        """Notes a verdict before anything else can happen; not that of a trial that came to its end."""
        name = self.sweep.record(self.sweep.point(trial.config))
        record = self.sweep.store.read_json(name)
        if epoch < record["epochs"]:
            rows = [row for row in record["rows"] if row["epoch"] <= epoch]
            self.sweep.store.write_json(name, {**record, "rows": rows, "judged": True})
