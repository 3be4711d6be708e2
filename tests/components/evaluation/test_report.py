"""What an evaluation leaves to look at: pictures and captions for the report, the sample grid, and the meanings."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from components.evaluation.diffusion import DiffusionLosses, DocumentErrors
from components.evaluation.metrics import METRICS, metric_of, table
from components.evaluation.pictures import LAYOUT, sample_grid
from components.evaluation.report import caption_rows, diffusion_rows, shown
from components.evaluation.results import Captioned, GeneratedImage, NearestPair, Results
from core.data_uri import data_uri, picture_uri
from core.files import json_text
from core.sheets import enlarged

# Issue 2, "Done when" 8.
PROMISED = (
    "text_to_image/objects_right",
    "text_to_image/scenes_right",
    "text_to_image/objects_right_kept_out",
    "text_to_image/judge_on_real",
    "image_to_text/objects_right",
    "image_to_text/scenes_right",
    "text/bits_per_byte",
    "text/xz_bits_per_byte",
    "image/diffusion_loss",
    "conditioning/wrong_caption_gap",
)


NO_DOCUMENTS = DocumentErrors((), [], [], [])


def picture(number: int) -> np.ndarray:
    return np.full((32, 32, 3), number, np.uint8)


@pytest.fixture
def results() -> Results:
    return Results(
        metrics={
            "text/bits_per_byte": 2.25,
            "text_to_image/objects_right": 0.5,
            "text_to_image/objects_right_se": 0.0625,
            "image/x0_error/0.98": 0.71875,
            "image/x0_error_of_mean": 0.90625,
        },
        notes=["no <scenes> here"],
        generated=[
            GeneratedImage("seen", picture(i * 10), f"prompt {i}", "nothing", i % 2 == 0) for i in range(LAYOUT.columns + 1)
        ]
        + [GeneratedImage("kept out", picture(200), "a red three top left", "", None)],
        captions=[Captioned(picture(9), ("the <b>truth</b>", "another"), '<script>alert("x")</script>', "sampled", False)],
        nearest_training=[NearestPair(picture(3), picture(4), 0.75, True)],
        diffusion=DiffusionLosses((0.1, 0.9), [1.0, 2.0], [0.5, 0.75], [0.625, 0.875], NO_DOCUMENTS),
        x_0=DiffusionLosses((0.98,), [0.71875], [0.7126], [0.7127], NO_DOCUMENTS),
    )


def test_every_promised_figure_has_a_meaning() -> None:
    assert set(PROMISED) <= set(METRICS)
    assert [figure.key for figure in table(dict.fromkeys(reversed(METRICS), 1.0))] == list(METRICS)


def test_a_figure_by_noise_level_is_known_by_its_key_and_a_standard_error_is_none() -> None:
    assert metric_of("image/x0_error/0.98") is METRICS["image/x0_error/*"]
    assert metric_of("text_to_image/objects_right") is METRICS["text_to_image/objects_right"]
    for other in ("image/x0_error", "text_to_image/objects_right_se", "loss"):
        assert metric_of(other) is None


def test_a_share_is_written_with_its_standard_error(results: Results) -> None:
    written = [(figure.key, figure.text(3)) for figure in table(results.metrics)]
    assert written == [
        ("text_to_image/objects_right", "0.500 +- 0.062"),
        ("text/bits_per_byte", "2.250"),
        ("image/x0_error/0.98", "0.719"),
        ("image/x0_error_of_mean", "0.906"),
    ]


def test_what_is_shown_is_left_for_the_report(results: Results) -> None:
    found = json.loads(json_text(shown(results)))
    assert found["notes"] == results.notes and len(found["generated"]) == len(results.generated)
    (caption,) = found["captions"]
    assert (caption["references"], caption["sampled"]) == (["the <b>truth</b>", "another"], "sampled")
    (pair,) = found["nearest_training"]
    assert (pair["similarity"], pair["flagged"]) == (0.75, True)
    assert np.array_equal(pixels_of(pair["training"]), picture(4)), "small pictures are as they are"
    assert list(caption_rows(results)) == [("the <b>truth</b> / another", '<script>alert("x")</script>', "sampled", "wrong")]


def test_a_large_picture_is_made_small() -> None:
    large = picture_uri(np.full((512, 256, 3), 200, np.uint8))
    assert large.startswith("data:image/jpeg") and pixels_of(large).shape == (128, 64, 3)
    assert abs(int(pixels_of(large)[60, 30, 0]) - 200) < 3
    with pytest.raises(ValueError, match="neither PNG nor JPEG"):
        data_uri(b"GIF89a")


def pixels_of(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_the_grid_shows_every_drawing_enlarged(results: Results) -> None:
    sheet = np.asarray(Image.open(io.BytesIO(sample_grid(results.generated))))
    assert sheet.shape[1] == LAYOUT.columns * LAYOUT.tile[0]
    assert sheet.shape[0] > 3 * LAYOUT.tile[1]
    for entry in results.generated:
        assert (sheet == entry.image[0, 0]).all(-1).sum() >= 128 * 128
    empty = np.asarray(Image.open(io.BytesIO(sample_grid([]))))
    assert (empty != 255).any()


def test_enlarging_repeats_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert np.array_equal(enlarged(image, 128)[::4, ::4], image)
    assert enlarged(image, 128).shape == (128, 128, 3)
    assert enlarged(enlarged(enlarged(image, 128), 256), 256).shape == (256, 256, 3)


def test_the_plot_has_one_row_a_noise_level(results: Results) -> None:
    assert diffusion_rows(results.diffusion)[1] == {"time": 0.9, "loss": 2.0, "right_caption": 0.75, "wrong_caption": 0.875}
    assert diffusion_rows(None) == []
