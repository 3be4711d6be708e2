"""FID and KID: the distances between pictures in the features of the Inception that everybody reports them in.

Its weights come as one TorchScript file, which StyleGAN2-ADA and most evaluations since use (`inception-2015-12-05.pt`). It
resizes pictures by itself, as the first implementation did, and so the figures compare with published ones.

Legend: N pictures, D numbers of a feature vector.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.evaluation.distribution.distances import LARGEST_RESAMPLED, NUM_RESAMPLES
from components.evaluation.distribution.measure import enter_distances
from components.evaluation.generated import HeldOutPictures
from components.evaluation.images import in_batches
from components.evaluation.results import EvaluationTarget, Results
from components.evaluation.training_facts import TrainingFacts
from components.runtime.diagnosis import first_line
from core.files import sha256
from core.png import decode_png

KEY = "evaluate.weights.inception"
NUM_FEATURES = 2048
# Resamples of fewer pictures are too much alike to say how far FID and KID may lie off.
FEWEST = 10
# Pictures of one pass: 299 pixels a side after resizing, whatever they had before.
AT_ONCE = 32


def measure_fid(
    results: Results, target: EvaluationTarget, pictures: HeldOutPictures, training: TrainingFacts, weights: str, seed: int
) -> None:
    """FID, KID, and the same of as many training pictures as their floors. weights: a file's path.

    A note where there is no network or too few pictures; one instead of the floors where the training pictures are fewer; and
    one where pictures are too many for FID's interval.
    """
    path, num = Path(weights), len(pictures.documents)
    device = target.autoencoder.latent_mean.device
    network, why = loaded(path, device) if weights else (None, f"{KEY} is empty")
    if network is None:
        results.notes.append(f"{why}: FID is not run")
        return
    if num < FEWEST:
        results.notes.append(f"FID needs {FEWEST} held-out pictures, and there are {num}: it is not run")
        return
    generated, real = (features_of(network, images, device) for images in (pictures.generated, pictures.real()))
    enter_distances(results, "fid/{}", generated, real, seed)
    if "fid/frechet" not in results.intervals:
        results.notes.append(f"FID of {num} pictures has no interval: with more than {LARGEST_RESAMPLED} it would take hours")
    num_of_floor = num if len(training.pictures) >= num else 0
    if num_of_floor:
        floor = features_of(network, map(decode_png, training.pictures[:num]), device)
        enter_distances(results, "fid/{}_floor", floor, real, seed)
    else:
        results.notes.append(
            f"the floor of FID needs as many training pictures as held-out ones, {num}, and the evaluation has "
            f"{len(training.pictures)}: it is not measured"
        )
    results.facts["fid"] = {
        "weights": path.name,
        "weights_sha256": sha256(path),
        "num_generated_and_held_out_pictures": num,
        "num_training_pictures_of_the_floor": num_of_floor,
        "num_resamples_of_distances": NUM_RESAMPLES,
    }


def loaded(path: Path, device: torch.device) -> tuple[Any, str]:
    """The network of a file and "", or None and why there is none."""
    if not path.is_file():
        return None, f"{KEY}: {path} is not there"
    try:
        network = torch.jit.load(path, map_location=device).eval()
        features = network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device=device), return_features=True)
    except Exception as error:
        # TorchScript has no errors of its own.
        return None, f"{KEY}: {path} is not Inception as one TorchScript file ({first_line(error)[:120]})"
    if features.shape != (1, NUM_FEATURES):
        shape = tuple(features.shape)
        return None, f"{KEY}: {path} gives {shape} numbers for a picture and not (1, {NUM_FEATURES}), so it is not Inception"
    return network, ""


@torch.no_grad()
def features_of(network: Any, images: Iterable[np.ndarray], device: torch.device) -> np.ndarray:
    """Of N images uint8 [height, width, 3]: float64 [N, D]."""
    parts = (torch.from_numpy(part).permute(0, 3, 1, 2) for part in in_batches(images, AT_ONCE))
    return torch.cat([network(part.to(device), return_features=True).cpu() for part in parts]).double().numpy()
