"""The code that decides weights and encoded bytes is all that is imported for them, and nothing that only looks on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from components.data.encode import encoding
from components.runtime import code_digest as subject
from components.training.autoencoder import train
from components.training.transformer import run

MODULES = {"transformer": run.CODE, "autoencoder": train.CODE, "encoded parts": encoding.CODE}
# Files whose change must not discard a checkpoint: they look on, record, or use what was learnt.
ONLOOKERS = (
    *("components/training/transformer/callbacks.py", "components/training/transformer/image_sampler.py"),
    *("components/training/transformer/journal.py", "components/training/run_folder.py", "model/generation/sampling.py"),
    *("components/runtime/tracking.py", "components/runtime/recording.py", "components/runtime/workers.py"),
)


@pytest.mark.parametrize("name", MODULES)
def test_every_file_of_ours_that_is_loaded_is_counted(name: str) -> None:
    files = "(getattr(module, '__file__', None) for module in list(sys.modules.values()))"
    lines = f"import sys, {MODULES[name]}\nprint(*filter(None, {files}), sep='\\n')"
    command = [sys.executable, "-c", lines]
    output = subprocess.run(command, cwd=subject.ROOT, capture_output=True, text=True, check=True).stdout
    loaded = [Path(line) for line in output.splitlines()]
    ours = {str(file.relative_to(subject.ROOT)) for file in loaded if file.is_relative_to(subject.ROOT)}
    ours = {file for file in ours if file.split("/")[0] in subject.PACKAGES and not file.endswith("__init__.py")}
    assert len(ours) > 5 and ours <= set(subject.import_closure(MODULES[name]))


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("transformer", ["components/data/loader.py", "components/training/trainer.py", "components/training/checkpoints.py"]),
        ("transformer", ["components/training/transformer/trainer.py", "components/training/optimiser.py", "model/loss.py"]),
        ("autoencoder", ["components/training/autoencoder/perceptual.py", "model/latents/vector_quantiser.py"]),
        ("encoded parts", ["components/data/documents.py", "core/png.py", "components/data/shards.py"]),
    ],
)
def test_what_decides_is_in_and_what_looks_on_is_not(name: str, files: list[str]) -> None:
    closure = set(subject.import_closure(MODULES[name]))
    assert set(files) <= closure
    assert not closure & set(ONLOOKERS)
    assert all((subject.ROOT / file).is_file() for file in ONLOOKERS)


def test_a_digest_follows_the_bytes_of_its_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closure, before = subject.import_closure(run.CODE), subject.code_digest(run.CODE)
    for file in (*closure, ONLOOKERS[0]):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes((subject.ROOT / file).read_bytes())
    monkeypatch.setattr(subject, "ROOT", tmp_path)
    (tmp_path / ONLOOKERS[0]).write_text("# another\n")
    assert subject.code_digest(run.CODE) == before
    (tmp_path / "model/loss.py").write_text("# another\n")
    assert subject.code_digest(run.CODE) != before
