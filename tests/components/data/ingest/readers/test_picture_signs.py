"""A column's name and values tell pictures from what merely stands beside them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from components.data.ingest.readers.picture_signs import says_picture, signs_in
from components.data.ingest.readers.picture_values import Kind, kind_of
from tests.components.data.corpora import picture
from tests.components.data.real_inputs_tables import encoded


@pytest.mark.parametrize(
    "name",
    [
        "image",
        "images",
        "img",
        "IMG",
        "imageURL",
        "imageurl",
        "img_path",
        "photo_2",
        "jpg",
        "PNG",
        "webp",
        "thumbnailUrl",
        "pics",
        "pixel_values",
        "image_bytes",
        "image_id",
        "image_file_name",
        "source_image",
        "meta.image.url",
        "picture-link",
        "imageData",
    ],
)
def test_names_that_say_picture(name: str) -> None:
    assert says_picture(name)


@pytest.mark.parametrize(
    "name",
    [
        "image_width",
        "imageHeight",
        "image_caption",
        "image.alt",
        "num_images_count",
        "imagenet",
        "imagination",
        "text",
        "url",
        "",
        "file_name",
        "image_license",
        "image_sha256",
        "epic",
        "topic",
        "photon",
        "image_phash",
        "picture_description",
        "jpeg_quality",
    ],
)
def test_names_that_do_not(name: str) -> None:
    assert not says_picture(name)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_first_bytes_tell_a_picture(format: str) -> None:
    assert kind_of(encoded(1, format)) is Kind.BYTES
    if format in ("JPEG", "PNG", "WEBP", "GIF"):
        assert kind_of(base64.b64encode(encoded(1, format)).decode()) is Kind.DATA


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("a.jpg", Kind.NAME),
        (r"C:\pics\A.JPEG", Kind.NAME),
        ("https://x.org/a.png?size=3#top", Kind.LINK),
        ("//cdn.x.org/a.webp:large", Kind.LINK),
        ("s3://bucket/a.tif", Kind.LINK),
        ("data:image/png;base64,AAAA", Kind.DATA),
        ("https://x.org/a.jpgs", None),
        ("https://x.org/a", None),
        ("a.json", None),
        ("jpg", None),
        ("see a.jpg\nand more of it.png is not a name", None),
        (b"\0\1\2\3", None),
        (b"BM is no bitmap", None),
        ("x" * 5000 + ".jpg", None),
    ],
)
def test_a_value_tells_what_it_is(value: str | bytes, kind: Kind | None) -> None:
    assert kind_of(value) is kind


@pytest.mark.parametrize(
    ("name", "value", "of_captions", "expected"),
    [
        ("image", "a dog", False, ("image", Kind.NAME, True)),
        ("image", 7, False, ("image", Kind.ID, True)),
        ("images", 7, False, None),
        ("image", True, False, None),
        ("image", None, False, None),
        ("image", " ", False, None),
        ("image_id", "000123", False, ("image_id", Kind.ID, True)),
        ("image_id", "000123.jpg", False, ("image_id", Kind.NAME, True)),
        ("url", "https://x.org/page", False, None),
        ("url", "https://x.org/page", True, ("url", Kind.LINK, True)),
        ("url", "https://x.org/a.jpg", False, ("url", Kind.LINK, False)),
        ("path", "train/1", True, ("path", Kind.NAME, True)),
        ("path", "train/1.parquet", True, None),
        ("file_name", "1", True, ("file_name", Kind.NAME, True)),
        ("image_size", [512, 512], False, None),
        ("image", [512, 512], False, None),
        ("pixels", [0] * 16, False, ("pixels", Kind.PIXELS, True)),
        ("embedding", [[0.5] * 16], False, None),
        ("meta", {"a": [{"thumb": "x"}]}, False, ("meta.a.thumb", Kind.NAME, True)),
        ("meta", '{"photo": "https://x.org/1"}', False, ("meta.photo", Kind.LINK, True)),
        ("meta", "{broken", False, None),
        ("meta", "[" * 100_000, False, None),
        ("blob", picture(1), False, ("blob", Kind.BYTES, True)),
        ("image", b"\xff\xfe", False, ("image", Kind.BYTES, True)),
    ],
)
def test_signs(name: str, value: Any, of_captions: bool, expected: tuple[str, Kind, bool] | None) -> None:
    found = [sign[:3] for sign in signs_in(name, value, of_captions=of_captions)]
    assert found == ([] if expected is None else [expected])
