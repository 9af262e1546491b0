#!/usr/bin/env python3
"""What tracking and pulls cost on this machine, with the stock MLflow server and nginx beside them.

    bench_tracking.py [--rounds N] [--runs N] [ROW…]

Prints a table and writes target/bench/tracking.json, in the form of the sharing bench. The same native
client (the example `load`) asks all servers. The stock server runs once with its default workers and
once with one; the better of the two is a row's rival. Both keep their data on the same disk, and in the same private
PostgreSQL with fsync. `--runs` says how many runs the leaderboard's experiment has (100,000).
"""

import json
import os
import re
import shutil
import signal
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
from bench_control import Coordinator, Postgres, free_port, quantile

OUT = ROOT / "target" / "bench" / "tracking.json"
HERE = ROOT / "bench" / "tracking"
START_SECONDS = 120
LIMIT_SECONDS = 3600
MEGABYTES = 500
# What each side is given: the stock server would take minutes for our share.
BATCHES = {"ours": 150, "rival": 12}
CALLS = {"ours": 1000, "rival": 40}
RUNS = {"ours": 200, "rival": 20}
SEARCHES = {"ours": 100, "rival": 10}
SEARCHED_RUNS, LONG_POINTS, RIVAL_LONG_POINTS = 10_000, 1_000_000, 100_000
SEARCHES_BY = {
    "filtered": {"filter": "metrics.acc > 0.05 and params.lr = '0.1'", "order_by": ["metrics.acc DESC"]},
    "ordered": {"order_by": ["metrics.acc DESC"]},
}


class Stock:
    """`mlflow server`, on a database and a folder of its own."""

    def __init__(self, folder: Path, url: str, workers: int | None):
        folder.mkdir()
        self.port, self.url = free_port(), url
        python = setup.tracking_rivals_python()
        words = ["--workers", str(workers)] if workers else []
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            [str(python), "-m", "mlflow", "server", "--backend-store-uri", url, "--artifacts-destination", str(folder / "artifacts"),
             "--host", "127.0.0.1", "--port", str(self.port), *words],
            env={**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true"},
            cwd=folder, stdout=open(folder / "log", "w"), stderr=subprocess.STDOUT, start_new_session=True,
        )
        while time.perf_counter() - begun < START_SECONDS:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    self.start_seconds = time.perf_counter() - begun
                    return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"the stock server does not start:\n{(folder / 'log').read_text()[-2000:]}")

    def rss_mb(self) -> float:
        group = subprocess.check_output(["ps", "-o", "pid=", "--sid", str(self.process.pid)], text=True)
        return sum(bench.rss_mb(int(pid)) for pid in group.split())

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Nginx:
    """Serves a folder as it is."""

    def __init__(self, folder: Path, served: Path):
        folder.mkdir()
        self.port = free_port()
        (folder / "nginx.conf").write_text(
            f"worker_processes 1; daemon off; error_log {folder}/log; pid {folder}/pid; events {{}}\n"
            f"http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {folder}; proxy_temp_path {folder};\n"
            f"  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};\n"
            f"  server {{ listen 127.0.0.1:{self.port}; root {served}; }} }}\n")
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        words = ["-g", "user root;"] if os.geteuid() == 0 else []
        self.process = subprocess.Popen([program, "-e", str(folder / "log"), "-c", str(folder / "nginx.conf"), *words])
        while not (folder / "pid").exists() or not (folder / "pid").read_text().strip():
            time.sleep(0.02)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def load(server, *words, clients: int = 1) -> dict:
    """What the native client says of a server in its last line."""
    command = [str(RELEASE / "examples" / "load"), "--server", f"127.0.0.1:{server.port}", "--clients", str(clients), *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=LIMIT_SECONDS)
    if done.returncode:
        raise SystemExit(f"load {' '.join(map(str, words))[:80]} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def search(server, experiment: str, by: str, times: int) -> list:
    body = {"experiment_ids": [experiment], "max_results": 100, **SEARCHES_BY[by]}
    return load(server, "ask", "/api/2.0/mlflow/runs/search", times, json.dumps(body))["ms"]


def per_second(server, side: str, what: str, rounds: int) -> list:
    if what == "batches":
        runs = [load(server, "batches", BATCHES[side], clients=8) for _ in range(rounds)]
        return [run["points"] / run["seconds"] for run in runs]
    runs = [load(server, "calls", CALLS[side], clients=16) for _ in range(rounds)]
    return [run["calls"] / run["seconds"] for run in runs]


def transfer(server, what: str, rounds: int, path: str = "") -> list:
    if what == "upload":
        return [load(server, "upload", f"0/bench/{number}.bin", MEGABYTES)["mb_per_second"] for number in range(rounds)]
    path = path or "/api/2.0/mlflow-artifacts/artifacts/0/bench/0.bin"
    return [load(server, "download", path)["mb_per_second"] for _ in range(rounds)]


class Bench:
    """Rows, each from our server and from the better of the stock server's two settings."""

    def __init__(self, folder: Path, rounds: int, runs: int, names: list):
        self.folder, self.rounds, self.runs, self.names = folder, rounds, runs, names
        self.made, self.count = [], 0
        self.postgres = Postgres(folder / "postgres")

    def wants(self, *names: str) -> bool:
        return not self.names or any(name in self.names for name in names)

    def ours(self, kind: str) -> Coordinator:
        self.count += 1
        url = self.postgres.create(f"ours{self.count}") if kind == "postgres" else ""
        return Coordinator(self.folder / f"ours{self.count}", url)

    def stock(self, kind: str, workers: int | None) -> Stock:
        self.count += 1
        home = self.folder / f"stock{self.count}"
        url = f"sqlite:///{home}/mlflow.db"
        if kind == "postgres":
            database = f"stock{self.count}"
            self.postgres.create(database)
            url = f"postgresql+psycopg2://pomona@/{database}?host={self.postgres.folder}"
        return Stock(home, url, workers)

    def beside(self, name: str, unit: str, ours: list, rivals: dict, lower: bool = False, **more) -> None:
        """A row whose ratio says how many times better ours is than the better setting of the rival."""
        middle = {setting: statistics.median(runs) for setting, runs in rivals.items()}
        best = (min if lower else max)(middle, key=middle.get) if middle else None
        mine = statistics.median(ours)
        row = bench.row(name, unit, ours)
        if best:
            row["rival"] = round(middle[best], 3)
            row["ratio"] = round(middle[best] / mine if lower else mine / middle[best], 2)
            row["rival_setting"], row["rival_all"] = best, {key: [round(run, 3) for run in runs] for key, runs in rivals.items()}
        self.made.append({**row, **more})
        print(f"  … {name}: {row['ours']} {unit}, rival {row['rival']}", file=sys.stderr, flush=True)

    def run(self) -> None:
        for kind in ("postgres", "sqlite"):
            self.logging(kind)
        if self.wants("search_runs_p95", "history_million_p95_ms"):
            self.reading()
        if self.wants("leaderboard_100k_p95_ms"):
            self.leaderboard()

    def logging(self, kind: str) -> None:
        """Everything that writes, and memory, on one pair of servers after the other."""
        ingest = f"ingest_{kind}"
        rest = kind == "postgres"
        wanted = {
            ingest: self.wants(ingest), "log_metric_calls": rest and self.wants("log_metric_calls"),
            "create_run_latency": rest and self.wants("create_run_latency"),
            "artifact": rest and self.wants("artifact_upload", "artifact_download"),
            "oci": rest and self.wants("oci_download_vs_nginx"), "rss": rest and self.wants("rss_vs_mlflow"),
        }
        if not any(wanted.values()):
            return
        ours = self.ours(kind)
        time.sleep(2)
        seen = {"rss": {"ours": [bench.rss_mb(ours.process.pid)]}}
        try:
            self.side(ours, "ours", "ours", wanted, ingest, seen)
            if wanted["oci"]:
                self.nginx(ours)
        finally:
            ours.close()
        for setting, workers in (("default workers", None), ("1 worker", 1)):
            if set(key for key, is_wanted in wanted.items() if is_wanted) == {"oci"}:
                break
            stock = self.stock(kind, workers)
            time.sleep(2)
            seen["rss"][setting] = [stock.rss_mb()]
            try:
                self.side(stock, "rival", setting, wanted, ingest, seen)
            finally:
                stock.close()
        self.rows(wanted, ingest, seen)

    def side(self, server, side: str, setting: str, wanted: dict, ingest: str, seen: dict) -> None:
        keep = lambda row, runs: seen.setdefault(row, {}).__setitem__(setting, runs)
        if wanted[ingest]:
            per_second(server, side, "batches", 1)
            keep(ingest, per_second(server, side, "batches", self.rounds))
        if wanted["log_metric_calls"]:
            keep("log_metric_calls", per_second(server, side, "calls", self.rounds))
        if wanted["create_run_latency"]:
            keep("create_run_latency", [statistics.median(load(server, "runs", RUNS[side])["ms"]) for _ in range(self.rounds)])
        if wanted["artifact"] or (wanted["oci"] and side == "ours"):
            keep("artifact_upload", transfer(server, "upload", self.rounds))
            keep("artifact_download", transfer(server, "download", self.rounds))

    def rows(self, wanted: dict, ingest: str, seen: dict) -> None:
        units = {ingest: ("points/s", False), "log_metric_calls": ("calls/s", False), "create_run_latency": ("ms", True),
                 "artifact_upload": ("MB/s", False), "artifact_download": ("MB/s", False)}
        for name, (unit, lower) in units.items():
            if name in seen and self.wants(name):
                self.beside(name, unit, seen[name].pop("ours"), seen[name], lower)
        if wanted["rss"]:
            self.beside("rss_vs_mlflow", "MB", seen["rss"].pop("ours"), seen["rss"], True)

    def nginx(self, ours: Coordinator) -> None:
        """The same blob from us and from nginx, in turns."""
        blob, path = pulled(ours)
        served = Nginx(self.folder / "nginx", blob.parent)
        try:
            mine, theirs = [], []
            for _ in range(max(5, self.rounds)):
                mine += transfer(ours, "download", 1, path)
                theirs += transfer(served, "download", 1, f"/{blob.name}")
        finally:
            served.close()
        self.beside("oci_download_vs_nginx", "MB/s", mine, {"nginx": theirs})

    def reading(self) -> None:
        fill = lambda stock: json.loads(subprocess.check_output(
            [str(setup.tracking_rivals_python()), str(HERE / "fill.py"), stock.url, str(SEARCHED_RUNS), str(RIVAL_LONG_POINTS)], text=True))
        searches, histories = {"ours": {}}, {}
        ours = self.ours("postgres")
        try:
            experiment = load(ours, "fill", "search", SEARCHED_RUNS, 1, clients=8)["experiment"]
            searches["ours"] = {by: search(ours, experiment, by, SEARCHES["ours"]) for by in SEARCHES_BY}
            run = load(ours, "long", LONG_POINTS)["run"]
            histories["ours"] = self.history(ours, run, SEARCHES["ours"])
        finally:
            ours.close()
        for setting, workers in (("default workers", None), ("1 worker", 1)):
            stock = self.stock("postgres", workers)
            try:
                filled = fill(stock)
                searches[setting] = {by: search(stock, filled["experiment"], by, SEARCHES["rival"]) for by in SEARCHES_BY}
                histories[setting] = self.history(stock, filled["run"], SEARCHES["rival"])
            finally:
                stock.close()
        p95 = lambda runs: [quantile(runs, 0.95)]
        if self.wants("search_runs_p95"):
            for by in SEARCHES_BY:
                rivals = {setting: p95(runs[by]) for setting, runs in searches.items() if setting != "ours"}
                # The row is the search with both; without a filter it is shown beside it.
                name = "search_runs_p95" if by == "filtered" else "search_runs_ordered_p95"
                self.beside(name, "ms", p95(searches["ours"][by]), rivals, True)
        if self.wants("history_million_p95_ms"):
            rivals = {setting: p95(runs) for setting, runs in histories.items() if setting != "ours"}
            self.beside("history_million_p95_ms", "ms", p95(histories["ours"]), rivals, True, rival_points=RIVAL_LONG_POINTS)

    def history(self, server, run: str, times: int) -> list:
        path = f"/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval?run_ids={run}&metric_key=long&max_results=2000"
        return load(server, "ask", path, times)["ms"]

    def leaderboard(self) -> None:
        """The best hundred of all, and the curves of the ten best, as a page asks for them."""
        ours = self.ours("postgres")
        try:
            filled = load(ours, "fill", "leaderboard", self.runs, 1000, clients=8)
            body = {"experiment_ids": [filled["experiment"]], "max_results": 100, "order_by": ["metrics.acc DESC"]}
            request = urllib.request.Request(f"{ours.address}/api/2.0/mlflow/runs/search", json.dumps(body).encode(), {"Content-Type": "application/json"})
            best = [row["info"]["run_id"] for row in json.load(urllib.request.urlopen(request))["runs"][:10]]
            runs = "&".join(f"run_ids={run}" for run in best)
            path = f"/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval?{runs}&metric_key=acc&max_results=320"
            board = load(ours, "ask", "/api/2.0/mlflow/runs/search", SEARCHES["ours"], json.dumps(body))["ms"]
            compare = load(ours, "ask", path, SEARCHES["ours"])["ms"]
            self.beside(
                "leaderboard_100k_p95_ms", "ms", [max(quantile(board, 0.95), quantile(compare, 0.95))], {}, True, trials=self.runs, points=self.runs * 1000,
                board_p95_ms=round(quantile(board, 0.95), 3), compare_p95_ms=round(quantile(compare, 0.95), 3), fill_seconds=round(filled["seconds"], 1))
        finally:
            ours.close()


def pulled(ours: Coordinator) -> tuple:
    """The largest blob's file, and the path under which OCI clients pull it: what was uploaded becomes a model's version."""
    def ask(path: str, body: dict) -> dict:
        request = urllib.request.Request(f"{ours.address}/api/2.0/mlflow/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    run = ask("runs/create", {"experiment_id": "0"})["run"]["info"]
    root = re.sub("^mlflow-artifacts:/+", "", run["artifact_uri"])
    load(ours, "upload", f"{root}/model/weights.bin", MEGABYTES)
    ask("registered-models/create", {"name": "bench"})
    ask("model-versions/create", {"name": "bench", "source": f"{run['artifact_uri']}/model", "run_id": run["run_id"]})
    request = urllib.request.Request(f"{ours.address}/v2/bench/manifests/v1", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
    with urllib.request.urlopen(request) as answer:
        layer = max(json.load(answer)["layers"], key=lambda layer: layer["size"])
    name = layer["digest"].removeprefix("sha256:")
    return next(path for path in (ours.folder / "data").rglob(f"*{name[4:]}*") if path.is_file()), f"/v2/bench/blobs/{layer['digest']}"


def versions() -> dict:
    python = setup.tracking_rivals_python()
    said = subprocess.check_output([str(python), "-c", "import mlflow,sqlalchemy,uvicorn,sys;print(mlflow.__version__,sqlalchemy.__version__,uvicorn.__version__)"], text=True)
    return dict(zip(("mlflow", "sqlalchemy", "uvicorn"), said.split()))


def disk_mb_per_second(folder: Path) -> float:
    """What the disk takes in one stream, synced."""
    block = os.urandom(1 << 20)
    def once() -> None:
        with open(folder / "disk", "wb") as file:
            for _ in range(256):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    seconds = statistics.median(bench.seconds(once) for _ in range(3))
    (folder / "disk").unlink()
    return round(256 * 1.048576 / seconds)


def main() -> None:
    words, rounds, runs = sys.argv[1:], 3, 100_000
    while words[:1] in (["--rounds"], ["--runs"]):
        if words[0] == "--rounds":
            rounds = int(words[1])
        else:
            runs = int(words[1])
        words = words[2:]
    with tempfile.TemporaryDirectory(prefix="pomona-tracking-") as temporary:
        os.chmod(temporary, 0o755)
        folder = Path(temporary)
        probe = {**bench.machine(folder), "disk_mb_per_second": disk_mb_per_second(folder), **versions()}
        bench_ = Bench(folder, rounds, runs, words)
        try:
            bench_.run()
        finally:
            bench_.postgres.close()
            # What was measured before a row failed is worth having.
            bench.write(OUT, probe, bench_.made)


if __name__ == "__main__":
    main()
