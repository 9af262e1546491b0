"""Optuna's ask and tell on PostgreSQL, trials that do nothing but report once: `ask_tell.py URL TRIALS PROCESSES`.

One JSON line: {"trials", "seconds", "processes"}. Processes share one study, as a team's workers would; the
clock starts when all have connected. A random sampler: none is cheaper.
"""

import json
import sys
import time
from multiprocessing import get_context

import optuna

NAME = "control"


def work(url: str, trials: int, ready, begin) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name=NAME, storage=optuna.storages.RDBStorage(url), sampler=optuna.samplers.RandomSampler())
    ready.release()
    begin.wait()
    for _ in range(trials):
        trial = study.ask()
        trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
        trial.report(0.5, 1)
        study.tell(trial, 0.5)


def main() -> None:
    url, trials, processes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name=NAME, storage=optuna.storages.RDBStorage(url), direction="maximize")
    context = get_context("spawn")
    ready, begin = context.Semaphore(0), context.Event()
    shares = [trials // processes + (number < trials % processes) for number in range(processes)]
    workers = [context.Process(target=work, args=(url, share, ready, begin)) for share in shares]
    for worker in workers:
        worker.start()
    for _ in workers:
        ready.acquire()
    begun = time.perf_counter()
    begin.set()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    seconds = time.perf_counter() - begun
    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    assert len(done) == trials
    print(json.dumps({"trials": trials, "seconds": seconds, "processes": processes}))


if __name__ == "__main__":
    main()
