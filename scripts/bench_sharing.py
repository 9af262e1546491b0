#!/usr/bin/env python3
"""What a grid pays for the frozen backbone: Pomona against a plain PyTorch loop and an expert's script.

    bench_sharing.py [--rounds N] [--full] [ROW …]

bench/sharing/README.md says who the rivals are. Runs alternate; medians with their range are printed
and written to target/bench/sharing.json. Ours is `pomona up` as it comes, which keeps spare trainers
started; short grids run without them, too, and then all start-up is in our time. Without --full the
plain loop is timed on one trial of one and of two epochs and scaled: `scaled` in the row says so. Every
run of ours begins without features. Five rounds of a row take minutes, of `partial_unfreeze_vs_loop` half an hour or more.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench_quality as quality

ROOT = Path(__file__).resolve().parent.parent
RELEASE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
RIVALS = ROOT / "bench" / "sharing"
OUT = ROOT / "target" / "bench" / "sharing.json"
THREADS = os.cpu_count() or 2
# What a worker gives its ranks (`worker::slots::cpu_environment`), for our programs that run without one.
OURS = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

# What is trained. Learning rates times weight decays make the trials.
JOBS = {
    "resnet18": {"arch": "resnet18", "frozen": "all", "size": 224, "rates": 12, "decays": [0.0, 0.01], "epochs": 10},
    "lite0": {"arch": "efficientnet-lite0", "frozen": "all", "size": 128, "rates": 12, "decays": [0.0, 0.01], "epochs": 10},
    "partial": {"arch": "resnet18", "frozen": "layer3", "size": 224, "rates": 3, "decays": [0.0, 0.01, 0.1], "epochs": 9},
    "views": {"arch": "resnet18", "frozen": "all", "size": 224, "rates": 12, "decays": [0.0, 0.01], "epochs": 10, "views": 10},
    "single": {"arch": "efficientnet-lite0", "frozen": "all", "size": 128, "rates": 1, "decays": [0.01], "epochs": 10},
}
# Jobs of which a trainer's start is a visible part: they run without spare trainers, too.
SHORT = {"resnet18", "lite0", "single"}
# Row → job and rival.
ROWS = {
    "head_only_vs_loop": ("resnet18", "loop"),
    "head_only_vs_expert": ("resnet18", "expert"),
    "head_only_vs_expert_tuned": ("resnet18", "tuned"),
    "head_only_10_views_vs_loop": ("views", "loop"),
    "demo_vs_loop": ("lite0", "loop"),
    "demo_vs_expert": ("lite0", "expert"),
    "partial_unfreeze_vs_loop": ("partial", "loop"),
    "single_trial": ("single", "loop"),
}
# Row → networks whose frozen blocks are timed alone, all frozen, against eager PyTorch in 32-bit floats.
PREFIX_ROWS = {
    "prefix_resnet_vgg": ["resnet18", "resnet50", "vgg16"],
    "prefix_lite0": ["efficientnet-lite0"],
}
# Row → which of the rival's optimisers: heads, features, classes, batch.
HEADS_ROWS = {"fused_heads_64": "default", "fused_heads_64_vs_fused_adamw": "fused"}
HEADS = (64, 512, 10, 64)
QUALITY_SEEDS = 5
# Seconds after which a grid of either side counts as stuck: that of `partial` takes ours several minutes.
GRID_LIMIT = 3600
NOISE_IMAGES = 400
PREFIX_SIDE = 224
PREFIX_SECONDS = 6
BATCH = 32


def setup(word: str) -> Path:
    return Path(subprocess.check_output([sys.executable, ROOT / "scripts/setup.py", word], text=True).strip())


def trials(job: dict) -> list:
    count = job["rates"]
    rates = [1e-4 * 300 ** (i / max(1, count - 1)) for i in range(count)]
    return [{"learning_rate": rate, "weight_decay": decay} for rate in rates for decay in job["decays"]]


class House:
    """A `pomona up`."""

    def __init__(self, folder: Path, python: str, spares: bool = True):
        self.folder, self.python = folder, python
        folder.mkdir(exist_ok=True)
        self.up = subprocess.Popen(
            [RELEASE / "pomona", "--output", "json", "up", "--listen", "127.0.0.1:0", "--data-dir", folder / "data"],
            stdout=subprocess.PIPE, stderr=open(folder / "up.log", "w"), text=True,
            env=os.environ if spares else {**os.environ, "POMONA_WORKER_TRAINER_SPARES": "0"},
        )
        self.server = json.loads(self.up.stdout.readline())["server"]

    def furnish(self) -> "House":
        """The data and backbones of all jobs."""
        cache, folder = setup("path"), self.folder
        resnet = folder / "resnet18.pth"
        self.script(f"import torch, torchvision; torch.manual_seed(0); torch.save(torchvision.models.resnet18().state_dict(), {str(resnet)!r})")
        self.weights = {"resnet18": resnet, "efficientnet-lite0": cache / "weights/efficientnet-lite0.pth"}
        for arch, weights in self.weights.items():
            self.ask("backbone", "add", arch, "--arch", arch, "--weights", weights)
        noise = folder / "noise"
        self.script(
            "import numpy as np, pathlib; from PIL import Image; rng = np.random.default_rng(0)\n"
            f"for n in range({NOISE_IMAGES}):\n  p = pathlib.Path({str(noise)!r}) / f'class{{n % 4}}'; p.mkdir(parents=True, exist_ok=True)\n"
            "  Image.fromarray(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(p / f'{n:03}.png')"
        )
        self.pictures, self.sources, self.counts = {}, {}, {}
        for size, source in [(224, noise), (128, cache / "tux")]:
            self.ask("dataset", "add", f"set{size}", source, "--image-size", size, "--split", "60/20/20", "--seed", 0)
            self.pictures[size] = self.decoded(size, source)
            self.sources[size] = source
        return self

    def script(self, text: str) -> None:
        subprocess.run([self.python, "-c", text], check=True)

    def ask(self, *words):
        done = subprocess.run([RELEASE / "pomona", "--server", self.server, "--output", "json", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=GRID_LIMIT)
        if done.returncode:
            sys.exit(f"pomona {' '.join(map(str, words))}: {done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def decoded(self, size: int, source: Path) -> Path:
        """The same pictures, in the same split, as a rival has them in memory."""
        target = self.folder / f"set{size}.npz"
        parts = {}
        for part in ("train", "val"):
            samples = self.ask("dataset", "show", f"set{size}", "--samples", part)["samples"]
            self.counts.setdefault(size, {})[part] = len(samples)
            parts[part] = [[str(source / sample["path"]), sample["label"]] for sample in samples]
        listing = self.folder / f"set{size}.json"
        listing.write_text(json.dumps(parts))
        self.script(
            "import json, numpy as np; from PIL import Image; arrays = {}\n"
            "def square(path):\n"
            "  image = Image.open(path).convert('RGBA'); side = max(image.size); page = Image.new('RGBA', (side, side), 'white')\n"
            f"  page.alpha_composite(image, ((side - image.width) // 2, (side - image.height) // 2)); return np.asarray(page.convert('RGB').resize(({size}, {size}), Image.BILINEAR))\n"
            f"for part, samples in json.load(open({str(listing)!r})).items():\n"
            "  arrays[part + '_x'] = np.stack([square(path) for path, _ in samples]); arrays[part + '_y'] = np.array([label for _, label in samples], dtype=np.int64)\n"
            f"np.savez({str(target)!r}, **arrays)"
        )
        return target

    def cpu(self) -> float:
        """CPU seconds of everything under `up`, ended children counted in."""
        pids = [self.up.pid, *map(int, subprocess.check_output(["ps", "--ppid", str(self.up.pid), "-o", "pid="], text=True).split())]
        ticks = sum(sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:15])) for pid in pids)
        return ticks / os.sysconf("SC_CLK_TCK")

    def ours(self, job: dict) -> dict:
        self.ask("feature", "evict", "--all")
        rates = sorted({trial["learning_rate"] for trial in trials(job)})
        augment = f", augment: {{views: {job['views']}, ops: [horizontal_flip, random_resized_crop]}}" if "views" in job else ""
        file = self.folder / "grid.yaml"
        file.write_text(
            f"name: bench\nbackbone: {job['arch']}\ndataset: set{job['size']}\n"
            f"transfer: {{frozen_depth: {job['frozen']}}}\n"
            f"train: {{epochs: {job['epochs']}, batch_size: {BATCH}, optimizer: {{kind: adamw}}, learning_rate: 0.001{augment}}}\n"
            f"search:\n  metric: val/accuracy\n  validation: holdout\n  max_concurrent: {len(trials(job))}\n  space:\n"
            f"    train.learning_rate: {{values: {rates}}}\n    train.optimizer.weight_decay: {{values: {job['decays']}}}\n"
        )
        begun, cpu = time.perf_counter(), self.cpu()
        self.ask("experiment", "submit", file, "--watch")
        seconds = time.perf_counter() - begun
        newest = self.ask("experiment", "list")["items"][0]
        states = [trial["state"] for trial in self.ask("trial", "list", newest["id"])["items"]]
        assert states == ["completed"] * len(trials(job)), states
        return {"seconds": seconds, "cpu_seconds": self.cpu() - cpu}

    def rival(self, name: str, job: dict, count: int | None = None, epochs: int | None = None) -> dict:
        given = self.folder / "job.json"
        given.write_text(json.dumps({
            "arch": job["arch"], "frozen": job["frozen"], "weights": str(self.weights[job["arch"]]), "pictures": str(self.pictures[job["size"]]),
            "classes": 4 if job["size"] == 224 else 6, "batch": BATCH, "threads": THREADS, "epochs": epochs or job["epochs"],
            "trials": trials(job)[:count], "tuned": name == "tuned", "crops": "views" in job,
        }))
        script = RIVALS / ("loop.py" if name == "loop" else "expert.py")
        return json.loads(subprocess.check_output([self.python, script, given], text=True, timeout=GRID_LIMIT).strip().splitlines()[-1])

    def loop(self, job: dict, full: bool) -> dict:
        """All of it, or what one trial of one and of two epochs say of it."""
        if full:
            return self.rival("loop", job)
        one, two = (self.rival("loop", job, 1, epochs) for epochs in (1, 2))
        scaled = {}
        for key in ("seconds", "cpu_seconds"):
            epoch = two[key] - one[key]
            scaled[key] = len(trials(job)) * (one[key] - epoch + job["epochs"] * epoch)
        return scaled

    def close(self) -> None:
        self.up.send_signal(signal.SIGTERM)
        self.up.wait(60)


def bound(house: House, job: dict) -> float:
    """Seconds that a grid must take on this machine: D + K·P + E·L + 3S·G·E, each from our own programs in this run
    (pixels are kept once decoded; to cut views out of them counts nothing). D and P use all cores; what trains (3S, and
    L, the gather, which is in it) is split over the slots. Evaluation of what is above a cut counts, that of heads is
    too little."""
    source = house.sources[job["size"]]
    counts = house.counts[job["size"]]
    decode = THREADS * json.loads(subprocess.check_output([RELEASE / "examples" / "pipeline", source, str(job["size"])], text=True))["images_per_second"]
    whole = job["frozen"] == "all"
    prefix = prefix_rate(job["arch"] if whole else f"{job['arch']}/{job['frozen']}", job["size"])
    steps = job["epochs"] * -(-counts["train"] // BATCH)
    frozen = sum(counts.values()) / decode + (job.get("views", 1) * counts["train"] + counts["val"]) / prefix
    if not whole:
        said = together("suffix", job["arch"], job["frozen"], job["size"], BATCH, PREFIX_SECONDS)
        step = statistics.mean(one["step_seconds"] for one in said)
        evaluated = statistics.mean(one["evaluated_per_second"] for one in said)
        return frozen + len(trials(job)) / THREADS * (steps * step + job["epochs"] * counts["val"] / evaluated)
    heads = max(1, len(trials(job)) // THREADS)
    shape = (heads, {"resnet18": 512, "efficientnet-lite0": 1280}[job["arch"]], 4 if job["size"] == 224 else 6, BATCH, 1, 100)
    step = json.loads(subprocess.check_output([RELEASE / "examples" / "heads", *map(str, shape)], text=True, env=OURS))["seconds"]
    return frozen + steps * step


def measure(house: House, bare: House, row: str, rounds: int, full: bool) -> dict:
    """A row; `bare` has no spare trainers, so that there all start-up is inside our time."""
    name, rival = ROWS[row]
    job = JOBS[name]
    full = full or name == "single"
    ours, theirs, least, without = [], [], [], []
    for number in range(rounds):
        # Beside each of our runs: this machine is not as fast in one minute as in another.
        least.append(bound(house, job))
        ours.append(house.ours(job))
        if name in SHORT:
            without.append(bare.ours(job))
        theirs.append(house.loop(job, full) if rival == "loop" else house.rival(rival, job))
        print(f"  {row} round {number + 1}: ours {ours[-1]['seconds']:.2f} s, {rival} {theirs[-1]['seconds']:.2f} s", flush=True)
    middle = lambda runs, key: statistics.median(run[key] for run in runs)
    mine, other = middle(ours, "seconds"), middle(theirs, "seconds")
    near = lambda runs: round(statistics.median(one / run["seconds"] for one, run in zip(least, runs)), 3)
    return {
        "id": row, "unit": "s", "ours": round(mine, 3), "rival": round(other, 3), "ratio": round(other / mine, 2),
        "bound": round(statistics.median(least), 3), "of_bound": near(ours),
        "scaled": rival == "loop" and not full,
        "cpu_seconds": {"ours": round(middle(ours, "cpu_seconds"), 2), "rival": round(middle(theirs, "cpu_seconds"), 2)},
        "runs": {"ours": [round(run["seconds"], 3) for run in ours], "rival": [round(run["seconds"], 3) for run in theirs], "bound": [round(one, 3) for one in least]},
        **({"without_spares": {"seconds": round(middle(without, "seconds"), 3), "of_bound": near(without), "runs": [round(run["seconds"], 3) for run in without]}} if without else {}),
        **logistic(theirs, mine),
    }


def logistic(theirs: list, mine: float) -> dict:
    """What scikit-learn's fits took in place of the torch loop, the features it needs first counted in."""
    if "logistic" not in theirs[0]:
        return {}
    seconds = [run["extract_seconds"] + run["logistic"]["seconds"] for run in theirs]
    middle = statistics.median(seconds)
    return {"logistic": {
        "seconds": round(middle, 3), "ratio": round(middle / mine, 2),
        "accuracy": round(max(theirs[0]["logistic"]["accuracy"]), 4), "iterations": theirs[0]["logistic"]["iterations"],
        "runs": [round(run, 3) for run in seconds], "fit_runs": [round(run["logistic"]["seconds"], 3) for run in theirs],
    }}


def measure_heads(python: str, row: str, rounds: int) -> dict:
    """Milliseconds for a step of all heads: ours and a torch loop, each with its best number of threads."""
    ours, theirs = [], []
    ours_of = lambda threads: json.loads(subprocess.check_output([RELEASE / "examples" / "heads", *map(str, HEADS), str(threads), "200"], text=True, env=OURS))["seconds"]
    rival_of = lambda threads: json.loads(subprocess.check_output([python, RIVALS / "heads.py", *map(str, HEADS), str(threads), "20"], text=True))[HEADS_ROWS[row]]
    for number in range(rounds):
        ours.append(1000 * min(ours_of(threads) for threads in {1, THREADS}))
        theirs.append(1000 * min(rival_of(threads) for threads in {1, THREADS}))
        print(f"  {row} round {number + 1}: ours {ours[-1]:.2f} ms, torch {theirs[-1]:.2f} ms a step", flush=True)
    mine, other = statistics.median(ours), statistics.median(theirs)
    return {
        "id": row, "unit": "ms/step", "ours": round(mine, 3), "rival": round(other, 3), "ratio": round(other / mine, 2), "bound": None, "of_bound": None, "scaled": False,
        "runs": {"ours": [round(run, 3) for run in ours], "rival": [round(run, 3) for run in theirs]},
    }


def prefix_rate(arch: str, side: int = PREFIX_SIDE) -> float:
    """Images a second of ours, as a worker's slots have it: a process with one thread for each core."""
    return sum(said["images_per_second"] for said in together("prefix", arch, side, 1, PREFIX_SECONDS))


def together(program: str, *words) -> list:
    """What a program of ours measures, run as often as there are cores, all beginning at the same time."""
    words = [RELEASE / "examples" / program, *map(str, words)]
    processes = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=OURS) for _ in range(THREADS)]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return [json.loads(process.communicate()[0]) for process in processes]


def measure_prefix(python: str, row: str, rounds: int) -> dict:
    """Geometric means over the row's networks of their medians, and of what each network gains."""
    nets = PREFIX_ROWS[row]
    ours, theirs, threads = {net: [] for net in nets}, {net: [] for net in nets}, {}
    for number in range(rounds):
        for net in nets:
            ours[net].append(prefix_rate(net))
            said = json.loads(subprocess.check_output([python, RIVALS / "eager.py", net, str(PREFIX_SIDE), str(PREFIX_SECONDS)], text=True))
            theirs[net].append(said["images_per_second"])
            threads[net] = said["threads"]
            print(f"  {row} round {number + 1}: {net}: ours {ours[net][-1]:.1f}, eager {theirs[net][-1]:.1f} images/s ({threads[net]} threads)", flush=True)
    middle = lambda runs: statistics.geometric_mean(statistics.median(runs[net]) for net in nets)
    rounded = lambda runs: {net: [round(rate, 2) for rate in runs[net]] for net in nets}
    return {
        "id": row, "unit": "images/s", "ours": round(middle(ours), 3), "rival": round(middle(theirs), 3), "ratio": round(middle(ours) / middle(theirs), 2), "bound": None, "of_bound": None,
        "scaled": False,
        "ratios": {net: round(statistics.median(ours[net]) / statistics.median(theirs[net]), 2) for net in nets},
        "processes": {"ours": THREADS, "rival": 1}, "threads": {"ours": 1, "rival": threads},
        "runs": {"ours": rounded(ours), "rival": rounded(theirs)},
    }


def start_seconds() -> float:
    """A trainer's start alone: the program, libtorch, and the way out."""
    def once() -> float:
        begun = time.perf_counter()
        subprocess.run([RELEASE / "pomona-trainer", "gpus"], stdout=subprocess.DEVNULL, check=True, env=OURS)
        return time.perf_counter() - begun
    return statistics.median(once() for _ in range(5))


def span(runs) -> str:
    """`1.84 (1.72 to 2.01)`."""
    return f"{statistics.median(runs):.2f} ({min(runs):.2f} to {max(runs):.2f})"


def measure_quality(python: str) -> dict:
    """Test accuracy of the grid's champion on 10,000 pictures, shared against `share: off`, by seed."""
    folder = Path(tempfile.mkdtemp(prefix="pomona-bench-"))
    house = House(folder, python)
    try:
        house.script(quality.PICTURES.format(source=str(setup("path") / "fashion"), target=str(folder)))
        house.ask("backbone", "add", "lite0", "--arch", "efficientnet-lite0", "--weights", setup("path") / "weights/efficientnet-lite0.pth")
        house.ask("dataset", "add", "fashion", folder / "few", "--image-size", 64, "--split", "66/30/4", "--seed", 0)
        found = [quality.seed(house, seed) for seed in range(QUALITY_SEEDS)]
    finally:
        house.close()
        shutil.rmtree(folder, ignore_errors=True)
    gaps = [round(100 * abs(shared["accuracy"] - alone["accuracy"]), 3) for shared, alone in found]
    mean = lambda side: round(100 * statistics.mean(pair[side]["accuracy"] for pair in found), 3)
    return {
        "id": "quality_gap_points", "unit": "points", "ours": mean(0), "rival": mean(1), "ratio": max(gaps), "bound": None, "of_bound": None, "scaled": False,
        "same_ranking": all(shared["ranking"] == alone["ranking"] for shared, alone in found),
        "runs": {"gaps": gaps, "shared": [pair[0] for pair in found], "off": [pair[1] for pair in found]},
    }


def shrink() -> None:
    """A fraction of everything, to see in a minute that all paths work. The numbers mean nothing."""
    global NOISE_IMAGES
    NOISE_IMAGES = 40
    for job in JOBS.values():
        job["epochs"], job["rates"] = min(job["epochs"], 2), min(job["rates"], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("rows", nargs="*", metavar="ROW")
    arguments = parser.parse_args()
    if arguments.small:
        shrink()
    known = [*ROWS, *HEADS_ROWS, *PREFIX_ROWS, "quality_gap_points"]
    unknown = set(arguments.rows) - set(known)
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    wanted = arguments.rows or known
    python = str(setup("rivals-python"))
    rows = [measure_prefix(python, row, arguments.rounds) for row in wanted if row in PREFIX_ROWS]
    rows += [measure_heads(python, row, arguments.rounds) for row in wanted if row in HEADS_ROWS]
    rows += [measure_quality(python) for row in wanted if row == "quality_gap_points"]
    grids = [row for row in wanted if row in ROWS]
    if grids:
        folder = Path(tempfile.mkdtemp(prefix="pomona-bench-"))
        houses = [House(folder / name, python, spares) for name, spares in (("usual", True), ("bare", False))]
        try:
            for house in houses:
                house.furnish()
            rows += [measure(*houses, row, arguments.rounds, arguments.full) for row in grids]
        finally:
            for house in houses:
                house.close()
            shutil.rmtree(folder, ignore_errors=True)
    versions = json.loads(subprocess.check_output([python, "-c", "import json, torch, torchvision, numpy, sklearn; print(json.dumps({module.__name__: module.__version__ for module in (torch, torchvision, numpy, sklearn)}))"], text=True))
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), platform.machine())
    result = {"machine": {"cpu": cpu, "cores": os.cpu_count(), "load": os.getloadavg()[0]}, "versions": {"python": platform.python_version(), **versions}, "start_seconds": round(start_seconds(), 3), "rows": rows}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{'row':<30} {'ours, median (range)':<24} {'rival':<30} ratio")
    for row in rows:
        if row["id"] == "quality_gap_points":
            print(f"{row['id']:<28} shared {row['ours']:.2f} %, off {row['rival']:.2f} %: at most {row['ratio']:.2f} points apart; same ranking: {row['same_ranking']}")
            continue
        scaled = " (the rival's time is scaled)" if row["scaled"] else ""
        of_bound = f", {row['of_bound']:.2f} of the bound" if row["of_bound"] else ""
        if row["id"] in PREFIX_ROWS:
            sides = (f"{row['ours']:.1f}", f"{row['rival']:.1f}")
        else:
            sides = (span(row["runs"]["ours"]), span(row["runs"]["rival"]))
        print(f"{row['id']:<30} {sides[0]:<24} {sides[1]:<30} {row['ratio']:.1f}×, {row['unit']}{of_bound}{scaled}")
        if "cpu_seconds" in row:
            print(f"{'  CPU seconds':<30} {row['cpu_seconds']['ours']:<24} {row['cpu_seconds']['rival']}")
        if "without_spares" in row:
            print(f"{'  without spare trainers':<30} {span(row['without_spares']['runs']):<24} {'':<30} {row['without_spares']['of_bound']:.2f} of the bound")
        if "logistic" in row:
            print(f"{'  with scikit-learn':<30} {'':<24} {span(row['logistic']['runs']):<30} {row['logistic']['ratio']:.1f}×, {row['unit']}")
    print(f"start of a trainer, inside our time without spare trainers: {result['start_seconds']:.2f} s")
    print(f"written to {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    try:
        main()
    except subprocess.TimeoutExpired as late:
        sys.exit(f"`{' '.join(map(str, late.cmd))}` did not end within {GRID_LIMIT} s")
