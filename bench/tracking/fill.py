"""Fills the stock server's database as `load fill` and `load long` fill ours, but by SQL: over its API it takes a quarter of an hour.

    fill.py URL RUNS POINTS     an experiment `search` with RUNS runs of one point, and one run with POINTS of `long`

Prints the experiment's id and the run's as JSON.
"""

import json
import math
import sys
import time

import sqlalchemy
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy.orm import Session


def value(seed: int, step: int) -> float:
    noise = ((seed * 2654435761) ^ (step * 40503)) % 1000 / 1000
    return 0.9 * (1 - math.exp(-step / 200)) + 0.1 * noise


def run(number: int, experiment: str, at: int) -> dict:
    return {
        "run_uuid": f"{number:032x}", "name": f"run-{number}", "source_type": "UNKNOWN", "source_name": "", "entry_point_name": "",
        "user_id": "bench", "status": "FINISHED", "start_time": at + number, "end_time": at + number + 1, "source_version": "", "lifecycle_stage": "active",
        "experiment_id": int(experiment), "artifact_uri": f"mlflow-artifacts:/{experiment}/{number:032x}/artifacts",
    }


def main() -> None:
    url, runs, points = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    experiment = SqlAlchemyStore(url, "mlflow-artifacts:/").create_experiment("search")
    at = int(time.time() * 1000)
    metric = lambda owner, key, seed, step: {
        "run_uuid": owner, "key": key, "value": value(seed, step), "timestamp": at, "step": step, "is_nan": False}
    with Session(sqlalchemy.create_engine(url)) as session:
        numbers = range(1, runs + 1)
        session.bulk_insert_mappings(SqlRun, [run(number, experiment, at) for number in [0, *numbers]])
        session.bulk_insert_mappings(SqlTag, [{"run_uuid": f"{n:032x}", "key": "mlflow.runName", "value": f"run-{n}"} for n in numbers])
        for key, modulus in (("lr", 10), ("depth", 7)):
            session.bulk_insert_mappings(SqlParam, [{"run_uuid": f"{n:032x}", "key": key, "value": f"0.{n % modulus}"} for n in numbers])
        for table in (SqlMetric, SqlLatestMetric):
            session.bulk_insert_mappings(table, [metric(f"{n:032x}", "acc", n, 0) for n in numbers])
        for start in range(0, points, 100_000):
            session.bulk_insert_mappings(SqlMetric, [metric(f"{0:032x}", "long", 0, step) for step in range(start, min(start + 100_000, points))])
        if points:
            session.bulk_insert_mappings(SqlLatestMetric, [metric(f"{0:032x}", "long", 0, points - 1)])
        session.commit()
    print(json.dumps({"experiment": experiment, "run": f"{0:032x}"}))


if __name__ == "__main__":
    main()
