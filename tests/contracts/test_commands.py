"""Every command of the pages is tested, and no test is of a command that no page says."""

from __future__ import annotations

import json
import re

import pytest
import torch
from ruamel.yaml import YAML

from model.config import PRESETS, image_modality, model_config
from model.transfusion import Transfusion
from pipelines.params import load
from tests.pages.commands import (
    ACTIVATE,
    CHECKED,
    NAMED,
    PAGES,
    ROOT,
    RUN,
    RUN_BY_FINE_TUNING,
    RUN_BY_OWN_CORPUS,
    RUN_BY_SHARING,
    WITHOUT_ENVIRONMENT,
    blocks_of,
    commands,
    commands_of,
    leaves,
    variables,
)

TESTED = {*RUN, *RUN_BY_OWN_CORPUS, *RUN_BY_SHARING, *RUN_BY_FINE_TUNING, *CHECKED, *NAMED}
OWN_CORPUS = ROOT / "docs/own-corpus.md"


def test_every_command_is_run_or_checked() -> None:
    """One that is added to a page needs an entry in tests/pages/commands.py."""
    for page, line in commands():
        program, _, rest = line.partition(" ")
        if program == "export" and rest:
            assert rest.partition("=")[0] in variables(), f"{page}: infra/env.example does not list {rest}"
        elif program == "echo":
            # A file for the next command, in the block that a test runs whole.
            assert page == OWN_CORPUS
        else:
            assert line in TESTED, f"{page} says `{line}`: run it or check it in tests/pages/commands.py"


def test_every_tested_command_stands_on_a_page() -> None:
    assert {line for _, line in commands()} >= TESTED - {ACTIVATE}
    assert all(checked.reason for checked in CHECKED.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_says_how_its_commands_are_found(page: object) -> None:
    lines = [line for found, line in commands() if found == page]
    needs = [line for line in lines if line.split()[0] not in WITHOUT_ENVIRONMENT and line not in NAMED]
    assert not needs or ACTIVATE in lines, f"{page} does not say `{ACTIVATE}`, and {needs[0]} is not found without"


def test_what_a_command_is() -> None:
    text = "`make` it\n\n| `python -m a\nb` | `model.py` |\n\n```\nray start --head \\\n  --port 1  # why\n```\n"
    text += "\n```yaml\nmake: 1\n```\n"
    assert list(commands_of(text)) == ["ray start --head --port 1", "make", "python -m a b"]


def test_the_values_of_the_page_on_own_corpora_go_together() -> None:
    """tests/pages/test_own_corpus.py runs them with smaller models."""
    (wanted,) = blocks_of(OWN_CORPUS.read_text(), language="yaml")
    changes = leaves(YAML(typ="safe").load(wanted))
    params = load(ROOT / "params.yaml", [f"{dotted}={json.dumps(value)}" for dotted, value in changes.items()])
    assert params.ingest.corpora[0].path == "pictures" and params.train.sampling.prompts == ()


def test_the_sizes_follow_their_rules() -> None:
    """docs/own-corpus.md: 20 positions of training a parameter, four epochs, a rate as one over the width, 6 N operations."""
    rows = re.findall(
        r"^\| `([\w.]+)` \| (\d+) x (\d+) \| ([\d.]+)M \| (\d+)M \|[^|]*\| (\d+)M \| ([\d.]+) \|", OWN_CORPUS.read_text(), re.M
    )
    assert [row[0] for row in rows] == ["demo", "0.015b", "0.04b", "0.16b"]
    ids = {"pad": 0, "bos": 1, "eos": 2}
    # Latents of 8 channels in patches of 4 x 4, as the demonstration's.
    image = image_modality(channels=8, patch_side=4, patch_layers="linear", unet_channels=(), begin_token_id=3, end_token_id=4)
    for name, width, layers, parameters, corpus, training, rate in rows:
        size = PRESETS[name]
        config = model_config(
            name, vocab_size=2048, modalities=(image,), prediction_type="flow", max_position_embeddings=256, special_ids=ids
        )
        with torch.device("meta"):
            number = sum(parameter.numel() for parameter in Transfusion(config).parameters()) / 1e6
        assert (int(width), int(layers)) == (size.hidden_size, size.num_hidden_layers)
        assert float(parameters) == pytest.approx(number, abs=0.05)
        assert float(training) == pytest.approx(20 * number, abs=1) and float(corpus) == pytest.approx(5 * number, abs=1)
        assert float(rate) == pytest.approx(0.003 * 256 / size.hidden_size, rel=0.01)
