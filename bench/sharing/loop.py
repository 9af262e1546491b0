"""The plain loop: trial after trial, the frozen blocks in every epoch."""

import copy
import time

import torch
from torch import nn

from common import answer, freeze, job, network, normalized, pictures


def main() -> None:
    given = job()
    (train_x, train_y), (val_x, val_y) = pictures(given)
    arch, batch, classes = given["arch"], given["batch"], given["classes"]
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
                    features = frozen(normalized(arch, train_x[picked]))
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
    answer(begun, cpu, accuracy=accuracy)


main()
