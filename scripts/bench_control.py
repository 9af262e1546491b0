#!/usr/bin/env python3
"""What the control plane does in a second on this machine, with rivals beside it.

    bench_control.py [--rounds N] [ROW…]

Prints a table and writes target/bench/control.json, in the form of the sharing bench. Simulated
workers (the example `fleet`) speak the real protocol; PostgreSQL is a private instance with fsync.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import bench
import setup
from bench import RELEASE, ROOT

sys.path.insert(0, str(ROOT / "bench" / "control"))
import recovery
import rivals

OUT = ROOT / "target" / "bench" / "control.json"
TRIALS = 10_000
WORKERS, SLOTS = 8, 4
RECOVERIES = 5

SPEC = """
name: control
backbone: lite
dataset: flowers
share: "off"
train: {{epochs: 1, batch_size: 16, learning_rate: 0.001}}
search:
  strategy: random
  max_trials: {trials}
  max_concurrent: {concurrent}
  space:
    train.learning_rate: {{log_uniform: [1.0e-5, 1.0e-1]}}
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def quantile(values: list, share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Postgres:
    """A private server, on a socket in a temporary folder, that syncs what it writes."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        named = [Path(os.environ["POMONA_POSTGRES"])] if "POMONA_POSTGRES" in os.environ else []
        onpath = [Path(found).parent for found in [shutil.which("initdb")] if found]
        debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        places = [*named, *onpath, *debian, setup.cache() / "postgres/pgserver/pginstall/bin"]
        # Some put links to the server alone on the path: its other programs lie where it does.
        self.programs = next((place / "initdb").resolve().parent for place in places if (place / "initdb").exists())
        self.user = []
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
            self.user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        self.run("initdb", "--auth=trust", "--username=pomona", "--encoding=UTF8", "--locale=C", "-D", str(folder / "data"))
        self.server = subprocess.Popen(
            [*self.user, str(self.programs / "postgres"), "-D", str(folder / "data"), "-k", str(folder), "-h", ""],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        )
        while subprocess.run([*self.user, str(self.programs / "pg_isready"), "-h", str(folder), "-q"], cwd="/").returncode:
            time.sleep(0.05)

    def run(self, program: str, *words: str) -> None:
        subprocess.run([*self.user, str(self.programs / program), *words], check=True, stdout=subprocess.DEVNULL, cwd="/")

    def create(self, name: str) -> str:
        self.run("createdb", "-h", str(self.folder), "-U", "pomona", name)
        return f"postgres://pomona@localhost/{name}?host={self.folder}"

    def close(self) -> None:
        self.server.send_signal(signal.SIGQUIT)
        self.server.wait()


class Coordinator:
    """One in a folder of its own, with a data set and a backbone of the fake trainer's."""

    def __init__(self, folder: Path, url: str = "", **variables: str):
        self.folder, self.url = folder, url
        self.variables = {f"POMONA_COORDINATOR_{name}": value for name, value in variables.items()}
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> float:
        """Starts it; gives the seconds until it answers that it is ready."""
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            [str(RELEASE / "pomona-coordinator"), "serve", "--listen", f"127.0.0.1:{self.port}", "--data-dir", str(self.folder / "data")],
            env={**os.environ, **self.variables, "POMONA_COORDINATOR_STORE_URL": self.url, "POMONA_COORDINATOR_LOG_FILTER": "warn"},
            stdout=subprocess.PIPE, stderr=open(self.folder / "log", "a"), text=True,
        )
        assert "listening" in self.process.stdout.readline(), (self.folder / "log").read_text()
        while not self.ready():
            time.sleep(0.005)
        return time.perf_counter() - begun

    def ready(self) -> dict | None:
        try:
            with urllib.request.urlopen(f"{self.address}/readyz", timeout=2) as answer:
                return json.load(answer)
        except OSError:
            return None

    def type(self, *words: str) -> dict:
        out = subprocess.check_output([str(RELEASE / "pomona"), "--server", self.address, "--output", "json", *words], text=True)
        return json.loads(out) if out.strip() else {}

    def worker(self, slots: int, port: int = 0, trainer: str = "fake-trainer") -> subprocess.Popen:
        return subprocess.Popen(
            [str(RELEASE / "pomona-worker"), "run", "--server", self.address, "--name", f"w{slots}", "--slots", str(slots), "--listen", f"127.0.0.1:{port}",
             "--data-dir", str(self.folder / f"worker{slots}"), "--trainer", str(RELEASE / trainer)],
            env={**os.environ, "FAKE_STEP_MS": "0"}, stdout=subprocess.DEVNULL, stderr=open(self.folder / "worker.log", "a"),
        )

    def furnish(self) -> "Coordinator":
        pictures = self.folder / "pictures"
        for name in ("daisy", "rose", "tulip"):
            (pictures / name).mkdir(parents=True)
            for number in range(20):
                (pictures / name / f"{number}.png").write_text(f"{name}{number}")
        (self.folder / "lite.pth").write_text("weights")
        importer = self.worker(1)
        self.type("dataset", "add", "flowers", str(pictures))
        self.type("backbone", "add", "lite", "--arch", "efficientnet-lite0", "--weights", str(self.folder / "lite.pth"))
        self.type("worker", "drain", "w1")
        importer.terminate()
        importer.wait()
        return self

    def spec(self, trials: int, concurrent: int = TRIALS) -> str:
        path = self.folder / f"spec-{trials}.yaml"
        path.write_text(SPEC.format(trials=trials, concurrent=concurrent))
        return str(path)

    def fleet(self, *words: str, workers: int = WORKERS, slots: int = SLOTS) -> dict:
        out = subprocess.check_output(
            [str(RELEASE / "examples" / "fleet"), "--server", self.address, "--workers", str(workers), "--slots", str(slots), *words], text=True)
        return json.loads(out)

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def fresh(folder: Path, postgres: Postgres | None, name: str, **variables: str) -> Coordinator:
    url = postgres.create(name) if postgres else ""
    return Coordinator(folder / name, url, **variables).furnish()


def trials_per_second(folder: Path, postgres: Postgres | None, name: str) -> float:
    house = fresh(folder, postgres, name)
    try:
        seen = house.fleet("trials", house.spec(TRIALS))
        return seen["trials"] / seen["seconds"]
    finally:
        house.close()


def process_trials_per_second(folder: Path, postgres: Postgres, name: str) -> float:
    house = fresh(folder, postgres, name)
    worker = house.worker(SLOTS)
    try:
        begun = time.perf_counter()
        row = house.type("experiment", "submit", house.spec(200))
        while house.type("experiment", "show", row["id"])["state"] == "active":
            time.sleep(0.1)
        return 200 / (time.perf_counter() - begun)
    finally:
        worker.terminate()
        worker.wait()
        house.close()


def http_ms(house: Coordinator) -> float:
    """An empty round trip on a connection that stays open."""
    line = http.client.HTTPConnection("127.0.0.1", house.port)

    def once() -> None:
        line.request("GET", "/healthz")
        line.getresponse().read()
    once()
    return statistics.median(bench.seconds(once) for _ in range(200)) * 1000


def start_latency(folder: Path, postgres: Postgres, name: str) -> dict:
    house = fresh(folder, postgres, name)
    try:
        seen = house.fleet("starts", house.spec(1), "200", workers=2)
        return {"ms": seen["submit_to_start_ms"], "http_ms": http_ms(house)}
    finally:
        house.close()


def heartbeat_cores(folder: Path, postgres: Postgres, name: str, busy: bool) -> float:
    """With busy workers: 4,000 trials run, more wait, and nothing happens but time."""
    house = fresh(folder, postgres, name)
    try:
        seconds = 20
        held = [house.spec(5000)] if busy else []
        fleet = subprocess.Popen(
            [str(RELEASE / "examples" / "fleet"), "--server", house.address, "--workers", "1000", "--slots", "4", "beats", str(seconds + 25), *held],
            stdout=subprocess.DEVNULL)
        # All have registered by then, and all slots are taken.
        time.sleep(20)
        with urllib.request.urlopen(f"{house.address}/api/v1/cluster") as answer:
            view = json.load(answer)
        assert view["slots_busy"] == (4000 if busy else 0), view
        before = house.cpu()
        time.sleep(seconds)
        used = house.cpu() - before
        assert fleet.wait() == 0
        return used / seconds
    finally:
        house.close()


def at_rest(folder: Path, postgres: Postgres, name: str) -> tuple:
    """Memory and start with 100,000 trials of 100 experiments, 50,000 of them queued."""
    house = fresh(folder, postgres, name)
    try:
        house.fleet("trials", house.spec(1000), "50")
        queued = house.spec(1000, concurrent=1000)
        for _ in range(50):
            house.type("experiment", "submit", queued)
        house.close()
        seconds = house.start()
        time.sleep(2)
        return bench.rss_mb(house.process.pid), seconds
    finally:
        house.close()


def failover_seconds(folder: Path, postgres: Postgres, name: str) -> list:
    url = postgres.create(name)
    blobs = f"file://{folder / name}-blobs"
    pair = [Coordinator(folder / f"{name}{side}", url, BLOBS_URL=blobs) for side in "ab"]
    seen = []
    try:
        for _ in range(5):
            pair.sort(key=lambda one: not one.ready()["leads"])
            leader, other = pair
            leader.process.kill()
            begun = time.perf_counter()
            while not (other.ready() or {}).get("leads"):
                time.sleep(0.01)
            seen.append(time.perf_counter() - begun)
            leader.process.wait()
            leader.start()
        return seen
    finally:
        for one in pair:
            one.close()


def rank_recovery(folder: Path, postgres: Postgres, name: str) -> dict:
    house = Coordinator(folder / name, postgres.create(name))
    try:
        seen = recovery.recoveries(house, setup.cache(), RECOVERIES, free_port(), "pomona-trainer")
        return bench.row("rank_recovery_seconds", "s", seen)
    finally:
        house.close()


def main() -> None:
    words = sys.argv[1:]
    rounds = 3
    if words[:1] == ["--rounds"]:
        rounds, words = int(words[1]), words[2:]
    made = []
    wanted = lambda *names: not words or any(name in words for name in names)
    with tempfile.TemporaryDirectory(prefix="pomona-control-") as temporary:
        os.chmod(temporary, 0o755)
        folder = Path(temporary)
        postgres = Postgres(folder / "postgres")
        probe = bench.machine(folder)
        try:
            python = str(setup.control_rivals_python())
            if wanted("trials_per_second_postgres", "trials_vs_ray_tune", "trials_vs_optuna"):
                runs = [trials_per_second(folder, postgres, f"many{n}") for n in range(rounds)]
                made.append(bench.row("trials_per_second_postgres", "trials/s", runs))
                if wanted("trials_vs_optuna"):
                    made.append(rivals.optuna(python, postgres, runs, rounds))
                if wanted("trials_vs_ray_tune"):
                    made.append(rivals.tune(python, runs, rounds))
            if wanted("trials_per_second_sqlite"):
                runs = [trials_per_second(folder, None, f"file{n}") for n in range(rounds)]
                made.append(bench.row("trials_per_second_sqlite", "trials/s", runs))
            if wanted("process_trials_per_second"):
                made.append(bench.row("process_trials_per_second", "trials/s", [process_trials_per_second(folder, postgres, "process")]))
            if wanted("start_latency_p50_ms", "start_latency_p99_ms"):
                seen = start_latency(folder, postgres, "start")
                probe["http_ms"] = round(seen["http_ms"], 3)
                for name, share in (("start_latency_p50_ms", 0.5), ("start_latency_p99_ms", 0.99)):
                    made.append(bench.row(name, "ms", [quantile(seen["ms"], share)]))
            if wanted("failover_seconds"):
                made.append(bench.row("failover_seconds", "s", failover_seconds(folder, postgres, "failover")))
            if wanted("heartbeat_cpu_cores"):
                made.append(bench.row("heartbeat_cpu_cores", "cores", [heartbeat_cores(folder, postgres, "beats", False)]))
            if wanted("heartbeat_busy_cpu_cores"):
                made.append(bench.row("heartbeat_busy_cpu_cores", "cores", [heartbeat_cores(folder, postgres, "busy", True)]))
            if wanted("coordinator_rss_mb", "coordinator_start_seconds"):
                memory, start = at_rest(folder, postgres, "rest")
                made.append(bench.row("coordinator_rss_mb", "MB", [memory]))
                made.append(bench.row("coordinator_start_seconds", "s", [start]))
            if wanted("rank_recovery_seconds"):
                made.append(rank_recovery(folder, postgres, "ranks"))
            if wanted("search_cost_vs_best_rival"):
                made.append(rivals.search_cost(python, RELEASE / "examples" / "replay"))
        finally:
            postgres.close()
            # What was measured before a row failed is worth having.
            bench.write(OUT, probe, made)


if __name__ == "__main__":
    main()
