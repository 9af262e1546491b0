"""Rows of `make bench-control` beside Ray Tune and Optuna, whose interpreter is that of `setup.py control-rivals`."""

import json
import statistics
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIMIT_SECONDS = 1800
TUNE_TRIALS = 30
OPTUNA_TRIALS = 500
# What is best for Optuna is not known before.
OPTUNA_PROCESSES = (1, 2, 4)
SEEDS = 100
SEARCHERS = ("asha", "asha_promote", "hyperband", "optuna_hyperband", "ray_asha")
RIVALS = ("optuna_hyperband", "ray_asha")


def ask(python: str, script: str, *words) -> dict:
    """What a rival's script says in its last line."""
    command = [python, str(HERE / script), *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=LIMIT_SECONDS)
    if done.returncode:
        raise SystemExit(f"{script} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def beside(name: str, ours: list, theirs: list, **more) -> dict:
    """A row whose ratio says how many times more ours are."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    return {
        "id": name, "unit": "trials/s", "ours": round(mine, 3), "rival": round(other, 3), "ratio": round(mine / other, 2), "bound": None, "of_bound": None,
        "runs": [round(run, 3) for run in ours], "rival_runs": [round(run, 3) for run in theirs], **more,
    }


def tune(python: str, ours: list, rounds: int) -> dict:
    runs = [ask(python, "tune_trials.py", TUNE_TRIALS) for _ in range(rounds)]
    return beside(
        "trials_vs_ray_tune", ours, [run["trials"] / run["seconds"] for run in runs],
        rival_trials=TUNE_TRIALS, rival_start_seconds=[round(run["start_seconds"], 2) for run in runs])


def optuna(python: str, postgres, ours: list, rounds: int) -> dict:
    """The number of processes that suits the rival best is the row's."""
    rates = {}
    for processes in OPTUNA_PROCESSES:
        rates[processes] = []
        for number in range(rounds):
            database = f"optuna{processes}x{number}"
            postgres.create(database)
            url = f"postgresql+psycopg://pomona@/{database}?host={postgres.folder}"
            run = ask(python, "ask_tell.py", url, OPTUNA_TRIALS, processes)
            rates[processes].append(run["trials"] / run["seconds"])
    best = max(rates, key=lambda processes: statistics.median(rates[processes]))
    return beside(
        "trials_vs_optuna", ours, rates[best], rival_trials=OPTUNA_TRIALS, rival_processes=best,
        rival_all={processes: round(statistics.median(runs), 2) for processes, runs in rates.items()})


def search_cost(python: str, replay: Path, seeds: int = SEEDS) -> dict:
    """Mean share of the grid's cost until a trial is within 0.2 points of its best, which a seed that never finds one
    pays in full; lower is better. Our better searcher beside the better rival. The row's clock is multiply-adds; what
    measured seconds say stands beside it."""
    found = {clock: replayed(python, replay, seeds, clock) for clock in ("multiply_adds", "seconds")}
    row = found["multiply_adds"]
    return {"id": "search_cost_vs_best_rival", "unit": "of grid", "bound": None, "of_bound": None, "seeds": seeds, **row, "by_seconds": found["seconds"]}


def replayed(python: str, replay: Path, seeds: int, clock: str) -> dict:
    played = ask(python, "replay.py", HERE / "curves" / "tux-mixed.json", clock, replay, seeds, *SEARCHERS)
    middle = {name: statistics.median(run["share"] for run in runs) for name, runs in played.items()}
    mean = {name: statistics.mean(run["share"] for run in runs) for name, runs in played.items()}
    ours, best = (min(names, key=mean.get) for names in ([name for name in played if name not in RIVALS], RIVALS))
    return {
        "ours": round(mean[ours], 4), "rival": round(mean[best], 4), "ratio": round(mean[best] / mean[ours], 3),
        "best_of_ours": ours, "best_rival": best,
        # A seed that misses is at the far end: the median does not see it while most do not.
        "ratio_of_medians": round(min(middle[name] for name in RIVALS) / middle[ours], 3),
        "searchers": {name: {
            "median": round(middle[name], 4), "mean": round(mean[name], 4),
            "missed": sum(run["missed"] for run in runs), "ranking_faults": sum(run["fault"] for run in runs),
            "spent": round(statistics.median(run["spent"] for run in runs), 4),
        } for name, runs in played.items()},
        "runs": [round(run["share"], 4) for run in played[ours]],
    }
