"""Seconds from a rank's SIGKILL until its trial trains again."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

# What is left of a trial when it is killed must outlast the measurement.
SPEC = """
name: ranks
backbone: lite0
dataset: tux
transfer: {frozen_depth: _blocks.14}
train: {epochs: 1000, batch_size: 32, learning_rate: 0.001}
search: {metric: val/accuracy, validation: holdout}
resources: {slots_per_trial: 2}
"""
LIMIT_SECONDS = 120


def until(what, said: str):
    """What it says, once it says something; looked at every 5 ms."""
    late = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < late:
        found = what()
        if found:
            return found
        time.sleep(0.005)
    raise SystemExit(f"{said}: not within {LIMIT_SECONDS} s")


def rank(worker: int, number: int) -> int | None:
    """The process of a rank of a pair, by its environment: spare trainers are one of one."""
    children = subprocess.run(["ps", "--ppid", str(worker), "-o", "pid="], capture_output=True, text=True).stdout.split()
    for child in children:
        try:
            words = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"WORLD_SIZE=2" in words and f"RANK={number}".encode() in words:
            return int(child)
    return None


class Pair:
    """A worker with two slots and one trial over both."""

    def __init__(self, house, port: int, worker: subprocess.Popen):
        self.house, self.port, self.worker = house, port, worker

    def samples(self) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("pomona_train_samples_total "))

    def leases(self, trial: str) -> int:
        with urllib.request.urlopen(f"{self.house.address}/api/v1/trials/{trial}", timeout=5) as answer:
            return json.load(answer)["leases"]

    def recovery(self, spec: Path) -> float:
        """A new trial each time: the second failure of one waits longer than the first. A step counts once the trial
        has its next lease, when all that the old ranks said has been heard."""
        row = self.house.type("experiment", "submit", str(spec))
        trial = self.house.type("trial", "list", row["id"])["items"][0]["id"]
        before = self.samples()
        until(lambda: self.samples() > before, "the trial trains")
        # Past its first epoch, so that there is something to lose.
        until(lambda: self.house.type("trial", "show", trial)["last_epoch"] > 1, "the trial is in its second epoch")
        leases, victim = self.leases(trial), rank(self.worker.pid, 1)
        os.kill(victim, signal.SIGKILL)
        begun = time.perf_counter()
        until(lambda: self.leases(trial) > leases, "the trial has a lease again")
        at_rest = self.samples()
        until(lambda: self.samples() > at_rest, "the trial trains again")
        seconds = time.perf_counter() - begun
        self.house.type("experiment", "cancel", row["id"])
        until(lambda: rank(self.worker.pid, 0) is None and rank(self.worker.pid, 1) is None, "its ranks end")
        return seconds


def recoveries(house, cache: Path, times: int, port: int, trainer: str) -> list:
    """Seconds of each of some kills, on a coordinator of its own."""
    worker = house.worker(2, port, trainer)
    try:
        house.type("backbone", "add", "lite0", "--arch", "efficientnet-lite0", "--weights", str(cache / "weights/efficientnet-lite0.pth"))
        house.type("dataset", "add", "tux", str(cache / "tux"), "--image-size", "128")
        spec = house.folder / "ranks.yaml"
        spec.write_text(SPEC)
        pair = Pair(house, port, worker)
        return [pair.recovery(spec) for _ in range(times)]
    finally:
        worker.terminate()
        worker.wait()
