"""Images a second of the frozen part in eager PyTorch, 32-bit floats: `eager.py ARCH SIDE SECONDS`.

All numbers of threads are tried once, the best is timed; so it answers with that number, too.
"""

import json
import os
import sys
import time

import torch
from torch import nn

BATCH = 32


def frozen(arch: str):
    torch.manual_seed(0)
    if arch == "efficientnet-lite0":
        from efficientnet_lite_pytorch import EfficientNet

        net = EfficientNet.from_name(arch)
        net.eval()
        return lambda x: net.extract_features(x).mean((2, 3))
    import torchvision

    net = getattr(torchvision.models, arch)()
    if arch == "vgg16":
        net.classifier = net.classifier[:-1]
    else:
        net.fc = nn.Identity()
    return net.eval()


def rate(net, x, seconds: float) -> float:
    begun, images = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        net(x)
        images += len(x)
    return images / (time.perf_counter() - begun)


def main() -> None:
    arch, side, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    net, x = frozen(arch), torch.randn(BATCH, 3, side, side)
    tried = {}
    with torch.no_grad():
        for threads in range(1, (os.cpu_count() or 1) + 1):
            torch.set_num_threads(threads)
            net(x)
            tried[threads] = rate(net, x, seconds / 4)
        best = max(tried, key=tried.get)
        torch.set_num_threads(best)
        print(json.dumps({"images_per_second": rate(net, x, seconds), "threads": best}))


main()
