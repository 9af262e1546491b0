"""What both rivals share: pictures, networks under published names, validation."""

import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

MEAN = {"resnet18": [0.485, 0.456, 0.406], "efficientnet-lite0": [127 / 255] * 3}
STD = {"resnet18": [0.229, 0.224, 0.225], "efficientnet-lite0": [128 / 255] * 3}


def job() -> dict:
    """What to run: the path of a JSON file is the only argument."""
    import sys

    given = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(given["threads"])
    torch.manual_seed(0)
    return given


def pictures(given: dict):
    """Bytes as they are in memory after decoding: [N, 3, S, S] and labels, for training and validation."""
    with np.load(given["pictures"]) as file:
        parts = [(torch.from_numpy(file[f"{part}_x"]).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(file[f"{part}_y"])) for part in ("train", "val")]
    return parts


def normalized(arch: str, x):
    mean = torch.tensor(MEAN[arch]).view(1, 3, 1, 1)
    std = torch.tensor(STD[arch]).view(1, 3, 1, 1)
    return (x.float() / 255 - mean) / std


def network(given: dict):
    """The frozen part, what trains above it, and the width of the features."""
    if given["arch"] == "resnet18":
        from torchvision.models import resnet18

        net = resnet18()
        net.load_state_dict(torch.load(given["weights"]))
        stem = [net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3]
        pool = nn.Sequential(net.avgpool, nn.Flatten())
        if given["frozen"] == "all":
            return nn.Sequential(*stem, net.layer4, pool), nn.Sequential(), 512
        return nn.Sequential(*stem), nn.Sequential(net.layer4, pool), 512
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(given["weights"], weights_only=False))

    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net.extract_features(x).mean((2, 3))

    return Features(), nn.Sequential(), 1280


def freeze(module):
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def spent(begun: float, cpu: float) -> dict:
    return {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - cpu}
