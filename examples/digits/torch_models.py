"""The four digit classifiers as safetensors, trained with torch; a loop of a few seconds on one core."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from examples.digits.data import HEAVY, VERY_HEAVY, Scans, ink_table, smeared, split
from perch.export.torch_export import to_safetensors
from perch.predictor.torch_layers import Sum, ToIndex


def train_torch(version: str, seed: int) -> bytes:
    """Train one version and return the safetensors file."""
    training = split().training
    torch.set_num_threads(1)  # small matrices gain nothing from more
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if version == "v1":
            few = Scans(training.features[:120], training.digits[:120])
            module = _fitted(nn.Sequential(nn.Linear(64, 10)), few, epochs=80, rate=0.003)
        elif version == "v2":
            module = _fitted(_network(96), training, epochs=60, rate=0.003)
        else:
            module = _with_ink_table(_of_smeared_scans(seed), HEAVY if version == "v3" else VERY_HEAVY)
    return to_safetensors(module, output="logits", metadata={"framework": "torch"})


@cache  # v3 and v4 differ in their tables only
def _of_smeared_scans(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return _fitted(_network(128), smeared(split().training), epochs=15, rate=0.003)


def _network(width: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 10))


def _fitted(module: nn.Sequential, scans: Scans, *, epochs: int, rate: float) -> nn.Sequential:
    features, digits = torch.from_numpy(scans.features), torch.from_numpy(scans.digits)
    optimiser = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=0.01)
    module.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(digits)).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(features[batch]), digits[batch]).backward()
            optimiser.step()
    return module.eval()


def _with_ink_table(module: nn.Sequential, limit: float) -> nn.Sequential:
    """Return a network that adds a row of the ink table to the scores."""
    table = nn.Embedding.from_pretrained(torch.from_numpy(ink_table(limit)))
    return nn.Sequential(Sum(module, [nn.AvgPool1d(64), ToIndex(scale=2.0), table, nn.Flatten()])).eval()
