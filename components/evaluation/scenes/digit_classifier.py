"""A digit classifier: an independent reader of 32 x 32 scenes, trained on real scans and on nothing generated.

Each 16 px cell is read alone: a small CNN says empty or which digit; the colour is the one nearest to the mean of the
ink. The CNN learns from scans set into single cells with random colours, shifts, turns, sizes, slants and intensities,
and the slight blur and noise of decoded latents.

Legend: N scenes, G scans, B cells; images are uint8 [N, side, side, 3].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.data.demonstration.scenes import (
    CELL_SIDE_PX,
    COLOURS,
    DIGIT_SIDE_PX,
    PLACES,
    SCENE_SIDE_PX,
    SceneObject,
    load_scans,
)
from components.evaluation.config import DigitClassifierConfig

NUM_DIGITS = 10
# A sum over a batch is cut into as many parts as there are threads, and its rounding with it: with a number of its own the
# classifier is the same on every machine.
NUM_THREADS = 2
EMPTY = NUM_DIGITS
COLOUR_NAMES = tuple(COLOURS)


class Cells(NamedTuple):
    """Cells to learn from."""

    pixels: Tensor
    """float32 [B, 3, 16, 16], about 0..1."""
    digit: Tensor
    colour: Tensor
    """int64 [B]; EMPTY for no digit."""


def train_classifier(scans: Sequence[int], config: DigitClassifierConfig, seed: int) -> DigitClassifier:
    """A classifier that has seen only `scans` (indices into load_scans())."""
    generator = torch.Generator().manual_seed(seed)
    all_scans = load_scans()
    chosen = np.asarray(scans, np.int64)
    intensity = torch.from_numpy(all_scans.intensity[chosen].astype(np.float32))
    digit = torch.from_numpy(all_scans.digit[chosen])
    with _threads(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = DigitClassifier()
        optimiser = torch.optim.AdamW(classifier.parameters(), lr=3e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=config.max_steps, pct_start=0.2)
        for step in range(config.max_steps):
            cells = sample_cells(intensity, digit, config.batch_size, generator)
            loss = F.cross_entropy(classifier(cells.pixels), cells.digit, label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if (step + 1) % 200 == 0:
                print(f"classifier step {step + 1}/{config.max_steps} | loss {loss.item():.3f}", flush=True)
    return classifier.eval()


def sample_cells(intensity: Tensor, digit: Tensor, num_cells: int, generator: torch.Generator) -> Cells:
    """Random training cells from scans: intensity float32 [G, 14, 14], digit int64 [G]."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape or (num_cells,), generator=generator)

    chosen = torch.randint(len(digit), (num_cells,), generator=generator)
    colour = torch.randint(len(COLOUR_NAMES), (num_cells,), generator=generator)
    empty = uniform(0, 1) < 0.1
    margin = (CELL_SIDE_PX - DIGIT_SIDE_PX) // 2
    glyph = F.pad(intensity[chosen], (margin,) * 4) * ~empty[:, None, None]
    angle, slant = uniform(-0.25, 0.25), uniform(-0.15, 0.15)
    width, height = uniform(0.8, 1.2), uniform(0.8, 1.2)
    shift = uniform(-0.15, 0.15, num_cells, 2)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=-1).view(-1, 2, 2)
    stretch = torch.stack([width, slant, torch.zeros(num_cells), height], dim=-1).view(-1, 2, 2)
    grid = F.affine_grid(
        torch.cat([turn @ stretch, shift[:, :, None]], dim=-1),
        [num_cells, 1, CELL_SIDE_PX, CELL_SIDE_PX],
        align_corners=False,
    )
    moved = F.grid_sample(glyph[:, None], grid, align_corners=False)
    inked = moved * uniform(0.6, 1.0, num_cells, 1, 1, 1) * _palette()[colour][:, :, None, None]
    blurred = torch.lerp(inked, _blur(inked), uniform(0, 1, num_cells, 1, 1, 1))
    noise = torch.randn(inked.shape, generator=generator) * uniform(0, 0.08, num_cells, 1, 1, 1)
    return Cells(blurred + noise, torch.where(empty, EMPTY, digit[chosen]), colour)


class DigitClassifier(nn.Module):
    """Reads the four cells of a scene: the digit by a small CNN over their brightness, the colour from their ink."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.digit = nn.Sequential(
            *_convolution(1, width),
            nn.MaxPool2d(2),
            *_convolution(width, 2 * width),
            *_convolution(2 * width, 2 * width),
            nn.MaxPool2d(2),
            *_convolution(2 * width, 4 * width),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(4 * width * (CELL_SIDE_PX // 4) ** 2, 128),
            nn.ReLU(),
            nn.Linear(128, NUM_DIGITS + 1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Cells float32 [B, 3, 16, 16] in 0..1 -> logits of each digit and of EMPTY, [B, 11]."""
        # The brightest channel shows the shape whatever the colour.
        return self.digit(pixels.amax(1, keepdim=True))

    @torch.inference_mode()
    def read(self, images: np.ndarray) -> list[frozenset[SceneObject]]:
        """The objects of each scene: uint8 [N, side, side, 3] -> N sets. Other sides than 32 px are scaled to it."""
        if not len(images):
            return []
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
        if pixels.shape[-1] != SCENE_SIDE_PX:
            pixels = F.interpolate(pixels, (SCENE_SIDE_PX, SCENE_SIDE_PX), mode="bilinear", antialias=True)
        cells = _cut_cells(pixels)
        with _threads():
            digit = torch.cat([self(part).argmax(1) for part in cells.split(1024)]).view(-1, len(PLACES)).tolist()
        colour = colour_of(cells).view(-1, len(PLACES)).tolist()
        return [
            frozenset(SceneObject(d, COLOUR_NAMES[c], place) for d, c, place in zip(*found, PLACES, strict=True) if d != EMPTY)
            for found in zip(digit, colour, strict=True)
        ]


def colour_of(pixels: Tensor) -> Tensor:
    """Cells [B, 3, 16, 16] -> int64 [B], the colour nearest to the mean of the cell's ink, whatever its brightness."""
    # Weighted by brightness, so that neither the black around a digit nor faint noise has a say.
    ink = (pixels * pixels.amax(1, keepdim=True)).sum((2, 3))
    return torch.cdist(ink / ink.amax(1, keepdim=True).clamp(min=1e-6), _palette()).argmin(1)


@contextmanager
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _palette() -> Tensor:
    """float32 [6, 3] in 0..1."""
    return torch.tensor(list(COLOURS.values())).float() / 255


def _convolution(num_in: int, num_out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(num_in, num_out, 3, padding=1, bias=False), nn.BatchNorm2d(num_out), nn.ReLU()


def _blur(pixels: Tensor) -> Tensor:
    """[B, 3, Y, X] smoothed by the binomial 3 x 3 kernel."""
    kernel = torch.tensor([1.0, 2.0, 1.0])
    weight = (kernel[:, None] * kernel / 16).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), weight, groups=3)


def _cut_cells(pixels: Tensor) -> Tensor:
    """[N, 3, 32, 32] -> [N * 4, 3, 16, 16], the cells of a scene in the order of PLACES."""
    num_scenes, per_side = len(pixels), SCENE_SIDE_PX // CELL_SIDE_PX
    grid = pixels.view(num_scenes, 3, per_side, CELL_SIDE_PX, per_side, CELL_SIDE_PX)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, CELL_SIDE_PX, CELL_SIDE_PX)
