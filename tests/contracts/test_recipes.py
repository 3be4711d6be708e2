"""Recipes: files of overrides for `dvc exp run`, each of which params.yaml takes."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pipelines.params import load

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "pipelines/recipes").glob("*.args"))


def overrides(recipe: Path) -> list[str]:
    """As the shell hands them over: lines that are no comments, word by word."""
    words = shlex.split(" ".join(line for line in recipe.read_text().splitlines() if not line.startswith("#")))
    assert words[::2] == ["-S"] * (len(words) // 2)
    return words[1::2]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_params_take_every_recipe(recipe: Path) -> None:
    load(ROOT / "params.yaml", overrides(recipe))
    assert f"dvc exp run $(grep -v '^#' {recipe.relative_to(ROOT)})" in recipe.read_text()


def test_the_papers_recipe_is_the_papers() -> None:
    train = load(ROOT / "params.yaml", overrides(ROOT / "pipelines/recipes/paper.args")).train
    assert train.model.prediction_type == "epsilon" and not train.model.zero_terminal_snr
    assert train.model.patch_layers == "unet"
    assert (train.image_loss_weight, train.image_first_time_limit) == (5.0, 0.5)
    assert (train.loss.time_distribution, train.loss.time_shift, train.loss.snr_gamma) == ("uniform", 1.0, 0.0)
