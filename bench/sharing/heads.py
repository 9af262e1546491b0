"""Heads that a torch loop trains one after the other: seconds for a step of all of them.

    heads.py HEADS FEATURES CLASSES BATCH THREADS STEPS
"""

import json
import sys
import time

import torch
from torch import nn

HEADS, FEATURES, CLASSES, BATCH, THREADS, STEPS = map(int, sys.argv[1:])
torch.set_num_threads(THREADS)
torch.manual_seed(0)
x, y = torch.randn(BATCH, FEATURES), torch.arange(BATCH) % CLASSES


def seconds(**options) -> float:
    heads = [nn.Linear(FEATURES, CLASSES) for _ in range(HEADS)]
    optimizers = [torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.01, **options) for head in heads]

    def step():
        for head, optimizer in zip(heads, optimizers):
            loss = nn.functional.cross_entropy(head(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    for _ in range(3):
        step()
    begun = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - begun) / STEPS


print(json.dumps({"default": seconds(), "fused": seconds(fused=True)}))
