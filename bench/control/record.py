#!/usr/bin/env python3
"""Records the learning curves that searchers are replayed against: every trial of a mixed grid, trained to its end.

    record.py EXPERIMENT.yaml OUT.json

Starts `pomona up` (the release build) in a temporary folder, imports EfficientNet-lite0 and Tux Paint's
photographs, runs the grid with the real trainer and writes, for each trial, its point and what it had on
the validation split after each epoch, with what an epoch costs at each frozen depth: the multiply-adds that
the plan predicts, and measured seconds. It is run once, by hand (README.md), and needs 20 GB for the checkpoints
meanwhile; benchmarks only read what it wrote.
"""

import json
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import setup
from bench import RELEASE

DATASET = ["--image-size", "128", "--split", "50/40/10", "--seed", "0", "--group-pattern", "_mirror$"]


def curve(trial: dict, epochs: int) -> dict:
    """A point, its validation accuracy and loss by epoch."""
    by_epoch = {one["epoch"]: one["metrics"] for one in trial["observations"] if "val/accuracy" in one["metrics"]}
    seen = [by_epoch[epoch] for epoch in range(1, epochs + 1)]
    return {
        "hparams": trial["hparams"],
        "accuracy": [round(one["val/accuracy"], 6) for one in seen],
        "loss": [round(one["val/loss"], 6) for one in seen],
    }


def seconds_per_epoch(trials: list, epochs: int) -> dict:
    """Median by frozen depth, with what a trial pays once shared out over its epochs."""
    by_depth: dict = {}
    for trial in trials:
        by_depth.setdefault(trial["hparams"]["transfer.frozen_depth"], []).append(trial["active_ms"] / 1000 / epochs)
    return {depth: round(statistics.median(seen), 3) for depth, seen in by_depth.items()}


def record(spec: Path, folder: Path) -> dict:
    up = subprocess.Popen(
        [RELEASE / "pomona", "--output", "json", "up", "--listen", "127.0.0.1:0", "--data-dir", folder / "data"],
        stdout=subprocess.PIPE, stderr=open(folder / "log", "w"), text=True)
    try:
        server = json.loads(up.stdout.readline())["server"]

        def ask(*words) -> dict:
            return json.loads(subprocess.check_output([RELEASE / "pomona", "--server", server, "--output", "json", *map(str, words)], text=True))
        ask("backbone", "add", "lite0", "--arch", "efficientnet-lite0", "--weights", setup.cache() / "weights/efficientnet-lite0.pth")
        dataset = ask("dataset", "add", "tux", setup.cache() / "tux", *DATASET)
        plan = ask("experiment", "preview", spec)["plan"]
        begun = time.perf_counter()
        row = ask("experiment", "submit", spec)
        while ask("experiment", "show", row["id"])["state"] == "active":
            time.sleep(1)
        seconds = time.perf_counter() - begun
        page = ask("trial", "list", row["id"])
        trials = [ask("trial", "show", trial["id"]) for trial in page["items"]]
        epochs = ask("experiment", "show", row["id"])["spec"]["train"]["epochs"]
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(60)
    return {
        "made": {
            "by": "bench/control/record.py", "experiment": spec.read_text(), "dataset": {"words": DATASET, "digest": dataset.get("digest")},
            "pomona": subprocess.check_output([RELEASE / "pomona", "--version"], text=True).strip(),
            "commit": subprocess.check_output(["git", "rev-parse", "HEAD"], text=True, cwd=Path(__file__).parent).strip(),
            "libtorch": setup.TORCH, "machine": platform.machine(), "on": time.strftime("%Y-%m-%d"), "seconds": round(seconds, 1),
        },
        "epochs": epochs,
        "multiply_adds_per_epoch": {depth["frozen_depth"]: {"frozen_blocks": depth["frozen_blocks"], "epoch": depth["epoch"]} for depth in plan["depths"]},
        "seconds_per_epoch": seconds_per_epoch(trials, epochs),
        "trials": [curve(trial, epochs) for trial in trials],
    }


def main() -> None:
    spec, out = Path(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="pomona-curves-") as temporary:
        made = record(spec, Path(temporary))
    trials = made.pop("trials")
    head = json.dumps(made, indent=1)
    lines = ",\n".join(f"  {json.dumps(trial)}" for trial in trials)
    out.write_text(f'{head[:-2]},\n "trials": [\n{lines}\n ]\n}}\n')
    print(f"{len(trials)} curves of {made['epochs']} epochs in {made['made']['seconds']} s, written to {out}")


if __name__ == "__main__":
    main()
