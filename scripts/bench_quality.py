"""The row `quality_gap_points` of bench_sharing.py: whether sharing costs accuracy.

500 pictures of Fashion-MNIST to train on, a grid over the head of EfficientNet-lite0, and the champion's
predictions on all 10,000 test pictures; once shared, once with `share: off`, which runs everything from pixels.
"""

import math

RATES = [0.001, 0.003, 0.01]
DECAYS = [0.0, 0.1]
CHUNK = 1000

# Run by the Python that has NumPy: 75 pictures of each class, and all test pictures named by their class.
PICTURES = """
import gzip, numpy as np, pathlib
from PIL import Image
def read(name, skip, shape):
    data = gzip.decompress(pathlib.Path({source!r}, name + ".gz").read_bytes())
    return np.frombuffer(data, np.uint8, offset=skip).reshape(shape)
target = pathlib.Path({target!r})
x, y = read("train-images-idx3", 16, (-1, 28, 28)), read("train-labels-idx1", 8, -1)
for label in range(10):
    place = target / "few" / f"class{{label}}"; place.mkdir(parents=True)
    for at in np.flatnonzero(y == label)[:75]: Image.fromarray(x[at]).save(place / f"{{at:05}}.png")
x, y = read("t10k-images-idx3", 16, (-1, 28, 28)), read("t10k-labels-idx1", 8, -1)
(target / "test").mkdir()
for at in range(len(y)): Image.fromarray(x[at]).save(target / "test" / f"class{{y[at]}}_{{at:05}}.png")
"""


def grid(house, seed: int, share: str) -> dict:
    """The champion's accuracy on the test pictures, and the trials by validation loss."""
    name = f"quality-{share}-{seed}"
    file = house.folder / "quality.yaml"
    file.write_text(
        f"name: {name}\nbackbone: lite0\ndataset: fashion\nseed: {seed}\nshare: {share}\ntransfer: {{frozen_depth: all}}\n"
        "train: {epochs: 10, batch_size: 32, optimizer: {kind: adamw}, learning_rate: 0.001}\n"
        "search:\n  metric: val/accuracy\n  space:\n"
        f"    train.learning_rate: {{values: {RATES}}}\n    train.optimizer.weight_decay: {{values: {DECAYS}}}\n"
        f"promote: {{model: {name}, alias: champion}}\n"
    )
    house.ask("experiment", "submit", file, "--watch")
    newest = house.ask("experiment", "list")["items"][0]
    trials = house.ask("trial", "list", newest["id"])["items"]
    assert len(trials) == len(RATES) * len(DECAYS) and all(trial["best"] for trial in trials), trials
    order = sorted(trials, key=lambda trial: (-trial["best"]["value"], trial["best"]["tie"], trial["number"]))
    pictures = sorted((house.folder / "test").iterdir())
    right = 0
    for at in range(0, len(pictures), CHUNK):
        answer = house.ask("predict", f"{name}@champion", *pictures[at : at + CHUNK], "--top", 1)
        right += sum(item["classes"][0]["label"] == item["path"].rsplit("/", 1)[-1].split("_")[0] for item in answer["pictures"])
    return {"accuracy": right / len(pictures), "chosen": order[0]["number"], "ranking": [trial["number"] for trial in order]}


def seed(house, number: int) -> tuple:
    """Shared and unshared."""
    pair = tuple(grid(house, number, share) for share in ("auto", "off"))
    gap = 100 * math.fabs(pair[0]["accuracy"] - pair[1]["accuracy"])
    print(f"  quality seed {number}: shared {pair[0]['accuracy']:.4f}, off {pair[1]['accuracy']:.4f}, {gap:.2f} points apart", flush=True)
    return pair
