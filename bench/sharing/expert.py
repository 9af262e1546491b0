"""The expert's script: features once into NumPy, then a short loop per trial over them."""

import time

import numpy as np
import torch
from torch import nn

from common import answer, freeze, job, network, normalized, pictures


def extract(frozen, arch: str, x) -> np.ndarray:
    with torch.no_grad():
        return np.concatenate([frozen(normalized(arch, x[at : at + 32])).numpy() for at in range(0, len(x), 32)])


def main() -> None:
    given = job()
    (train_x, train_y), (val_x, val_y) = pictures(given)
    begun, cpu = time.perf_counter(), time.process_time()
    frozen, _, width = network(given)
    freeze(frozen)
    features = extract(frozen, given["arch"], train_x), extract(frozen, given["arch"], val_x)
    extracted = time.perf_counter() - begun
    train, val = (torch.from_numpy(part) for part in features)
    accuracy = []
    for trial in given["trials"]:
        head = nn.Linear(width, given["classes"])
        optimizer = torch.optim.AdamW(head.parameters(), lr=trial["learning_rate"], weight_decay=trial["weight_decay"])
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
    answer(begun, cpu, accuracy=accuracy, extract_seconds=extracted)


main()
