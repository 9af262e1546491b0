#!/usr/bin/env python3
"""What Pomona costs on this machine: start-up, memory, the input pipeline, the training loop.

Prints a table and writes target/bench/house.json:
{"machine": {…}, "versions": {…}, "rows": [{"id", "unit", "ours", "rival", "ratio", "bound", "of_bound", "runs"}]}.
Absolute figures depend on the machine; the probes taken in the same run stand in "machine".
"""

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
OUT = ROOT / "target" / "bench" / "house.json"


def seconds(work) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def spin() -> None:
    total = 0
    for number in range(2_000_000):
        total += number * number


def fsync_ms(folder: Path) -> float:
    with open(folder / "probe", "wb") as file:
        def once() -> None:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        return statistics.median(seconds(once) for _ in range(50)) * 1000


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def children(pid: int) -> dict:
    """Name → pid of a process's children."""
    found = {}
    for line in subprocess.check_output(["ps", "--ppid", str(pid), "-o", "pid=,comm="], text=True).splitlines():
        number, name = line.split(None, 1)
        found[name.strip()] = int(number)
    return found


def row(name: str, unit: str, values: list, rival: float | None = None) -> dict:
    ours = statistics.median(values)
    return {
        "id": name, "unit": unit, "ours": round(ours, 3), "rival": rival,
        "ratio": round(ours / rival, 3) if rival else None, "bound": None, "of_bound": None,
        "runs": [round(value, 3) for value in values],
    }


def start_up(folder: Path) -> list:
    pomona = str(RELEASE / "pomona")
    help_ms = [seconds(lambda: subprocess.run([pomona, "--help"], stdout=subprocess.DEVNULL, check=True)) * 1000 for _ in range(21)]
    nothing_ms = [seconds(lambda: subprocess.run(["/bin/true"], check=True)) * 1000 for _ in range(21)]
    ready, coordinator, worker = [], [], []
    for number in range(5):
        begun = time.perf_counter()
        up = subprocess.Popen(
            [pomona, "--output", "json", "up", "--listen", "127.0.0.1:0", "--data-dir", str(folder / f"up-{number}")],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        assert json.loads(up.stdout.readline())["server"]
        ready.append(time.perf_counter() - begun)
        time.sleep(3)
        # The kernel keeps 15 letters of a name.
        kids = children(up.pid)
        coordinator.append(rss_mb(kids["pomona-coordina"]))
        worker.append(rss_mb(kids["pomona-worker"]))
        up.send_signal(signal.SIGTERM)
        up.wait(30)
    return [
        row("help_ms", "ms", help_ms, round(statistics.median(nothing_ms), 3)),
        row("up_to_ready_seconds", "s", ready),
        row("coordinator_rss_at_rest_mb", "MB", coordinator),
        row("worker_rss_at_rest_mb", "MB", worker),
    ]


def example(name: str, *words: str) -> dict:
    output = subprocess.check_output([str(RELEASE / "examples" / name), *words], text=True)
    return json.loads(output.strip().splitlines()[-1])


def trainer(cache: Path) -> list:
    rows = []
    pipeline = [example("pipeline", str(cache / "tux"), "128") for _ in range(3)]
    rows.append(row("pipeline_images_per_second_one_core", "images/s", [run["images_per_second"] for run in pipeline]))
    steps = [example("steps") for _ in range(5)]
    rows.append({
        **row("trainer_steps_per_second_vs_plain_loop", "steps/s", [run["ours"] for run in steps]),
        "rival": round(statistics.median(run["plain"] for run in steps), 3),
        "ratio": round(statistics.median(run["ours"] / run["plain"] for run in steps), 3),
    })
    rows.append(row("trainer_rss_mb", "MB", [run["rss_mb"] for run in steps]))
    return rows


def machine(folder: Path) -> dict:
    """What ran it, with probes of it taken now."""
    return {
        "cpu": next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), platform.machine()),
        "cores": os.cpu_count(),
        "spin_seconds": round(statistics.median(seconds(spin) for _ in range(3)), 3),
        "fsync_ms": round(fsync_ms(folder), 3),
        "load": os.getloadavg()[0],
    }


def write(out: Path, machine: dict, rows: list) -> None:
    """Shows the rows and keeps them in a file."""
    result = {"machine": machine, "versions": {"python": platform.python_version(), "kernel": platform.release()}, "rows": rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"machine: {machine}")
    for line in rows:
        low, high = min(line["runs"]), max(line["runs"])
        beside = f"   beside {line['rival']} ({line['ratio']}×)" if line["rival"] else ""
        print(f"  {line['id']:<42} {line['ours']:>10} {line['unit']:<9} [{low} … {high}]{beside}")
    print(f"written to {out.relative_to(ROOT)}")


def main() -> None:
    cache = Path(subprocess.check_output([sys.executable, ROOT / "scripts/setup.py", "path"], text=True).strip())
    with tempfile.TemporaryDirectory(prefix="pomona-bench-") as temporary:
        probes = machine(Path(temporary))
        write(OUT, probes, start_up(Path(temporary)) + trainer(cache))


if __name__ == "__main__":
    main()
