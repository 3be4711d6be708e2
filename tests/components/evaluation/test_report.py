"""The report shows what was found, alone and safely: the page, the sample grid, the curves and the meanings."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.evaluation.diffusion import DiffusionLosses, DocumentErrors
from components.evaluation.metrics import METRICS, metric_of, table
from components.evaluation.pictures import LAYOUT, curves, read_history, sample_grid
from components.evaluation.report import RUN_FACTS, diffusion_rows, page, run_facts
from components.evaluation.results import Captioned, GeneratedImage, Results
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


def test_the_page_stands_alone_and_shows_what_was_found(results: Results, tmp_path: Path) -> None:
    html = page(
        results, sample_grid(results.generated), tmp_path, {"Evaluation": {"seed": 17, "loss": {"kind": "<l2>"}}}, "ab" * 32
    )
    for shown in (
        "text/bits_per_byte",
        "2.2500",
        METRICS["text/bits_per_byte"].meaning,
        "no &lt;scenes&gt; here",
        "0.8750",
        "0.5000 +- 0.0625",
        *(f'<td class="number">{value}</td>' for value in ("0.9800", "0.7126", "0.7127", "0.9062")),
    ):
        assert shown in html
    assert "text/xz_bits_per_byte" not in html
    assert "<script>alert" not in html
    assert "<td><code>loss.kind</code></td><td>&quot;&lt;l2&gt;&quot;</td>" in html
    assert f"<code>{'ab' * 6}</code>" in html
    (key,) = re.findall(r'data-evaluation="(\w{64})"', html)
    assert key in run_facts(key, "abc") and "Training run abc, evaluated" in run_facts(key, "abc")
    assert "&lt;script&gt;alert(&quot;x&quot;)" in html
    assert re.findall(r'(?:src|href)="(?!data:)([^"]*)', html) == [RUN_FACTS], "no more than which run it is of"
    assert not re.findall(r"https?://", html)


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


def test_curves_are_drawn_from_the_training_history(tmp_path: Path) -> None:
    assert curves(tmp_path) is None
    path = tmp_path / "history.csv"
    path.write_text("step,loss,image,tokens_per_s\n10,2.5,,100\n20,2.0,2.25,100\n")
    assert read_history(path)["image"] == [None, 2.25]
    alone = curves(tmp_path) or b""
    assert Image.open(io.BytesIO(alone)).size[0] > 400
    (tmp_path / "validation.csv").write_text("step,image\n15,2.5\n")
    assert curves(tmp_path) not in (None, alone), "held-out losses are drawn too"
    path.write_text("step,tokens_per_s\n10,100\n")
    (tmp_path / "validation.csv").unlink()
    assert curves(tmp_path) is None


def test_the_plot_has_one_row_a_noise_level(results: Results) -> None:
    assert diffusion_rows(results.diffusion)[1] == {"time": 0.9, "loss": 2.0, "right_caption": 0.75, "wrong_caption": 0.875}
    assert diffusion_rows(None) == []
