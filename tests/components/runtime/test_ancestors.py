"""Artefacts say what they were made from, and those that do not belong together are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from components.runtime.ancestors import check_ancestors, content_digest
from core.errors import BadInput
from core.files import write_bytes, write_json
from core.manifest import write_manifest


def make(folder: Path, kind: str, *given: dict[str, Any], content: bytes = b"one", **facts: Any) -> dict[str, Any]:
    """An artefact that was made from all of `given`."""
    write_bytes(folder / "file.bin", content)
    ancestors = check_ancestors({Path(str(number)): manifest for number, manifest in enumerate(given)})
    return write_manifest(folder, kind=kind, ancestors=ancestors, **facts)


@pytest.fixture
def chain(tmp_path: Path) -> dict[str, dict[str, Any]]:
    tokenizer = make(tmp_path / "tokenizer", "tokenizer")
    documents = make(tmp_path / "documents", "documents", tokenizer)
    autoencoder = make(tmp_path / "autoencoder", "autoencoder", documents)
    latents = make(tmp_path / "latents", "latents", tokenizer, documents, autoencoder)
    return {"tokenizer": tokenizer, "documents": documents, "autoencoder": autoencoder, "latents": latents}


def check(chain: Mapping[str, dict[str, Any]], *kinds: str) -> dict[str, str]:
    return check_ancestors({Path(f"data/{kind}"): chain[kind] for kind in kinds})


def test_an_artefact_names_everything_it_descends_from(chain: dict[str, dict[str, Any]]) -> None:
    wanted = {kind: content_digest(chain[kind]) for kind in ("tokenizer", "documents", "autoencoder")}
    assert chain["latents"]["ancestors"] == wanted
    # Though none of the others is given.
    assert check(chain, "latents") == wanted | {"latents": content_digest(chain["latents"])}
    assert len(set(wanted.values())) == 3


@pytest.mark.parametrize("kind", ["tokenizer", "documents", "autoencoder"])
def test_another_ancestor_than_was_used_is_named(kind: str, chain: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    other = make(tmp_path / "other", kind, content=b"two")
    with pytest.raises(BadInput) as refused:
        check(chain | {kind: other}, kind, "latents")
    assert "data/latents was made from " in str(refused.value)
    assert f"than stands in data/{kind}; run encode again" in str(refused.value)


def test_the_first_that_is_out_of_date_is_named(chain: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    other = make(tmp_path / "other", "documents", chain["tokenizer"], content=b"two")
    with pytest.raises(BadInput, match=r"^data/autoencoder was made from other documents"):
        check(chain | {"documents": other}, "latents", "autoencoder", "documents", "tokenizer")


def test_two_that_descend_from_different_ones_are_refused(chain: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """Though the ancestor itself is not given."""
    documents = make(tmp_path / "other", "documents", chain["tokenizer"], content=b"two")
    train = make(tmp_path / "train", "train", documents)
    with pytest.raises(BadInput, match=r"data/train was made from other documents than data/latents was; run `dvc repro`"):
        check(chain | {"train": train}, "latents", "train")


def test_facts_are_content_and_incidental_files_are_not(tmp_path: Path) -> None:
    def digest(run: str, side_px: int) -> str:
        write_json(tmp_path / "one/run.json", {"run_id": run})
        return content_digest(make(tmp_path / "one", "train", side_px=side_px, incidental=["run.json"]))

    first = digest("a", 32)
    assert digest("b", 32) == first
    assert digest("a", 16) != first


def test_what_claims_nothing_is_taken(tmp_path: Path) -> None:
    """As a folder that was put there by hand."""
    write_bytes(tmp_path / "w.bin", b"w")
    manifest = write_manifest(tmp_path, kind="autoencoder")
    assert check_ancestors({tmp_path: manifest}) == {"autoencoder": content_digest(manifest)}
