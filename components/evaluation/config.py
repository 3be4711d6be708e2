"""Configuration of the evaluation; params.yaml holds all values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from components.bounds import NotNegative, Positive, Seed, at_least, different, rule


def _differ(values: Sequence[object]) -> bool:
    return len(set(values)) == len(values)


AtLeastTwo = Annotated[int, at_least(2)]
Times = Annotated[
    tuple[float, ...],
    rule(lambda times: bool(times) and all(0 < time < 1 for time in times), "must be noise levels between 0 and 1"),
    different("noise levels"),
]
Scales = Annotated[
    tuple[float, ...],
    rule(lambda scales: bool(scales) and all(scale > 0 for scale in scales), "must be scales greater than 0"),
    different("scales"),
]
# Each has a figure of its own, which is a point of a curve over hundredths.
Hundredths = rule(lambda values: _differ([round(100 * value) for value in values]), "must differ by a hundredth at least")
PartOfAll = Annotated[float, rule(lambda share: 0 < share < 1, "must lie between 0 and 1")]


@dataclass(frozen=True, kw_only=True)
class DigitClassifierConfig:
    """Training of the independent digit classifier that reads generated scenes."""

    max_steps: AtLeastTwo
    batch_size: AtLeastTwo
    """Cells a step."""


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """Retrieval by the model's own likelihood: group_size^2 * num_groups passes, and as many more for each noise level."""

    group_size: AtLeastTwo
    """Captions that an image chooses from, and images that a caption does."""
    num_groups: Positive[int]
    """Of held-out images, at most: group_size queries each, one way and the other."""
    noise_levels: Times
    """Times of the paper's cosine schedule; at their signal-to-noise ratios an image's losses are taken, whatever the model's
    own path."""


@dataclass(frozen=True, kw_only=True)
class MemorisationConfig:
    """Looking for copies of training pictures among generated ones."""

    max_training_pictures: Positive[int]
    """Training pictures that each generated one is compared with, at most; spread over all of them where there are more."""
    held_out_share: PartOfAll
    """Of held-out pictures, those that are nearer to a training picture than a generated one may be without being flagged."""


@dataclass(frozen=True, kw_only=True)
class GuidanceSweepConfig:
    """The scores of pictures over several guidance scales."""

    scales: Annotated[Scales, Hundredths]
    """Each with pictures of its own, but for `guidance_scale` itself."""
    num_prompts: Positive[int]
    """Held-out captions, the first of `num_pictures`; a picture of each at each scale."""


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """Networks that others trained, by path; "" leaves the figures that need one out. Nothing is downloaded."""

    inception: str
    """Inception as one TorchScript file, for FID and KID."""
    clip: str
    """The folder of a CLIP model as Hugging Face lays it out, for the CLIP score; needs the extra `clip`."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What the model is evaluated on, and how its pictures are generated."""

    seed: Seed
    """Of prompts, and of all noise that is sampled."""
    num_seen_scenes: Positive[int]
    """Generated scenes that are scored, of pairs seen in training."""
    num_kept_out_scenes: NotNegative[int]
    """The same of pairs kept out of training."""
    num_captions: Positive[int]
    """Held-out real scenes captioned."""
    num_pictures: Positive[int]
    """Held-out captions that a picture is generated for, to be compared with their own."""
    num_training_pictures: AtLeastTwo
    """Training pictures that whiten the features, `num_pictures` at least; the floor is that of the first `num_pictures`."""
    num_loss_images: Positive[int]
    """Held-out images the losses are measured on."""
    max_text_bytes: Positive[int]
    """Held-out prose that bits per byte are measured on, in UTF-8 bytes."""
    guidance_scale: Positive[float]
    """Of the generated scenes."""
    num_solver_steps: Positive[int]
    """Of the generated scenes."""
    loss_times: Times
    """Noise levels in 0..1 at which the held-out diffusion loss is measured."""
    x_0_error_times: Annotated[Times, Hundredths]
    """Times of the paper's cosine schedule; at their signal-to-noise ratios the error of the implied clean latent is measured,
    whatever the model's own path."""
    batch_size: Positive[int]
    """Requests generated together."""
    retrieval: RetrievalConfig
    memorisation: MemorisationConfig
    guidance_sweep: GuidanceSweepConfig
    digit_classifier: DigitClassifierConfig
    weights: WeightsConfig

    def __post_init__(self) -> None:
        if self.num_training_pictures < self.num_pictures:
            raise ValueError(
                f"num_training_pictures: {self.num_training_pictures} must be num_pictures, {self.num_pictures}, at least: the "
                "floor of distances is that of as many training pictures"
            )

    @property
    def most_images(self) -> int:
        """Held-out images that anything here is measured on."""
        retrieved = self.retrieval.group_size * self.retrieval.num_groups
        return max(self.num_loss_images, self.num_captions, self.num_pictures, retrieved)
