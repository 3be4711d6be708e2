"""A reader of a remote folder gets the bytes of the manifest, whatever the store, the cache and other processes do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.data.loader import PackedRows
from components.data.shard_cache import Cache, cache_of_environment, fetch_split, open_split
from core.errors import BadInput
from core.files import sha256
from core.manifest import read_manifest, write_manifest

BUCKET = "latents"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A real S3 endpoint on this machine's loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("TRANSFUSION_LATENTS", "TRANSFUSION_CACHE", "TRANSFUSION_CACHE_GIB"):
        monkeypatch.delenv(name, raising=False)
    s3fs.S3FileSystem.clear_instance_cache()
    return s3fs.S3FileSystem()


def upload(store: Any, folder: Path, name: str) -> str:
    if not store.exists(BUCKET):
        store.mkdir(BUCKET)
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(str(path), f"{BUCKET}/{name}/{path.relative_to(folder)}")
    return f"s3://{BUCKET}/{name}"


def cached(cache: Path) -> dict[str, str]:
    """Every file of the cache that holds data, and its digest."""
    return {path.name: sha256(path) for path in cache.iterdir() if path.suffix != ".lock"}


def batch_ids(rows: PackedRows) -> list[list[int]]:
    everything = list(range(rows.num_rows))
    batch = rows.batch(everything, step=0, seed=1, patch_side=2, caption_dropout=0.0, image_first_time_limit=0.5)
    return batch.input_ids.tolist()


def test_rows_at_a_url_are_those_of_the_folder(encoded, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = upload(store, encoded.latents, "whole")
    monkeypatch.setenv("TRANSFUSION_CACHE", str(tmp_path / "cache"))
    remote, local = PackedRows(url, "train", None), PackedRows(encoded.latents, "train", None)
    assert batch_ids(remote) == batch_ids(local)
    found = cached(tmp_path / "cache")
    assert found
    assert all(name == digest for name, digest in found.items())
    # Only the split that was asked for.
    manifest = read_manifest(encoded.latents, kind="latents")
    assert set(found) == {entry["sha256"] for name, entry in manifest["files"].items() if name.startswith("train/")}


def test_the_environment_names_where_the_shards_lie(
    encoded, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSFUSION_LATENTS", upload(store, encoded.latents, "elsewhere"))
    monkeypatch.setenv("TRANSFUSION_CACHE", str(tmp_path / "cache"))
    manifest_alone = tmp_path / "latents"
    manifest_alone.mkdir()
    (manifest_alone / "manifest.json").write_bytes((encoded.latents / "manifest.json").read_bytes())
    remote = PackedRows(manifest_alone, "validation", None)
    monkeypatch.delenv("TRANSFUSION_LATENTS")
    assert batch_ids(remote) == batch_ids(PackedRows(encoded.latents, "validation", None))
    monkeypatch.setenv("TRANSFUSION_LATENTS", f"s3://{BUCKET}/elsewhere")
    write_manifest(manifest_alone, kind="latents")
    with pytest.raises(BadInput, match="holds other latents"):
        PackedRows(manifest_alone, "validation", None)


def test_a_damaged_copy_is_fetched_again_and_a_damaged_source_refused(encoded, store: Any, tmp_path: Path) -> None:
    url = upload(store, encoded.latents, "damaged")
    cache = Cache(tmp_path / "cache", 2**30)
    fetch_split(url, "train", cache)
    for path in (tmp_path / "cache").iterdir():
        if path.suffix != ".lock":
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 4
            path.write_bytes(content)
    found = fetch_split(url, "train", cache)
    assert all(sha256(path) == path.name for path in found.files.values())
    whole = store.cat(f"{BUCKET}/damaged/train/packing.safetensors")
    store.pipe(f"{BUCKET}/damaged/train/packing.safetensors", whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BadInput, match=r"packing\.safetensors does not have the bytes"):
        fetch_split(url, "train", Cache(tmp_path / "other", 2**30))
    assert not list((tmp_path / "other").glob(".*partial"))
    manifest = store.cat(f"{BUCKET}/damaged/manifest.json")
    store.pipe(f"{BUCKET}/damaged/manifest.json", manifest.replace(b'"row_length": 80', b'"row_length": 81'))
    with pytest.raises(BadInput, match=r"manifest\.json does not have the bytes"):
        fetch_split(url, "train", cache)


def test_what_is_not_there_is_named(store: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"s3://{BUCKET}/nowhere/manifest.json cannot be read"):
        fetch_split(f"s3://{BUCKET}/nowhere", "train", Cache(tmp_path, 2**30))


def test_the_longest_unused_makes_room_and_what_is_in_use_stays(encoded, store: Any, tmp_path: Path) -> None:
    url = upload(store, encoded.latents, "sizes")
    manifest = read_manifest(encoded.latents, kind="latents")
    size = {
        split: sum(entry["bytes"] for name, entry in manifest["files"].items() if name.startswith(f"{split}/"))
        for split in ("train", "validation", "test")
    }
    cache = Cache(tmp_path / "cache", size["train"] + size["validation"])
    old = fetch_split(url, "test", cache)
    held = fetch_split(url, "validation", cache)
    for lock in old.locks:
        lock.close()
    found = fetch_split(url, "train", cache)
    assert not any(path.exists() for path in old.files.values())
    assert all(path.exists() for path in (*held.files.values(), *found.files.values()))
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= cache.max_bytes
    with pytest.raises(BadInput, match="TRANSFUSION_CACHE_GIB"):
        fetch_split(url, "train", Cache(tmp_path / "small", size["train"] - 1))


READ = """
import sys
from pathlib import Path
from components.data.shard_cache import Cache, fetch_split
from core.files import sha256
found = fetch_split(sys.argv[1], "train", Cache(Path(sys.argv[2]), 2**30))
print(*sorted(sha256(path) for path in found.files.values()))
"""


def test_processes_share_one_cache(encoded, store: Any, tmp_path: Path) -> None:
    url = upload(store, encoded.latents, "shared")
    command = [sys.executable, "-c", READ, url, str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = [process.communicate(timeout=60)[0].split() for process in processes]
    manifest = read_manifest(encoded.latents, kind="latents")
    expected = sorted(entry["sha256"] for name, entry in manifest["files"].items() if name.startswith("train/"))
    assert found == [expected] * 3
    assert sorted(cached(tmp_path / "cache")) == expected


def test_a_second_reader_does_not_wait_for_the_first_to_end(encoded, store: Any, tmp_path: Path) -> None:
    url = upload(store, encoded.latents, "twice")
    cache = Cache(tmp_path, 2**30)
    first = fetch_split(url, "train", cache)
    again = fetch_split(url, "train", cache)
    assert first.files == again.files
    assert first.locks and not any(lock.closed for lock in first.locks)


def test_what_a_killed_process_left_is_removed(encoded, store: Any, tmp_path: Path) -> None:
    url = upload(store, encoded.latents, "left")
    manifest = read_manifest(encoded.latents, kind="latents")
    left = tmp_path / f".{manifest['files']['train/packing.safetensors']['sha256']}.{2**22 + 1}.partial"
    left.write_bytes(b"half")
    fetch_split(url, "train", Cache(tmp_path, 2**30))
    assert not left.exists()


def test_the_environment_sets_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFUSION_CACHE", str(tmp_path))
    monkeypatch.setenv("TRANSFUSION_CACHE_GIB", "0.5")
    assert cache_of_environment() == Cache(tmp_path, 2**29)
    monkeypatch.setenv("TRANSFUSION_CACHE_GIB", "much")
    with pytest.raises(BadInput, match="TRANSFUSION_CACHE_GIB='much'"):
        cache_of_environment()
    monkeypatch.setenv("TRANSFUSION_CACHE_GIB", "")
    monkeypatch.setenv("TRANSFUSION_CACHE", "~nobody-here/cache")
    with pytest.raises(BadInput, match="no such home folder"):
        cache_of_environment()


def test_a_local_folder_needs_no_cache(encoded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRANSFUSION_LATENTS", raising=False)
    found = open_split(encoded.latents, "train")
    assert found.files["packing.safetensors"] == encoded.latents / "train" / "packing.safetensors"
    assert all(path.parent.samefile(encoded.latents / "train") for path in found.files.values())
