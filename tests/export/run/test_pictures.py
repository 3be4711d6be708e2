"""A request's picture is seen as the corpus was, and every other is refused with one sentence."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from core.images import OWN_RULES, TOO_MANY_PIXELS, TOO_MUCH_MEMORY, ImageError, prepare_image, to_square_png
from core.manifest import write_manifest
from core.png import decode_png
from export.run.pictures import read_pixels
from export.run.predictor import PredictOptions, Predictor, Prompt
from model.latents.autoencoder import to_images
from tests.core.made_pictures import BLUE, GREEN, RED, TURNS, encoded, halves, huge_png, icc, quadrants
from tests.export.conftest import png

OPTIONS = PredictOptions(batch_size=1, guidance_scale=1.0, num_solver_steps=1, max_new_tokens=2, seed=0)
SWAPPED = icc(b"RGB ", 1.0, r=GREEN, g=RED, b=BLUE)


def seen(data: bytes, side_px: int = 16) -> np.ndarray:
    """uint8 [side, side, 3], which a test holds equal to what the corpus makes of it."""
    found = to_images(read_pixels(data, side_px, OWN_RULES))[0].numpy()
    assert np.array_equal(found, decode_png(to_square_png(data, side_px)))
    return found


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16"])
@pytest.mark.parametrize("size", [(16, 16), (40, 30), (7, 50)])
def test_pictures_are_prepared_as_the_corpus_was(mode: str, size: tuple[int, int]) -> None:
    assert seen(png(*size, mode=mode)).shape == (16, 16, 3)


@pytest.mark.parametrize("data", [b"", b"GIF89a", png(30, 30)[:200], b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_the_corpus_refuses_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError) as corpus:
        to_square_png(data, 16)
    with pytest.raises(ImageError) as ours:
        read_pixels(data, 16, OWN_RULES)
    assert str(ours.value) == str(corpus.value)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS)
def test_pictures_are_turned_upright(format: str, orientation: int) -> None:
    """Every turn and mirroring of four colours (EXIF 2.3, table 7)."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(TURNS[orientation](np.asarray(quadrants()))))
    found = seen(encoded(stored, format=format, exif=exif, quality=95, lossless=True)).astype(int)
    for (row, column), colour in {(2, 2): (250, 0, 0), (2, 13): (0, 250, 0), (13, 2): (0, 0, 250)}.items():
        assert np.abs(found[row, column] - colour).max() < 40


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_colours_are_converted_to_srgb(format: str) -> None:
    """By a profile that calls sRGB's green primary red and is linear: 128 of 255 of its light is 188 (IEC 61966-2-1)."""
    image = Image.new("RGB", (32, 32), (255, 0, 0))
    image.paste((128, 128, 128), (0, 16, 32, 32))
    found = seen(encoded(image, format=format, icc_profile=SWAPPED, quality=95, lossless=True), 32).astype(int)
    assert np.abs(found[4, 4] - (0, 255, 0)).max() < 6
    assert np.abs(found[28, 4] - 188).max() < 4
    grey = encoded(Image.new("LA", (32, 32), (128, 255)), format="PNG", icc_profile=icc(b"GRAY", 1.0))
    assert np.abs(seen(grey, 32).astype(int) - 188).max() < 3


def test_a_profile_that_cannot_be_used_changes_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for mode, profile in (("RGB", b"no profile"), ("RGB", icc(b"GRAY", 1.0)), ("CMYK", SWAPPED), ("RGB", srgb)):
        image = halves(40, 40).convert(mode)
        plain = seen(encoded(image, format="JPEG"))
        assert np.array_equal(seen(encoded(image, format="JPEG", icc_profile=profile)), plain)


def test_texts_in_a_png_cost_no_picture() -> None:
    """Such as a generator's workflow, longer than Pillow takes."""
    for name in ("workflow", "XML:com.adobe.xmp"):
        info = PngImagePlugin.PngInfo()
        info.add_itxt(name, "x" * 2**21, zip=True)
        assert np.array_equal(
            seen(encoded(halves(40, 30), format="PNG", pnginfo=info)), seen(encoded(halves(40, 30), format="PNG"))
        )


@pytest.mark.parametrize("background", ["black", "white"])
def test_a_request_shows_the_corpuss_background_through_transparency(copied: Path, background: str) -> None:
    """As the bundle says; the same pixels as ingest makes of the file."""
    path = copied / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_background": background}))
    write_manifest(copied, kind="bundle")
    predictor, seen_pixels = Predictor.open(copied, engine="onnxruntime"), list[np.ndarray]()
    encode = predictor.autoencoder.encode
    predictor.autoencoder.encode = lambda pixels: seen_pixels.append(to_images(pixels)[0].numpy()) or encode(pixels)
    for image in (Image.new("RGBA", (32, 20), (200, 100, 50, 128)), Image.new("LA", (16, 16), (200, 0))):
        data = encoded(image, format="PNG")
        predictor.request(Prompt("1", "image_to_text", image=data), OPTIONS)
        corpus = prepare_image(data, 16, replace(OWN_RULES, background=background))
        assert np.array_equal(seen_pixels[-1], decode_png(corpus.png))
    assert (seen_pixels[-1] == (255 if background == "white" else 0)).all()


def test_a_request_of_several_frames_is_taken_as_the_corpus_took_one(copied: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green")]
    data = encoded(frames[0], format="PNG", save_all=True, append_images=frames[1:])
    for animated, error in (("first_frame", ""), ("refuse", "image is animated")):
        path = copied / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"image_animated": animated}))
        write_manifest(copied, kind="bundle")
        (answer,) = Predictor.open(copied, engine="onnxruntime").predict([Prompt("1", "image_to_text", image=data)], OPTIONS)
        assert answer.error == error


def test_transparency_shows_black() -> None:
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([9, 9, 9, 200, 100, 50])
    for image, options in (
        (Image.new("RGBA", (32, 32), (10, 20, 30, 0)), {}),
        (Image.new("LA", (32, 32), (200, 0)), {}),
        (palette, {"transparency": 1}),
    ):
        assert not seen(encoded(image, format="PNG", **options)).any()
    half = seen(encoded(Image.new("RGBA", (32, 32), (200, 100, 50, 128)), format="PNG"))
    assert np.abs(half[5, 5].astype(int) - (100, 50, 25)).max() <= 1


def test_a_large_photograph_is_seen_as_the_corpus_would_have_it() -> None:
    """Its decoder leaves out detail, on both sides alike."""
    noise = np.random.default_rng(3).integers(0, 256, (12, 16, 3), np.uint8)
    smooth = Image.fromarray(noise).resize((800, 600), Image.Resampling.BICUBIC)
    assert seen(encoded(smooth, format="JPEG", quality=95)).std() > 10


def test_broken_data_ends_in_one_sentence() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng, noisy, reasons = np.random.default_rng(seed), Image.open(io.BytesIO(png(40, 40))), list[str]()
    for format in ("PNG", "JPEG", "WEBP"):
        whole = encoded(noisy, format=format, icc_profile=SWAPPED)
        for _ in range(60):
            data = bytearray(whole[: int(rng.integers(1, len(whole) + 1))])
            for at in rng.integers(0, len(data), 4):
                data[at] = int(rng.integers(0, 256))
            try:
                read_pixels(bytes(data), 16, OWN_RULES)
            except ImageError as error:
                reasons.append(str(error))
    assert len(reasons) > 60
    shape = {TOO_MANY_PIXELS, TOO_MUCH_MEMORY, "image is too narrow"}
    assert set(reasons) <= {"image is not PNG, JPEG, WEBP", "image data is broken", *shape}
    with pytest.raises(ImageError, match="too many pixels"):
        read_pixels(huge_png(20_000), 16, OWN_RULES)


def test_damage_under_a_pngs_checksums_never_passes_for_a_picture() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    whole = encoded(Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)), format="PNG")
    start = whole.index(b"IDAT") + 4
    for at in rng.integers(start, start + 1500, 60).tolist():
        damaged = whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :]
        with pytest.raises(ImageError, match="image data is broken"):
            read_pixels(damaged, 16, OWN_RULES)
