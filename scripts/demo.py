#!/usr/bin/env python3
"""The main job on real data, by commands that a user could type.

Starts `pomona up` on a free port with a temporary data folder, imports EfficientNet-lite0 and Tux
Paint's photographs, runs a grid of 24 trials, promotes the best checkpoint, pulls it, predicts with
it, trains once more over two ranks, and stops cleanly. Ends with a summary, and writes it as JSON to
target/demo/summary.json. With --seeds it then runs the grid's head-only part on the other split
seeds, 1 to 4, and adds the mean test accuracy.

Every figure comes from this run: read from the commands' own JSON answers.
"""

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
POMONA = TARGET / "release" / "pomona"
EXAMPLES = "config/examples"
OUT = ROOT / "target" / "demo"
SEEDS = range(1, 5)
BOLD, DIM, GREEN, END = ("\033[1m", "\033[2m", "\033[32m", "\033[0m") if sys.stdout.isatty() else ("",) * 4


def cache() -> Path:
    return Path(subprocess.check_output([sys.executable, ROOT / "scripts/setup.py", "path"], text=True).strip())


def title(text: str) -> None:
    print(f"\n{BOLD}{text}{END}", flush=True)


class Session:
    """A running `pomona up`, and the commands typed at it."""

    def __init__(self, folder: Path):
        self.log = open(folder / "up.log", "w")
        command = [str(POMONA), "--output", "json", "up", "--listen", "127.0.0.1:0", "--data-dir", str(folder / "data")]
        print(f"{DIM}$ pomona up --listen 127.0.0.1:0 --data-dir {folder / 'data'}{END}", flush=True)
        self.up = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True, cwd=ROOT)
        line = self.up.stdout.readline()
        if not line:
            sys.exit(f"pomona up did not start; its words are in {folder / 'up.log'}:\n{(folder / 'up.log').read_text()}")
        self.server = json.loads(line)["server"]
        print(f"{DIM}listening on {self.server}{END}")

    def run(self, *words: str, json_answer: bool = False):
        """Types a command; its talk goes to the terminal. Gives its JSON answer if asked to."""
        shown = " ".join(shlex.quote(str(word)) for word in words)
        print(f"{DIM}$ pomona {shown}{END}", flush=True)
        return self.ask(*words) if json_answer else self.call(*words)

    def call(self, *words: str) -> None:
        done = subprocess.run([str(POMONA), "--server", self.server, *map(str, words)], cwd=ROOT)
        if done.returncode:
            raise SystemExit(f"`pomona {words[0]} {words[1]}` ended with {done.returncode}")

    def ask(self, *words: str):
        """The JSON answer of a command."""
        done = subprocess.run(
            [str(POMONA), "--server", self.server, "--output", "json", *map(str, words)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )
        if done.returncode:
            raise SystemExit(f"`pomona {words[0]} {words[1]}` ended with {done.returncode}: {done.stdout}")
        return json.loads(done.stdout)

    def stop(self) -> bool:
        self.up.send_signal(signal.SIGTERM)
        try:
            clean = self.up.wait(60) == 0
        except subprocess.TimeoutExpired:
            self.up.kill()
            clean = False
        self.log.close()
        return clean


def folder_digest(folder: Path) -> str:
    """A version's digest, computed again from pulled files by nobody's code but Python's. Its signature
    lies beside them and is not one of them."""
    files = [
        {"path": str(file.relative_to(folder)), "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": file.stat().st_size}
        for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "model.sig"
    ]
    files.sort(key=lambda file: file["path"])
    canonical = json.dumps(files, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def trials_of(session: Session, experiment: str) -> list:
    return session.ask("trial", "list", experiment)["items"]


def submit(session: Session, file: str, *settings: str) -> dict:
    """Submits and watches on the terminal; gives the experiment as it ended."""
    before = {item["id"] for item in session.ask("experiment", "list")["items"]}
    words = [word for setting in settings for word in ("--set", setting)]
    session.run("experiment", "submit", f"{EXAMPLES}/{file}", *words, "--watch")
    new = [item for item in session.ask("experiment", "list")["items"] if item["id"] not in before]
    assert len(new) == 1, "one submission makes one experiment"
    return session.ask("experiment", "show", new[0]["id"])


def add_dataset(session: Session, name: str, seed: int) -> None:
    session.run(
        "dataset", "add", name, cache() / "tux", "--image-size", "128", "--split", "60/20/20",
        "--seed", seed, "--group-pattern", "_mirror$",
    )


def version_of(session: Session, model: str) -> dict:
    return session.ask("model", "show", model)["versions"][0]


def chosen_trial(trials: list, version: dict) -> dict:
    return next(trial for trial in trials if trial["id"] == version["trial"])


def main_run(session: Session, folder: Path) -> dict:
    title("1  A pretrained backbone and a folder of photographs")
    session.run("backbone", "add", "efficientnet-lite0", "--arch", "efficientnet-lite0", "--weights", cache() / "weights/efficientnet-lite0.pth")
    add_dataset(session, "tux", 0)

    title("2  A grid of 24 trials")
    session.run("experiment", "preview", f"{EXAMPLES}/demo-grid.yaml")
    experiment = submit(session, "demo-grid.yaml")
    session.run("experiment", "show", experiment["id"])
    trials = trials_of(session, experiment["id"])
    version = version_of(session, "tux")
    best = chosen_trial(trials, version)

    title("3  The champion, as a pipeline pulls it")
    pulled = folder / "pulled"
    session.run("model", "pull", "tux@champion", pulled)
    manifest = session.ask("dataset", "show", "tux", "--samples", "test")["samples"]
    pictures = [cache() / "tux" / sample["path"] for sample in manifest[:: max(1, len(manifest) // 4)]][:4]
    session.run("predict", "tux@champion", *pictures)
    prediction = session.ask("predict", "tux@champion", pictures[0])["pictures"][0]

    title("4  The same head over two ranks")
    two = submit(session, "demo-two-ranks.yaml")
    two_trial = trials_of(session, two["id"])[0]
    session.run("model", "register", "tux-two-ranks", "--trial", two_trial["id"])
    two_version = version_of(session, "tux-two-ranks")

    states = [trial["state"] for trial in trials]
    champion = session.ask("model", "show", "tux")
    return {
        "trials": len(trials),
        "completed": states.count("completed"),
        "failed": states.count("failed"),
        "seconds": None,
        "best": {
            "trial": best["id"],
            "hparams": best["hparams"],
            "metrics": {
                "val/accuracy": best["best"]["metrics"]["val/accuracy"],
                "test/accuracy": version["metrics"]["test/accuracy"],
            },
        },
        "model": {
            "name": "tux", "version": version["number"],
            "alias": next(alias["alias"] for alias in champion["aliases"] if alias["number"] == version["number"]),
            "digest": version["digest"],
        },
        "pulled_digest": folder_digest(pulled),
        "prediction": {
            "file": str(Path(pictures[0]).relative_to(cache() / "tux")),
            "label": prediction["classes"][0]["label"],
            "probability": prediction["classes"][0]["probability"],
        },
        "two_ranks": {
            "world_size": int(two_trial["environment"]["world_size"]),
            "test/accuracy": two_version["metrics"]["test/accuracy"],
        },
    }


def seeds_run(session: Session, summary: dict) -> dict:
    """The chosen trial's test accuracy by split seed: 0 from the grid, 1 to 4 from head-only grids."""
    title("5  The other split seeds")
    seeds = {"0": summary["best"]["metrics"]["test/accuracy"]}
    for seed in SEEDS:
        add_dataset(session, f"tux-seed-{seed}", seed)
        submit(session, "demo-head-only.yaml", f"dataset=tux-seed-{seed}", f"promote.model=tux-seed-{seed}")
        seeds[str(seed)] = version_of(session, f"tux-seed-{seed}")["metrics"]["test/accuracy"]
    seeds["mean"] = sum(seeds.values()) / len(seeds)
    return seeds


def farewell(summary: dict, trials: list, keep: Path) -> None:
    best, model = summary["best"], summary["model"]
    guess = summary["baseline"]["largest_class"]
    title("What this run did")
    print(f"  {GREEN}{summary['completed']} of {summary['trials']} trials{END} completed in {summary['seconds']:.0f} s, {summary['failed']} failed")
    print(f"  best on validation   {best['metrics']['val/accuracy']:.3f}   " + ", ".join(f"{key.split('.')[-1]}={value}" for key, value in best["hparams"].items()))
    print(f"  its test accuracy    {best['metrics']['test/accuracy']:.3f}   (always guessing the largest class: {guess:.3f}; median trial on validation: {summary['baseline']['median_val']:.3f})")
    print(f"  over two ranks       {summary['two_ranks']['test/accuracy']:.3f}")
    if "seeds" in summary:
        print(f"  mean over 5 splits   {summary['seeds']['mean']:.3f}   " + "  ".join(f"{key}: {value:.3f}" for key, value in summary["seeds"].items() if key != "mean"))
    print(f"  in the registry      {model['name']}@{model['alias']} = version {model['version']}, {model['digest'][:19]}…")
    same = "the same digest, computed again from the files" if summary["pulled_digest"] == model["digest"] else "A DIFFERENT DIGEST"
    print(f"  pulled to            {keep.relative_to(ROOT)}   ({same})")
    print(f"  a test photograph    {summary['prediction']['file']} → {summary['prediction']['label']} ({summary['prediction']['probability']:.0%})")
    print(f"\n  summary: {(OUT / 'summary.json').relative_to(ROOT)}")
    title("What to try next")
    program = POMONA.relative_to(ROOT) if POMONA.is_relative_to(ROOT) else POMONA
    print(f"  {program.parent} holds the programs: put it on your PATH, then")
    for command, why in [
        ("pomona up", "a coordinator and a worker of your own; then, in another terminal:"),
        ("pomona dataset add mine ~/pictures", "a folder with one sub-folder per class"),
        ("pomona experiment preview config/examples/first-experiment.yaml", "what a grid would cost"),
    ]:
        print(f"    {command:<66} {DIM}{why}{END}")
    print(f"    pomona model verify {keep.relative_to(ROOT)} --digest {model['digest']}")


def baseline(session: Session, trials: list) -> dict:
    classes = session.ask("dataset", "show", "tux")["summary"]["classes"]
    tests = [counts[2] for counts in classes.values()]
    values = sorted(trial["best"]["value"] for trial in trials if trial.get("best"))
    return {"largest_class": max(tests) / sum(tests), "median_val": values[len(values) // 2]}


def main() -> None:
    begun = time.monotonic()
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "summary.json").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="pomona-demo-") as temporary:
        folder = Path(temporary)
        session = Session(folder)
        try:
            summary = main_run(session, folder)
            grid = next(item for item in session.ask("experiment", "list")["items"] if item["spec"]["name"] == "tux-grid")
            trials = trials_of(session, grid["id"])
            summary["baseline"] = baseline(session, trials)
            if "--seeds" in sys.argv[1:]:
                summary["seeds"] = seeds_run(session, summary)
        except BaseException:
            shutil.copyfile(folder / "up.log", OUT / "up.log")
            print(f"the words of `pomona up` are in {OUT / 'up.log'}", file=sys.stderr)
            session.stop()
            raise
        title("A clean stop")
        clean = session.stop()
        print(f"  pomona up ended {'cleanly' if clean else 'BADLY'}")
        summary["seconds"] = round(time.monotonic() - begun, 1)
        keep = OUT / "model"
        shutil.rmtree(keep, ignore_errors=True)
        shutil.copytree(folder / "pulled", keep)
        (OUT / "summary.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
        farewell(summary, trials, keep)
        healthy = clean and summary["pulled_digest"] == summary["model"]["digest"] and summary["failed"] == 0
        sys.exit(0 if healthy else 1)


if __name__ == "__main__":
    main()
