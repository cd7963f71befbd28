"""ASHA whose rungs survive a resumption."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import ASHAScheduler

from discl_ray.experiments.tune.outcomes import DEV, Outcome, Sweep, read_outcome

REDUCTION = 3
"""ASHA: one of this many trials that reach a rung goes on."""


class Rungs(ASHAScheduler):
    """ASHA whose rungs survive: a resumed sweep judges its trials by all that ever reached a rung.

    Ray Tune does not store a scheduler's state. The trials' records hold every report, so rungs are
    filled from them when Ray Tune adds its trials. A record may be ahead of its trial's checkpoint:
    the trial's first report removes what it will report again. A verdict is written into the
    trial's record at once, and is final.
    """

    def __init__(self, sweep: Sweep, **settings: Any) -> None:
        super().__init__(time_attr="epoch", reduction_factor=REDUCTION, **settings)
        self.sweep = sweep
        self._reported: set[str] = set()
        self._over: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A new trial, or a resumed one, whose place at each rung is restored from its record."""
        super().on_trial_add(tune_controller, trial)
        before = self._before(trial)
        if before is None:
            return
        if before.over:
            self._over.add(trial.trial_id)
        for row in before.rows:
            self._trial_info[trial.trial_id].on_result(trial, row["epoch"], row[DEV])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """ASHA's verdict on a report; none on what a trial that is over reports again."""
        if trial.trial_id in self._over:
            return self.CONTINUE
        if trial.trial_id not in self._reported and "epoch" in result:
            self._reported.add(trial.trial_id)
            self._take_back(trial, result["epoch"])
        verdict = super().on_trial_result(tune_controller, trial, result)
        if verdict == self.STOP and "epoch" in result:
            self._write(trial, result["epoch"])
        return verdict

    def _take_back(self, trial: Any, epoch: int) -> None:
        """Removes the trial from rungs that it had not reached before a report of this epoch."""
        before = self._before(trial)
        rows = before.rows if before else ()
        earlier = [row["epoch"] for row in rows if row["epoch"] < epoch]
        reached = max(earlier, default=0)
        for milestone, recorded in self._trial_info[trial.trial_id]._rungs:
            if milestone > reached:
                recorded.pop(trial.trial_id, None)

    def _before(self, trial: Any) -> Outcome | None:
        name = self.sweep.record(self.sweep.point(trial.config))
        if not self.sweep.store.exists(name):
            return None
        return read_outcome(self.sweep.store, name)

    def _write(self, trial: Any, epoch: int) -> None:
        """Records a verdict before anything else can happen; not one on a trial's last epoch."""
        name = self.sweep.record(self.sweep.point(trial.config))
        record = self.sweep.store.read_json(name)
        if epoch < record["epochs"]:
            rows = [row for row in record["rows"] if row["epoch"] <= epoch]
            self.sweep.store.write_json(name, {**record, "rows": rows, "judged": True})
