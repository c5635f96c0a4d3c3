"""Pilot: the cloud network on its own stem against one that starts from the encoder's coefficients.

    python -m export.cloud_stem

The encoder cuts the tile's rotated bands into blocks of 8 x 8 and gives 64 coefficients of each: 256 numbers at an
eighth of the tile's size, where the cloud network works, too. Here both networks learn from the same labelled tiles,
the same number of steps, in float, and are judged on a site left out. The lapped transform is stood in for by its block
transform (8 x 8 DCT): what lies across a block's border moves, what a block holds does not.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.cloud_data import CloudPool, Labelled, firm, load_cloud_pool, scl_targets
from export.cloud_network import CloudUnet, as_cells, macs_per_pixel
from export.clouds import Seen, cross_entropy, pixel_iou
from export.qat_layers import INPUT_SCALE, ConvBlock
from export.train import load_recipe
from payload.clouds import BIN_PX, CloudSettings, input_planes
from payload.rotation import fit, rotate

BLOCK_PX, BANDS = 8, 4
STEPS, BATCH, RATE, SEED = 600, 12, 3e-3, 5
THRESHOLDS = tuple(np.arange(0.1, 0.91, 0.05))

Front = Callable[[NDArray[np.uint16]], NDArray[np.float32]]


def own_planes(dn: NDArray[np.uint16]) -> NDArray[np.float32]:
    """What the gate feeds its network now, [8, T/2, T/2]."""
    planes = input_planes(dn, np.ones(dn.shape[1:], bool), CloudSettings())
    if planes is None:
        planes = np.zeros((2 * BANDS, *(side // BIN_PX for side in dn.shape[1:])), np.uint8)
    return planes.astype(np.float32) * np.float32(INPUT_SCALE)


def coefficients(dn: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Block transform of the rotated bands, companded to about -1..1. [256, T/8, T/8]"""
    valid = np.ones(dn.shape[1:], bool)
    rotated = rotate(dn, valid, fit(dn, valid)).astype(np.float64)
    k, m = np.arange(BLOCK_PX)[:, None], np.arange(BLOCK_PX)[None]
    basis = np.cos(np.pi * (2 * m + 1) * k / (2 * BLOCK_PX)) * np.sqrt(2 / BLOCK_PX)
    basis[0] /= np.sqrt(2)
    n = dn.shape[1] // BLOCK_PX
    blocks = rotated.reshape(BANDS, n, BLOCK_PX, n, BLOCK_PX)
    found = np.einsum("iu,jv,bxuyv->bijxy", basis, basis, blocks).reshape(-1, n, n)
    return (np.sign(found) * np.sqrt(np.abs(found)) / 512.0).astype(np.float32)


def shared(widths: tuple[int, int]) -> CloudUnet:
    """The cloud network with a 1x1 convolution over the encoder's coefficients for a stem."""
    network = CloudUnet(widths, quantised=False)
    network.stem = ConvBlock(BANDS * BLOCK_PX**2, widths[0], 1, quantised=False)
    return network


def learn(network: nn.Module, front: Front, tiles: list[Labelled]) -> None:
    """STEPS batches of tiles of one size each, no tile turned: a turn is not the same in blocks and pixels."""
    inputs = [torch.from_numpy(front(t.dn)) for t in tiles]
    wanted = [[torch.from_numpy(a) for a in scl_targets(t.scl)] for t in tiles]
    sizes = np.array([t.scl.shape[0] for t in tiles])
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, STEPS)
    rng = np.random.default_rng(SEED)
    network.train()
    for _ in range(STEPS):
        alike = np.flatnonzero(sizes == rng.choice(sizes))
        chosen = rng.choice(alike, BATCH)
        logits = as_cells(network(torch.stack([inputs[i] for i in chosen])))
        targets, weights = (torch.stack([wanted[i][k] for i in chosen]) for k in (0, 1))
        optimiser.zero_grad()
        cross_entropy(logits, targets, weights).backward()
        optimiser.step()
        schedule.step()
    network.eval()


def iou_left_out(network: nn.Module, front: Front, tiles: list[Labelled]) -> float:
    """Pixel IoU of cloud at its best threshold: what the features hold, not how they are calibrated."""
    seen = []
    for tile in tiles:
        with torch.no_grad():
            logits = as_cells(network(torch.from_numpy(front(tile.dn))[None]))[0].numpy().astype(np.float64)
        cloud, known = firm(tile.scl)
        cells = (slice(None, None, BIN_PX), slice(None, None, BIN_PX))
        seen.append(Seen(logits, cloud[cells], known[cells], cloud[cells]))  # no witness is asked here
    shown = [(s, s.probability(1.0)) for s in seen]
    return max(pixel_iou([(s, p > t) for s, p in shown]) for t in THRESHOLDS)


def compare(recipe: dict[str, Any], pool: CloudPool, rotation: str) -> dict[str, dict[str, float]]:
    """Both stems on the rotation's folds, the first left out."""
    split = recipe["rotations"][rotation]
    left_out = set(split["folds"][0])
    known = pool.without(set(split["test"]))
    widths = tuple(recipe["widths"])
    result = {}
    for name, make, front in (
        ("own", lambda: CloudUnet(widths, quantised=False), own_planes),
        ("encoder's", lambda: shared(widths), coefficients),
    ):
        torch.manual_seed(SEED)
        network = make()
        learn(network, front, known.without(left_out).labelled)
        stem: Tensor = network.stem.conv.weight
        result[name] = {
            "pixel_iou_left_out": round(iou_left_out(network, front, known.only(left_out).labelled), 4),
            "stem_macs_per_pixel": stem.numel() / BLOCK_PX**2,
            "macs_per_pixel": round(macs_per_pixel(CloudUnet(widths, quantised=False)), 1)
            + (stem.numel() - 2 * BANDS * 16 * widths[0]) / BLOCK_PX**2,
        }
    return result


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m export.cloud_stem", description=__doc__)
    parser.add_argument("--rotation", default="shipped")
    torch.set_num_threads(1)
    table = compare(load_recipe("clouds"), load_cloud_pool(), parser.parse_args(argv).rotation)
    sys.stdout.write(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
