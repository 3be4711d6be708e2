"""Data that is whole and wrong, to be stopped by a gate. D10: latents that do not fit; D11: corpora and columns of nothing."""

from __future__ import annotations

import json
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.bytes import NUM_DOCUMENTS, encoded, load_file, refusal
from benchmarks.faults.corpora import params_for, read_in, write_inputs
from benchmarks.faults.counts import Found, Setting, Trial, by_default, counted, misses
from components.data.shards import Shard, open_shard, write_shard
from core.files import read_json
from core.manifest import MANIFEST, write_manifest


def bad_latents(setting: Setting) -> Found:
    """D10: numbers that are not finite, another scale, another autoencoder, another shape; with manifests that fit."""
    from pipelines import validate

    work, params = encoded(setting.folder), params_for()
    ours, plain = [], []
    with chdir(work):
        validate.main(params, "latents")
        pristine = setting.folder / "pristine"
        shutil.copytree("data/latents", pristine)
        for what, change in {
            "NaN": _not_finite,
            "scale": _scaled,
            "shape": _reshaped,
            "autoencoder": _other_autoencoder,
        }.items():
            expect_row = change(Path("data/latents"), setting.generator)
            said = refusal(lambda: validate.main(params, "latents"))
            set_aside = {json.loads(line)["key"] for line in Path("data/quarantine/latents.jsonl").read_text().splitlines()}
            caught = set_aside == {expect_row} and not said if expect_row else bool(said)
            ours.append(Trial("" if caught else f"{what}: {said or set_aside}", wrong_bytes=int(not caught)))
            plain.append(
                by_default(lambda: load_file(_first_shard(Path("data/latents"))), lambda _: Trial("loads", wrong_bytes=1))
            )
            shutil.rmtree("data/latents")
            shutil.copytree(pristine, "data/latents")
    return Found(counted(ours), {"safetensors": counted(plain)}, misses(ours))


def empty_corpora(setting: Setting) -> Found:
    """D11: corpora without a row, a table without rows, and columns that are null throughout."""
    import pandas as pd

    from components.data.validate.expectations import validate_table
    from components.data.validate.rules import Check, row_rule
    from components.data.validate.suites import validate_documents

    trials, plain = [], []
    for what, format, name, data in (
        ("an empty JSONL", "jsonl", "a.jsonl", b""),
        ("a JSONL of blank lines", "jsonl", "b.jsonl", b"\n\n \n"),
        ("a tar without members", "webdataset", "c.tar", bytes(10240)),
    ):
        (setting.folder / name).write_bytes(data)
        corpus = {"format": format, "path": str(setting.folder / name)}
        said = refusal(lambda corpus=corpus: read_in(setting.folder / "out", corpus))
        trials.append(Trial("" if "empty" in said else f"{what}: {said}", wrong_bytes=int(not said)))
    write_inputs(setting.folder / "work", NUM_DOCUMENTS)
    whole = pd.read_parquet(setting.folder / "work/data/documents/table.parquet")
    checks = params_for().validate.documents
    assert validate_documents(whole, checks, image_side_px=16, docs=None).passed
    columns = ("key", "split", "source", "num_tokens", "num_images", "width_px", "std_pixel", "sha256")
    chosen = columns[::4] if setting.quick else columns
    tables = {"no rows": whole.iloc[:0]} | {name: whole.assign(**{name: None}) for name in chosen}
    for what, table in tables.items():
        passed = validate_documents(table, checks, image_side_px=16, docs=None).passed
        trials.append(Trial(f"{what}: passed" if passed else "", wrong_bytes=int(passed)))
        # Great Expectations itself: the same kinds of rules on values, and no minimums or rules against nulls.
        values = "ExpectColumnValuesToBeBetween"
        rules = [row_rule(values, "a bound", column=name, min_value=0) for name in ("num_tokens", "width_px", "std_pixel")]
        alone = validate_table(
            Check("alone", table.assign(key=range(len(table))), rules), [], max_quarantined_share=0, docs=None
        )
        plain.append(Trial("passed" if alone.passed else "", wrong_bytes=int(alone.passed)))
    return Found(counted(trials), {"great_expectations without minimums": counted(plain)}, misses(trials))


def _first_shard(folder: Path) -> Path:
    return folder / "train/shard-00000.safetensors"


def _not_finite(folder: Path, generator: np.random.Generator) -> str:
    """One number of one image; its row says so, as the encoder would have written it."""
    import pandas as pd

    path = _first_shard(folder)
    shard = open_shard(path)
    latents = shard.latents.copy()
    image = int(generator.integers(len(latents)))
    latents[image].reshape(-1)[int(generator.integers(latents[image].size))] = np.nan
    _rewrite(path, shard._replace(latents=latents))
    table: Any = pd.read_parquet(folder / "table.parquet")
    row = table.index[table["split"] == "train"][int(shard.image_document[image])]
    table.loc[row, "latent_finite"] = False
    table.loc[row, ["latent_mean", "latent_std_min", "latent_std_max"]] = np.nan
    _write_table(folder, table)
    return str(table.loc[row, "key"])


def _scaled(folder: Path, generator: np.random.Generator) -> str:
    """Every latent by a factor, in shards and table."""
    import pandas as pd

    factor = float(generator.uniform(3, 4))
    for path in sorted(folder.rglob("shard-*.safetensors")):
        shard = open_shard(path)
        _rewrite(path, shard._replace(latents=(shard.latents * np.float16(factor))))
    table = pd.read_parquet(folder / "table.parquet")
    for column in ("latent_mean", "latent_std_min", "latent_std_max"):
        table[column] *= factor
    _write_table(folder, table)
    return ""


def _reshaped(folder: Path, generator: np.random.Generator) -> str:
    """Shards of half the height and twice the width, as a wrong reading order gives."""
    for path in sorted(folder.rglob("shard-*.safetensors")):
        shard = open_shard(path)
        number, channels, height, width = shard.latents.shape
        shape = (number, channels, height // 2, width * 2)
        _rewrite(path, shard._replace(latents=shard.latents.reshape(shape), latent_std=shard.latent_std.reshape(shape)))
    _write_manifest(folder)
    return ""


def _other_autoencoder(folder: Path, generator: np.random.Generator) -> str:
    """The latents say that another autoencoder made them."""
    _write_manifest(folder, ancestors={"autoencoder": generator.bytes(32).hex()})
    return ""


def _rewrite(path: Path, shard: Shard) -> None:
    # The views are of the file itself.
    write_shard(path, Shard(**{name: np.array(part) for name, part in shard._asdict().items() if part is not None}))


def _write_table(folder: Path, table: Any) -> None:
    table.to_parquet(folder / "table.parquet")
    _write_manifest(folder)


def _write_manifest(folder: Path, **changes: Any) -> None:
    facts = read_json(folder / MANIFEST)
    kept = {name: value for name, value in facts.items() if name not in ("kind", "files", "format_version", "sha256")}
    write_manifest(folder, kind="latents", **(kept | changes))
