"""Corpora in an object store are read as those on a disk: a real S3 endpoint on loopback, spoken to as any other is."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from components.data.ingest.readers.records import FileReference
from components.data.ingest.readers.webdataset import APART
from core.errors import BadInput
from tests.components.data.corpora import (
    IMAGE_STRUCT,
    outline,
    pairs,
    picture,
    read,
    reasons,
    tar_bytes,
    write_jsonl,
    write_parquet,
)


@contextmanager
def endpoint(bucket: str) -> Iterator[ThreadedMotoServer]:
    """An object store with this new bucket; the endpoint stands in the environment, where the readers find it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "made-up")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "made-up")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_MAX_ATTEMPTS", "1")
        # fsspec keeps its connection to the endpoint of the test before.
        S3FileSystem.clear_instance_cache()
        fsspec.filesystem("s3").mkdir(bucket)
        yield server
    server.stop()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of a bucket."""
    with endpoint("corpora"):
        yield "s3://corpora"


def put(url: str, data: bytes) -> None:
    with fsspec.open(url, "wb") as file:
        file.write(data)  # pyright: ignore[reportAttributeAccessIssue]


def test_tars_by_file_folder_and_glob(s3: str) -> None:
    put(f"{s3}/web/00000.tar", tar_bytes(pairs(range(3))))
    put(f"{s3}/web/00001.tar", tar_bytes(pairs(range(3, 5))))
    put(f"{s3}/web/00000_stats.json", b"{}")
    for path, number in (("web/00001.tar", 2), ("web", 5), ("web/*", 5), ("web/*0.tar", 3)):
        documents, rejected = read("webdataset", f"{s3}/{path}")
        assert (len(documents), rejected) == (number, [])


def test_tables_and_lines(s3: str, tmp_path: Path) -> None:
    images = pa.array([{"bytes": picture(n), "path": None} for n in range(9)], IMAGE_STRUCT)
    write_parquet(tmp_path / "a.parquet", image=images, text=[f"caption {n}" for n in range(9)])
    put(f"{s3}/table/data/train-00000.parquet", (tmp_path / "a.parquet").read_bytes())
    documents, rejected = read("parquet", f"{s3}/table")
    assert [document.texts for document in documents.values()] == [(f"caption {n}",) for n in range(9)]
    put(f"{s3}/text/a.jsonl.gz", gzip.compress(b'{"text": "one"}\n{"text": \n'))
    documents, rejected = read("jsonl", f"{s3}/text/*.gz")
    assert list(documents) == ["corpora/text/a.jsonl.gz#1"]
    assert [(record.position, record.reason) for record in rejected] == [("corpora/text/a.jsonl.gz line 2", "broken JSON")]


def test_images_that_records_name(s3: str) -> None:
    for number in range(25):
        put(f"{s3}/coco/train/{number}.png", picture(number))
    put(f"{s3}/coco/train/empty.png", b"")
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(26)] + [{"id": 26, "file_name": "empty.png"}]
    captions = [{"image_id": number, "caption": f"caption {number}"} for number in range(27)]
    put(f"{s3}/coco/captions.json", json.dumps({"images": images, "annotations": captions}).encode())
    documents, rejected = read("coco", f"{s3}/coco/captions.json", images=f"{s3}/coco/train")
    assert list(documents) == list(map(str, range(25)))
    assert reasons(rejected) == [("captions.json id 25", "image file is missing"), ("captions.json id 26", "missing image")]
    put(f"{s3}/coco/train/3.txt", b"caption of 3")
    put(f"{s3}/photos/sub/a.png", picture(0))
    put(f"{s3}/photos/sub/a.txt", b"caption of a")
    documents, rejected = read("image_folder", f"{s3}/photos")
    assert {key: sorted(outline(document)) for key, document in documents.items()} == {"sub/a": ["<image>", "caption of a"]}


def test_braces_brackets_hidden_keys_and_keys_that_stand_for_folders(s3: str) -> None:
    """An empty object with a slash at the end of its key is how a console makes a folder."""
    for key in ("set [1]/", "set [1]/sub/", "set [1]/photos/"):
        fsspec.filesystem("s3").call_s3("put_object", Bucket="corpora", Key=key, Body=b"")
    for number in range(3):
        put(f"{s3}/set [1]/sub/{number:05d}.tar", tar_bytes(pairs(range(2 * number, 2 * number + 2))))
    for other in ("._00000.tar", ".ipynb_checkpoints/00000.tar", "sub/00000.tar.part", "sub/notes.md"):
        put(f"{s3}/set [1]/{other}", b"not of the corpus")
    for path, number in (
        ("set [1]", 6),
        ("set [1]/sub/{00000..00001}.tar", 4),
        ("set [1]/{sub,other}/*.tar", 0),
        ("set [1]/*", 6),
    ):
        if not number:
            with pytest.raises(BadInput, match=r"other/\*\.tar, which"):
                read("webdataset", f"{s3}/{path}")
            continue
        documents, rejected = read("webdataset", f"{s3}/{path}")
        assert (len(documents), rejected) == (number, []), path
    with pytest.raises(BadInput, match=r"00003\.tar, which"):
        read("webdataset", f"{s3}/set [1]/sub/{{00000..00003}}.tar")
    for name, data in [*pairs(range(2)), ("._000000.png", b"x"), (".thumbs/000000.png", picture(0))]:
        put(f"{s3}/set [1]/photos/{name}", data)
    documents, rejected = read("image_folder", f"{s3}/set [1]/photos")
    assert (list(documents), rejected) == (["000000", "000001"], [])


def test_compressed_by_content_and_what_cannot_be_read_out_of_order(s3: str) -> None:
    both = pairs(range(3))
    put(f"{s3}/odd/lines/a.jsonl", gzip.compress('{"text": "one"}'.encode("utf-16")))
    assert [document.texts for document in read("jsonl", f"{s3}/odd/lines")[0].values()] == [("one",)]
    put(f"{s3}/odd/apart.tar", tar_bytes([*both[::2], *both[1::2]]))
    documents, rejected = read("webdataset", f"{s3}/odd/apart.tar")
    assert documents == {}
    assert [record.reason for record in rejected] == [APART] * 3


def test_a_bucket_that_is_not_there_is_refused(s3: str) -> None:
    with pytest.raises(BadInput, match="'mine' has no"):
        read("webdataset", f"{s3}-of-somebody/a.tar")


def test_a_store_that_fails_costs_no_record(tmp_path: Path) -> None:
    """An image that cannot be fetched for now must stop the stage, and not be rejected."""
    write_jsonl(tmp_path / "o.jsonl", [{"images": ["a.png"], "texts": [None]}])
    with endpoint("fails") as server:
        put("s3://fails/images/a.png", picture(0))
        assert len(read("obelics", tmp_path / "o.jsonl", images="s3://fails/images")[0]) == 1
        server.stop()
        with pytest.raises(BadInput, match=r"the image fails/images/a\.png cannot be read"):
            FileReference(fsspec.filesystem("s3"), "fails/images/a.png", "image").read()
        with pytest.raises(BadInput, match=r"fails/images"):
            read("obelics", tmp_path / "o.jsonl", images="s3://fails/images")
