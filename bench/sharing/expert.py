"""The expert's script: features once into NumPy, then a short loop per trial over them.

The same features go to scikit-learn, too: a fit for each trial, whose time is told apart. With `"tuned": true` in
the job instead: frozen blocks channels-last, in bfloat16 by autocast and compiled, each where a first batch is faster
with it, and the fused AdamW.
"""

import json
import sys
import time
import warnings

import numpy as np
import torch
from torch import nn

from common import freeze, job, network, normalized, pictures, spent

MAX_ITERATIONS = 200


def extract(frozen, arch: str, x) -> np.ndarray:
    with torch.no_grad():
        return np.concatenate([frozen(normalized(arch, x[at : at + 32])).numpy() for at in range(0, len(x), 32)])


def tuned(frozen, arch: str, x):
    """The frozen blocks as they are fastest here, and a word on how that is."""

    def seconds(way) -> float:
        with torch.no_grad():
            way(normalized(arch, x[:32]))
            begun = time.perf_counter()
            way(normalized(arch, x[:32]))
            return time.perf_counter() - begun

    def halved(blocks):
        def run(batch):
            with torch.autocast("cpu", torch.bfloat16):
                return blocks(batch).float()

        return run

    last = frozen.to(memory_format=torch.channels_last)
    ways = {"channels-last": last, "channels-last, bf16": halved(last)}
    try:
        compiled = torch.compile(last)
        seconds(compiled)
        ways["channels-last, compiled"] = compiled
    except Exception as error:  # Whatever a compiler lacks here, the script goes on without.
        print(f"torch.compile does not work here: {type(error).__name__}", file=sys.stderr)
    best = min(ways, key=lambda way: seconds(ways[way]))
    return ways[best], best


def logistic(given: dict, train: tuple, val: tuple) -> dict:
    """Fits of scikit-learn, one for each trial. Its loss is a sum and its penalty that of the weights, so weight decay
    d over n images is C = 1/(d·n); a solver has no learning rate, and trials that differ in that alone are the same."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # How many iterations it took is told; one warning for each fit says no more.
    warnings.simplefilter("ignore", ConvergenceWarning)
    begun, cpu, accuracy, iterations = time.perf_counter(), time.process_time(), [], 0
    for trial in given["trials"]:
        decay = trial["weight_decay"] * len(train[0])
        fit = LogisticRegression(C=1 / decay if decay else np.inf, max_iter=MAX_ITERATIONS).fit(*train)
        accuracy.append(fit.score(*val))
        iterations = max(iterations, int(fit.n_iter_.max()))
    return {**spent(begun, cpu), "accuracy": accuracy, "iterations": iterations}


def main() -> None:
    given = job()
    (train_x, train_y), (val_x, val_y) = pictures(given)
    begun, cpu = time.perf_counter(), time.process_time()
    frozen, _, width = network(given)
    freeze(frozen)
    way = "eager"
    if given.get("tuned"):
        # The search for the best way, and what it compiles, is not counted.
        frozen, way = tuned(frozen, given["arch"], train_x)
        begun, cpu = time.perf_counter(), time.process_time()
    features = extract(frozen, given["arch"], train_x), extract(frozen, given["arch"], val_x)
    extracted = time.perf_counter() - begun
    train, val = (torch.from_numpy(part) for part in features)
    accuracy = []
    for trial in given["trials"]:
        head = nn.Linear(width, given["classes"])
        optimizer = torch.optim.AdamW(head.parameters(), lr=trial["learning_rate"], weight_decay=trial["weight_decay"], fused=given.get("tuned") or None)
        for _ in range(given["epochs"]):
            order = torch.randperm(len(train))
            for at in range(0, len(order), given["batch"]):
                picked = order[at : at + given["batch"]]
                loss = nn.functional.cross_entropy(head(train[picked]), train_y[picked])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                right = int((head(val).argmax(1) == val_y).sum())
        accuracy.append(right / len(val))
    found = {**spent(begun, cpu), "accuracy": accuracy, "extract_seconds": extracted, "way": way}
    if not given.get("tuned"):
        found["logistic"] = logistic(given, (features[0], train_y.numpy()), (features[1], val_y.numpy()))
    print(json.dumps(found))


main()
