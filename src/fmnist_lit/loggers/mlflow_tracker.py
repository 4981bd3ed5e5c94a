"""MLflow: Lightning's logger, with one run for each run folder and the status that the run ended with."""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger as LightningMLFlowLogger

from fmnist_lit.config.check import as_typed
from fmnist_lit.loggers.tracker import Point, Tracker, outcome, sweep_of_job, without_password

log = logging.getLogger(__name__)

# Of MLflow's own; its defaults let a server that is not there hold up a call for minutes
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
STATUSES = {"completed": "FINISHED", "interrupted": "KILLED"}  # any other is FAILED
AT_ONCE = 100  # parameters in a request, of which MLflow takes no more; of the metrics it takes 1000
LONGEST = 500  # characters of a value, of which an older server takes no more


class MLFlowLogger(Tracker, LightningMLFlowLogger):
    """Lightning's, but for which run it writes to. The server is what ``$MLFLOW_TRACKING_URI`` says.

    Args:
        run_dir: the run folder.
        experiment_name: in which the run is; made if there is none of that name.
        log_model: whether the checkpoint that was tested is sent, too.
    """

    service = "MLflow"
    file_name = "mlflow.json"

    def __init__(self, run_dir: str | Path, experiment_name: str = "fmnist_lit", log_model: bool = False) -> None:
        Tracker.__init__(self, run_dir, log_model)
        self.experiment_name = experiment_name

    def open(self) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import mlflow

        address = mlflow.get_tracking_uri()
        self.client = mlflow.MlflowClient(address)
        place = {"server": without_password(address), "experiment": self.experiment_name}
        self.service = f"MLflow at {place['server']}"
        if {key: self.known.get(key) for key in place} != place or not self.is_there(str(self.known.get("id"))):
            self.known = {}
            run = self.new_run()
            self.remember(**place, id=run.info.run_id, experiment_id=run.info.experiment_id)
            log.info("%s: run %s in experiment %s", self.service, self.run_dir.name, self.experiment_name)
        run_id = self.known["id"]
        self.client.update_run(run_id, status="RUNNING")
        self.client.set_tag(run_id, "status", "running")
        LightningMLFlowLogger.__init__(
            self,
            experiment_name=self.experiment_name,
            run_name=self.run_dir.name,
            tracking_uri=address,
            run_id=run_id,
            synchronous=True,
        )

    @property
    def opened(self) -> Any:
        return self.client

    @property
    def experiment_id(self) -> str | None:
        return self.known.get("experiment_id")

    def is_there(self, run_id: str) -> bool:
        """Whether a run can be gone on with; somebody may have deleted it."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.get_run(run_id).info.lifecycle_stage) == "active"
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return False
            raise

    def new_run(self) -> Any:
        """A new run in the experiment, which another job may be making at this moment."""
        from mlflow.exceptions import MlflowException
        from mlflow.tracking.context.registry import resolve_tags

        if self.client.get_experiment_by_name(self.experiment_name) is None:
            try:
                self.client.create_experiment(self.experiment_name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        experiment = self.client.get_experiment_by_name(self.experiment_name)
        sweep = sweep_of_job()
        tags = resolve_tags({} if sweep is None else {"sweep": sweep})  # with the user and the program
        return self.client.create_run(experiment.experiment_id, tags=tags, run_name=self.run_dir.name)

    def send_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Send them; MLflow keeps the first value of each, so that a new one, of a resumed run, becomes a tag."""
        from mlflow.entities import Param, RunTag

        run_id = self.known["id"]
        first = self.client.get_run(run_id).data.params
        now = {allowed(key): as_typed(value)[:LONGEST] for key, value in parameters.items()}
        new = [Param(key, value) for key, value in now.items() if key not in first]
        changed = [RunTag(key, value) for key, value in now.items() if first.get(key, value) != value]
        for start in range(0, len(new), AT_ONCE):
            self.client.log_batch(run_id, params=new[start : start + AT_ONCE])
        if changed:
            self.client.log_batch(run_id, tags=changed[:AT_ONCE])

    def send_points(self, points: list[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(allowed(tag), float(value), int(1000 * point.time), point.step or 0)
            for point in points
            for tag, value in point.metrics.items()
        ]
        for start in range(0, len(metrics), AT_ONCE):
            self.client.log_batch(self.known["id"], metrics=metrics[start : start + AT_ONCE], synchronous=True)

    def close(self, results: Mapping[str, Any]) -> None:
        run_id, facts = self.known["id"], outcome(results)
        for name in self.client.get_run(run_id).data.tags:
            if name in facts and facts[name] is None:  # of an earlier attempt
                self.client.delete_tag(run_id, name)
        for name, fact in facts.items():
            if isinstance(fact, str):
                self.client.set_tag(run_id, name, fact[:LONGEST])
        numbers = {name: fact for name, fact in facts.items() if isinstance(fact, int | float)}
        self.send_points([Point(numbers, step=results.get("epochs"), by_epoch=True)])
        self.client.set_terminated(run_id, STATUSES.get(results["status"], "FAILED"))
        for file in self.files(results):
            folder = file.parent.relative_to(self.run_dir).as_posix()
            self.client.log_artifact(run_id, str(file), None if folder == "." else folder)


def allowed(name: str) -> str:
    """A name with what MLflow takes in one; it takes no other characters."""
    return re.sub(r"[^\w/. :-]", "_", name)
