"""Ray Tune with trials that do nothing but report once: `tune_trials.py TRIALS`.

One JSON line: {"trials", "seconds", "start_seconds"}. Its cluster on this machine starts before the clock
does, and what a first fit alone needs (its actors' first import of the libraries) is over by then too.
"""

import json
import logging
import os
import sys
import tempfile
import time

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DEDUP_LOGS"] = "0"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"

import ray
from ray import tune


def nothing(config: dict) -> None:
    tune.report({"accuracy": 0.5, "loss": 1.0})


def fit(trials: int, folder: str) -> int:
    tuner = tune.Tuner(
        nothing, param_space={"learning_rate": tune.loguniform(1e-5, 1e-1)},
        tune_config=tune.TuneConfig(metric="accuracy", mode="max", num_samples=trials),
        run_config=tune.RunConfig(storage_path=folder, verbose=0))
    done = tuner.fit()
    assert done.num_errors == 0 and len(done) == trials
    return len(done)


def main() -> None:
    trials = int(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="pomona-ray-", ignore_cleanup_errors=True) as folder:
        begun = time.perf_counter()
        ray.init(_temp_dir=folder, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        fit(1, f"{folder}/results")
        start = time.perf_counter() - begun
        begun = time.perf_counter()
        fit(trials, f"{folder}/results")
        seconds = time.perf_counter() - begun
        ray.shutdown()
    print(json.dumps({"trials": trials, "seconds": seconds, "start_seconds": start}))


if __name__ == "__main__":
    main()
