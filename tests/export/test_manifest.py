"""A bundle's manifest is refused whatever bit of it is flipped, and nothing it lists may lie elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from components.runtime import files
from export.failure import ExportRefused
from export.manifest import parse_manifest, read_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two files with the manifest that the export stage's writer makes, names and facts beyond ASCII."""
    place = tmp_path / "bundle"
    (place / "autoencoder").mkdir(parents=True)
    (place / "step.onnx").write_bytes(b"a graph")
    (place / "autoencoder/wörter.json").write_bytes(b"{}")
    files.write_manifest(place, kind="bundle", records={"step.onnx": 7}, model_sha256="0" * 64, note="é\u2028\U0001f600")
    return place


def test_it_reads_what_the_stages_write(folder: Path) -> None:
    assert read_manifest(folder, kind="bundle") == files.read_manifest(folder, kind="bundle")


def test_every_flipped_bit_is_refused(folder: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng, whole, kinds = random.Random(seed), (folder / "manifest.json").read_bytes(), set[str]()
    for at in range(len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << rng.randrange(8)
        (folder / "manifest.json").write_bytes(flipped)
        with pytest.raises(ExportRefused, match="export the bundle again") as refused:
            parse_manifest(folder, kind="bundle")
        kinds.add(str(refused.value).partition("; ")[0].partition("manifest.json ")[2])
    assert kinds == {
        "is not a manifest as the export stage writes it",
        "does not have the bytes it was written with",
    }


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"1", b'"x"', b"[" * 100_000, b"\xff\xfe{\x00", b"{}\n", b'{"sha256": NaN}'],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ExportRefused, match=r"manifest\.json .*export the bundle again"):
        read_manifest(folder, kind="bundle")


def signed(folder: Path, **changes: Any) -> None:
    """Write a manifest that vouches for itself, with fields changed by somebody who knows how."""
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    manifest["sha256"] = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")


def entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": files.sha256(path)}


@pytest.mark.parametrize(
    "listed", [None, [], {"step.onnx": None}, {"step.onnx": {"bytes": 7}}, {"x": {"sha256": "", "bytes": "7"}}]
)
def test_a_manifest_of_another_form_is_refused(folder: Path, listed: Any) -> None:
    signed(folder, files=listed)
    with pytest.raises(ExportRefused, match=r"lists no files|size and sha256 of"):
        read_manifest(folder, kind="bundle")


@pytest.mark.parametrize("name", ["../outside", "{outside}", "a/../../outside", "outside\0"])
def test_a_manifest_cannot_lead_outside(folder: Path, name: str) -> None:
    outside = folder.parent / "outside"
    outside.write_text("x")
    signed(folder, files={name.format(outside=outside): entry(outside)})
    with pytest.raises(ExportRefused, match="outside the bundle"):
        read_manifest(folder, kind="bundle")


def test_links_out_of_the_folder_and_what_is_no_file_are_refused(folder: Path) -> None:
    graph, outside = folder / "step.onnx", folder.parent / "outside"
    graph.rename(outside)
    graph.symlink_to(outside)
    with pytest.raises(ExportRefused, match="is a link out of the bundle"):
        read_manifest(folder, kind="bundle")
    graph.unlink()
    os.mkfifo(graph)
    with pytest.raises(ExportRefused, match="is not a file"):
        read_manifest(folder, kind="bundle")
    graph.unlink()
    graph.mkdir()
    with pytest.raises(ExportRefused, match="is not a file"):
        read_manifest(folder, kind="bundle")
    graph.rmdir()
    graph.symlink_to("step.onnx")
    with pytest.raises(ExportRefused, match=r"cannot be read|missing"):
        read_manifest(folder, kind="bundle")
