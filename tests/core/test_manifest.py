"""A folder is vouched for by its manifest, every byte of both; nothing that a manifest lists may lie elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadInput
from core.files import digest, sha256, write_bytes, write_json
from core.manifest import parse_manifest, read_manifest, write_manifest


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two files with the manifest that the export stage's writer makes, names and facts beyond ASCII."""
    place = tmp_path / "bundle"
    (place / "autoencoder").mkdir(parents=True)
    (place / "step.onnx").write_bytes(b"a graph")
    (place / "autoencoder/wörter.json").write_bytes(b"{}")
    write_manifest(place, kind="bundle", records={"step.onnx": 7}, model_sha256="0" * 64, note="é\u2028\U0001f600")
    return place


def open_foreign(folder: Path) -> dict[str, Any]:
    """A manifest read as a bundle's is."""
    return read_manifest(folder, kind="bundle", links=False, remedy="export the bundle again")


def test_a_flipped_bit_of_a_manifest_is_refused_with_the_remedy(folder: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng, whole, kinds = random.Random(seed), (folder / "manifest.json").read_bytes(), set[str]()
    for at in range(len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << rng.randrange(8)
        (folder / "manifest.json").write_bytes(flipped)
        with pytest.raises(BadInput, match="export the bundle again") as refused:
            open_foreign(folder)
        kinds.add(str(refused.value).partition("; ")[0].partition("manifest.json ")[2])
    assert kinds == {
        "is not a manifest as the stages write it",
        "does not have the bytes it was written with",
    }


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"1", b'"x"', b"[" * 100_000, b"\xff\xfe{\x00", b"{}\n", b'{"sha256": NaN}'],
    ids=lambda content: repr(content[:12]),
)
def test_a_file_that_is_no_manifest_is_refused_with_the_remedy(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"manifest\.json .*export the bundle again"):
        open_foreign(folder)


def signed(folder: Path, **changes: Any) -> None:
    """Write a manifest that vouches for itself, with fields changed by somebody who knows how."""
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    manifest["sha256"] = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")


def entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


@pytest.mark.parametrize(
    "listed", [None, [], {"step.onnx": None}, {"step.onnx": {"bytes": 7}}, {"x": {"sha256": "", "bytes": "7"}}]
)
def test_a_manifest_of_another_form_is_refused_though_it_vouches_for_itself(folder: Path, listed: Any) -> None:
    signed(folder, files=listed)
    with pytest.raises(BadInput, match=r"lists no files|size and sha256 of"):
        open_foreign(folder)


@pytest.mark.parametrize("name", ["../outside", "{outside}", "a/../../outside", "outside\0"])
def test_a_manifest_cannot_lead_outside(folder: Path, name: str) -> None:
    outside = folder.parent / "outside"
    outside.write_text("x")
    signed(folder, files={name.format(outside=outside): entry(outside)})
    with pytest.raises(BadInput, match="outside its folder"):
        open_foreign(folder)


def test_links_out_of_the_folder_and_what_is_no_file_are_refused(folder: Path) -> None:
    graph, outside = folder / "step.onnx", folder.parent / "outside"
    graph.rename(outside)
    graph.symlink_to(outside)
    with pytest.raises(BadInput, match="is a link out of its folder"):
        open_foreign(folder)
    graph.unlink()
    os.mkfifo(graph)
    with pytest.raises(BadInput, match="is not a file"):
        open_foreign(folder)
    graph.unlink()
    graph.mkdir()
    with pytest.raises(BadInput, match="is not a file"):
        open_foreign(folder)
    graph.rmdir()
    graph.symlink_to("step.onnx")
    with pytest.raises(BadInput, match=r"cannot be read|missing"):
        open_foreign(folder)
