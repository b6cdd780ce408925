"""Faults of scanned pages against a torch chain: ``pytest bench/bench_image_augment.py``.

The chain samples each pixel once and draws noise without counters; its draws are made beforehand.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample

from ecgfast.ops import _image_plan as at
from ecgfast.ops.image_augment import ImageAugmentSpec, image_augment

SHAPES = [(32, 3, 300, 300), (8, 3, 1100, 850)]  # (N, C, H, W)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GEOMETRY = dict(rotation_degrees=(-5, 5), crop_area=(0.8, 1.0))
SCAN = dict(blur_px=(1.0, 1.0), light=(0.1, 0.3), contrast=(0.8, 1.2), noise=(2, 8))
SPECS = {
    "cast": ImageAugmentSpec(),
    "geometry": ImageAugmentSpec(**GEOMETRY),
    "scan": ImageAugmentSpec(**GEOMETRY, **SCAN),
    "jpeg": ImageAugmentSpec(**GEOMETRY, **SCAN, jpeg_quality=(60, 60)),
}
TO_LUMA = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)


def uniform(pages: Tensor, ends: tuple[float, float]) -> Tensor:
    """One draw a page, in the range."""
    return ends[0] + (ends[1] - ends[0]) * torch.rand(len(pages), 1, 1, 1, device=pages.device)


def blurred(x: Tensor, sd: float) -> Tensor:
    k = torch.arange(-6, 7, device=x.device)
    weights = torch.softmax(-(k**2) / (2 * sd**2), dim=0)
    planes = torch.nn.functional.pad(x.flatten(0, 1)[:, None], (6, 6, 6, 6), mode="replicate")
    planes = conv2d(conv2d(planes, weights.view(1, 1, 1, 13)), weights.view(1, 1, 13, 1))
    return planes.view_as(x)


def through_jpeg(x: Tensor, quality: int) -> Tensor:
    """Blocks of 8 x 8 by matrix products, in Y, Cb, Cr, without subsampling."""
    height, width = x.shape[2:]
    k, i = torch.arange(8.0)[:, None], torch.arange(8.0)
    cosines = torch.cos((2 * i + 1) * k * math.pi / 16) / 2
    cosines[0] /= math.sqrt(2)
    cosines, to_luma = cosines.to(x.device), TO_LUMA.to(x.device)
    tables = [at.LUMA_STEPS, at.CHROMA_STEPS, at.CHROMA_STEPS]
    steps = np.stack([at.jpeg_steps(table, np.array([quality])) for table in tables])
    steps = torch.from_numpy(steps).float().to(x.device)
    planes = torch.einsum("ij,njhw->nihw", to_luma, 255 * x)
    planes[:, 0] -= 128
    padded = torch.nn.functional.pad(planes, (0, -width % 8, 0, -height % 8), mode="replicate")
    blocks = padded.unfold(2, 8, 8).unfold(3, 8, 8)  # (N, 3, H / 8, W / 8, 8, 8)
    table = steps.view(1, 3, 1, 1, 8, 8)
    blocks = cosines.T @ (torch.round(cosines @ blocks @ cosines.T / table) * table) @ cosines
    planes = blocks.transpose(3, 4).reshape(padded.shape)[..., :height, :width]
    planes[:, 0] += 128
    back = torch.linalg.inv(to_luma)
    return torch.einsum("ij,njhw->nihw", back, planes).clamp(0, 255) / 255


def chain(pages: Tensor, spec: ImageAugmentSpec) -> Tensor:
    """The steps that the specs above switch on, one torch operation after the other."""
    x = pages.float() / 255
    if spec.rotation_degrees != (0.0, 0.0):
        angle = torch.deg2rad(uniform(pages, spec.rotation_degrees)).flatten()
        scale = uniform(pages, spec.crop_area).sqrt().flatten()
        cosine, sine = scale * angle.cos(), scale * angle.sin()
        zero = torch.zeros_like(angle)
        maps = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(-1, 2, 3)
        grid = affine_grid(maps, list(x.shape), align_corners=False)
        x = 1 - grid_sample(1 - x, grid, align_corners=False)  # paper around
    if spec.blur_px[1]:
        x = blurred(x, spec.blur_px[1])
    if spec.light[1]:
        along = torch.linspace(0, 1, x.shape[-1], device=x.device)
        x = x * (1 - uniform(pages, spec.light) * along**2)
    if spec.contrast != (1.0, 1.0):
        x = ((x - 0.5) * uniform(pages, spec.contrast) + 0.5).clamp(0, 1)
    if spec.noise[1]:
        x = (x + uniform(pages, spec.noise) / 255 * torch.randn_like(x)).clamp(0, 1)
    if spec.jpeg_quality is not None:
        x = through_jpeg(x, spec.jpeg_quality[0])
    mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


PROVIDERS = {
    "ecgfast": lambda pages, spec: image_augment(pages, spec, seed=7, mean=MEAN, std=STD),
    "torch": chain,
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("provider", PROVIDERS)
def bench_image_augment(measure, device, shape, name, provider):
    pages = torch.randint(0, 256, shape, dtype=torch.uint8).to(device)
    function = PROVIDERS[provider]
    least = pages.nbytes + 4 * pages.numel()  # bytes read once, floats written once
    measure(lambda x: function(x, SPECS[name]), pages, least_bytes=least)
