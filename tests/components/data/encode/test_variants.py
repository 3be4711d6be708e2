"""The views of an image are what they say, and chosen by its content alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from components.data.encode.variants import WHOLE, Views, views_of


def picture(seed: int, side: int = 24) -> np.ndarray:
    print(f"seed {seed}")
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def test_without_wishes_there_is_the_image_alone() -> None:
    image = picture(1)
    (only,) = views_of(image, WHOLE)
    assert np.array_equal(only, image)
    assert WHOLE.number == 1


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crops", [0, 1, 3])
def test_the_first_view_is_the_image_and_the_mirrored_ones_follow(flip: bool, crops: int) -> None:
    image, views = picture(2), Views(flip, crops, 0.75)
    found = views_of(image, views)
    assert len(found) == views.number == (1 + crops) * (2 if flip else 1)
    assert np.array_equal(found[0], image)
    assert all(view.shape == image.shape and view.dtype == np.uint8 for view in found)
    if flip:
        for straight, mirrored in zip(found[: 1 + crops], found[1 + crops :], strict=True):
            assert np.array_equal(mirrored, straight[:, ::-1])
    assert all(np.array_equal(a, b) for a, b in zip(found, views_of(image.copy(), views), strict=True))


def test_a_crop_is_a_part_of_the_image_scaled_back() -> None:
    image = picture(3)
    for crop in views_of(image, Views(False, 5, 0.5))[1:]:
        parts = (Image.fromarray(image[y : y + 12, x : x + 12]) for y in range(13) for x in range(13))
        assert any(np.array_equal(crop, np.asarray(part.resize((24, 24), Image.Resampling.LANCZOS))) for part in parts)


def test_crops_differ_from_image_to_image_and_reach_the_edges() -> None:
    ramp = np.stack([*np.meshgrid(np.arange(8), np.arange(8)), np.zeros((8, 8), int)], axis=-1).astype(np.uint8)
    corners = set()
    for tag in range(200):
        image = ramp.copy()
        image[..., 2] = tag
        crop = views_of(image, Views(False, 1, 0.75))[1]
        corners.add((int(crop[..., 0].min()), int(crop[..., 1].min())))
    assert {corner[0] for corner in corners} == {corner[1] for corner in corners} == {0, 1, 2}


def test_a_crop_of_the_whole_is_the_image() -> None:
    image = picture(4)
    assert np.array_equal(views_of(image, Views(False, 1, 1.0))[1], image)
