"""Fits a line to noisy points by gradient descent, as a trial of Pomona.

What makes it a trial: hyperparameters come as JSON in POMONA_HPARAMS, state is kept in
POMONA_CHECKPOINT_DIR and found there again after a restart, and news are lines of JSON on stdout.
Everything else that is printed goes to the trial's log.
"""

import argparse
import json
import os
import random
import signal
import sys
import time


def tell(**news):
    print(json.dumps({"pomona": news}), flush=True)


def points(seed, count):
    draw = random.Random(seed)
    xs = [draw.uniform(-1.0, 1.0) for _ in range(count)]
    return [(x, 3.0 * x - 1.0 + draw.gauss(0.0, 0.1)) for x in xs]


def loss(weights, data):
    slope, offset = weights
    return sum((slope * x + offset - y) ** 2 for x, y in data) / len(data)


def gradient(weights, data):
    slope, offset = weights
    errors = [(slope * x + offset - y, x) for x, y in data]
    count = len(data)
    return [
        2.0 * sum(error * x for error, x in errors) / count,
        2.0 * sum(error for error, _ in errors) / count,
    ]


def save(path, state):
    # A file that is complete before it has its name: Pomona never packs half of it.
    with open(path + ".part", "w") as file:
        json.dump(state, file)
    os.replace(path + ".part", path)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rate", type=float, required=True)
    rate = arguments.parse_args().rate
    params = json.loads(os.environ["POMONA_HPARAMS"])
    seed = int(os.environ["POMONA_SEED"]) + int(os.environ["POMONA_REPLICATE"])
    train, held_out = points(seed, 200), points(seed + 1000, 50)
    path = os.path.join(os.environ["POMONA_CHECKPOINT_DIR"], "state.json")
    state = {"epoch": 0, "weights": [0.0, 0.0], "speed": [0.0, 0.0]}
    if os.path.exists(path):
        with open(path) as file:
            state = json.load(file)
        print(f"goes on after epoch {state['epoch']}", flush=True)

    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    while state["epoch"] < params["epochs"] and not asked:
        slopes = gradient(state["weights"], train)
        for index, slope in enumerate(slopes):
            speed = params["momentum"] * state["speed"][index] - rate * slope
            state["speed"][index] = speed
            state["weights"][index] += speed
        state["epoch"] += 1
        epoch = state["epoch"]
        metrics = {
            "train/loss": loss(state["weights"], train),
            "val/loss": loss(state["weights"], held_out),
        }
        tell(step=epoch, epoch=epoch, metrics=metrics)
        save(path, state)
        tell(checkpoint={"step": epoch, "epoch": epoch})
        time.sleep(params["pause_s"])
    if asked:
        print("asked to stop", flush=True)


if __name__ == "__main__":
    sys.exit(main())
