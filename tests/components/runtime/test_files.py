"""Is a folder vouched for by its manifest, every byte of it and of the manifest, and is a file written whole or not at all?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.runtime.failure import BadInput
from components.runtime.files import (
    digest,
    parse_manifest,
    read_json,
    read_manifest,
    write_bytes,
    write_json,
    write_manifest,
    written_whole,
)


def make_folder(folder: Path) -> Path:
    write_bytes(folder / "a/one.bin", bytes(range(200)))
    write_bytes(folder / "b/two.bin", b"two")
    # A folder within may have a manifest of its own, which is a file like any other.
    write_json(folder / "b/manifest.json", {"kind": "other"})
    write_manifest(folder, kind="made", records={"a/one.bin": 7}, shape=(8, 4), counts={2: "two", 10: "ten"}, name="zwölf")
    return folder


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest = read_manifest(make_folder(tmp_path), kind="made")
    assert set(manifest["files"]) == {"a/one.bin", "b/two.bin", "b/manifest.json"}
    assert manifest["files"]["a/one.bin"]["bytes"] == 200
    assert manifest["files"]["a/one.bin"]["records"] == 7
    assert (manifest["shape"], manifest["counts"], manifest["name"]) == ([8, 4], {"2": "two", "10": "ten"}, "zwölf")


def test_equal_folders_have_equal_manifests(tmp_path: Path) -> None:
    one, other = make_folder(tmp_path / "one"), make_folder(tmp_path / "other")
    assert (one / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()


def test_every_flipped_bit_of_a_manifest_is_found(tmp_path: Path) -> None:
    content = (make_folder(tmp_path) / "manifest.json").read_bytes()
    for at in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[at] ^= 1 << bit
            with pytest.raises(BadInput):
                parse_manifest(bytes(flipped), "manifest.json", kind="made")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_cut_off_manifest_is_refused(tmp_path: Path, share: float) -> None:
    path = make_folder(tmp_path) / "manifest.json"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BadInput, match="not a manifest"):
        read_manifest(tmp_path, kind="made")


@pytest.mark.parametrize("files", [None, [], {"a": {}}, {"a": {"bytes": "1", "sha256": "0"}}, {"a": 1}])
def test_a_manifest_that_lists_no_files_as_ours_do_is_refused(files: object) -> None:
    """Though its own digest is right."""
    manifest = {"kind": "made", "files": files}
    manifest["sha256"] = digest(manifest)
    content = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    with pytest.raises(BadInput, match=r"here/manifest\.json"):
        parse_manifest(content.encode(), "here/manifest.json", kind="made")


@pytest.mark.parametrize("content", [b"[" * 200_000, b"[]", b"{}", b'{"sha256": 1}', b"null", b'"sha256"', b"\xff"])
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(BadInput, match=r"here/manifest\.json"):
        parse_manifest(content, "here/manifest.json", kind="made")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"[" * 200_000])
def test_a_report_that_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"report\.json is not JSON"):
        read_json(tmp_path / "report.json")


def test_another_kind_and_a_missing_manifest_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"manifest\.json is missing"):
        read_manifest(tmp_path, kind="made")
    make_folder(tmp_path)
    with pytest.raises(BadInput, match="holds 'made', not 'latents'"):
        read_manifest(tmp_path, kind="latents")


def test_a_reader_of_a_part_checks_that_part_alone(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "a/one.bin").write_bytes(bytes(200))
    assert read_manifest(tmp_path, kind="made", under="b/")["kind"] == "made"
    for under in ("", "a/"):
        with pytest.raises(BadInput, match=r"one\.bin does not have the bytes"):
            read_manifest(tmp_path, kind="made", under=under)
    (tmp_path / "a/one.bin").unlink()
    with pytest.raises(BadInput, match=r"one\.bin is listed in the manifest but missing"):
        read_manifest(tmp_path, kind="made")


def fail_half_way(path: Path) -> None:
    with written_whole(path) as partial:
        partial.write_bytes(b"half")
        raise RuntimeError("disk full")


def test_a_file_stands_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_bytes(path, b"before")
    with pytest.raises(RuntimeError, match="disk full"):
        fail_half_way(path)
    assert [name.name for name in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == b"before"
    with written_whole(path) as partial:
        partial.write_bytes(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    write_json(path, {"b": 1, "a": "é"})
    assert json.loads(path.read_bytes()) == {"a": "é", "b": 1}
