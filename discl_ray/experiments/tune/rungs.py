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
        bracket = self._trial_info[trial.trial_id]
        for row in before.rows:
            bracket.on_result(trial, row["epoch"], row[DEV])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """ASHA's verdict on a report; none on what a trial that is over reports again."""
        if trial.trial_id in self._over:
            return self.CONTINUE
        epoch = result.get("epoch")
        if epoch is not None and trial.trial_id not in self._reported:
            self._reported.add(trial.trial_id)
            self._take_back(trial, epoch)
        verdict = super().on_trial_result(tune_controller, trial, result)
        if epoch is not None and verdict == self.STOP:
            self._write(trial, epoch)
        return verdict

    def _take_back(self, trial: Any, epoch: int) -> None:
        """Removes the trial from rungs that it had not reached before a report of this epoch."""
        before = self._before(trial)
        epochs = [row["epoch"] for row in before.rows] if before else []
        earlier = [reported for reported in epochs if reported < epoch]
        reached = max(earlier, default=0)
        bracket = self._trial_info[trial.trial_id]
        for milestone, recorded in bracket._rungs:
            if milestone > reached:
                recorded.pop(trial.trial_id, None)

    def _record(self, trial: Any) -> str:
        """The name of a trial's record."""
        point = self.sweep.point(trial.config)
        return self.sweep.record(point)

    def _before(self, trial: Any) -> Outcome | None:
        """What a trial's record says; None if there is none."""
        store = self.sweep.store
        name = self._record(trial)
        if not store.exists(name):
            return None
        return read_outcome(store, name)

    def _write(self, trial: Any, epoch: int) -> None:
        """Records a verdict before anything else can happen; not one on a trial's last epoch."""
        store = self.sweep.store
        name = self._record(trial)
        record = store.read_json(name)
        if epoch >= record["epochs"]:
            return
        rows = [row for row in record["rows"] if row["epoch"] <= epoch]
        judged = {**record, "rows": rows, "judged": True}
        store.write_json(name, judged)
