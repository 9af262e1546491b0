"""The plain loop: trial after trial, the frozen blocks in every epoch.

With `"crops": true` in the job every training image is cropped and mirrored anew in every epoch, by torchvision.
"""

import copy
import json
import time

import torch
from torch import nn

from common import freeze, job, network, normalized, pictures, spent

# The least share of the area that ours takes, too (services/trainer/src/data/view.rs).
LEAST_AREA = 0.35


def crops(side: int):
    """What makes a batch of a fresh part of each image."""
    from torchvision.transforms import v2

    fresh = v2.Compose([v2.RandomResizedCrop(side, scale=(LEAST_AREA, 1.0), antialias=True), v2.RandomHorizontalFlip()])
    return lambda images: torch.stack([fresh(image) for image in images])


def main() -> None:
    given = job()
    (train_x, train_y), (val_x, val_y) = pictures(given)
    arch, batch, classes = given["arch"], given["batch"], given["classes"]
    augmented = crops(train_x.shape[-1]) if given["crops"] else lambda images: images
    begun, cpu = time.perf_counter(), time.process_time()
    accuracy = []
    for trial in given["trials"]:
        frozen, tuned, width = network(given)
        freeze(frozen)
        live = nn.Sequential(copy.deepcopy(tuned), nn.Linear(width, classes))
        optimizer = torch.optim.AdamW(live.parameters(), lr=trial["learning_rate"], weight_decay=trial["weight_decay"])
        for _ in range(given["epochs"]):
            live.train()
            order = torch.randperm(len(train_x))
            for at in range(0, len(order), batch):
                picked = order[at : at + batch]
                with torch.no_grad():
                    features = frozen(normalized(arch, augmented(train_x[picked])))
                loss = nn.functional.cross_entropy(live(features), train_y[picked])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            live.eval()
            right = 0
            with torch.no_grad():
                for at in range(0, len(val_x), batch):
                    logits = live(frozen(normalized(arch, val_x[at : at + batch])))
                    right += int((logits.argmax(1) == val_y[at : at + batch]).sum())
        accuracy.append(right / len(val_x))
    print(json.dumps({**spent(begun, cpu), "accuracy": accuracy}))


main()
