"""The split and the layout of a document follow from its key alone, in every process and for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.data.config import SplitShares
from components.data.splits import split_of
from core.random import uniform_of

SHARES = SplitShares(validation=0.3, test=0.3)
# The first eight bytes of the sha256 of purpose, seed and key with a NUL between them, as the command sha256sum gives it.
KNOWN = {
    ("split", 17, "000012"): 0x332161802E611068,
    ("layout", 17, "v1.003"): 0x90DAB6782A63BF66,
    ("caption", 3, "caf\xe9"): 0xD67E3655A9ADC1A5,
    ("split", 3, ""): 0xFF4420541D4917D9,
}
# The splits of key 0, key 1, ... at seed 17, from the same command.
SPLITS = ["train", "train", "test", "test", "train", "test", "validation", "validation", "test", "train", "test", "train"]
ROOT = Path(__file__).resolve().parents[3]
ASK = """
from components.data.config import SplitShares
from components.data.splits import split_of
from core.random import uniform_of
shares = SplitShares(validation=0.3, test=0.3)
print([split_of(f"key {n}", shares, 17) for n in range(200)], [uniform_of("layout", f"key {n}", 17) for n in range(200)])
"""


def test_draws_are_those_of_the_definition() -> None:
    for (purpose, seed, key), expected in KNOWN.items():
        assert uniform_of(purpose, key, seed) == expected / 2**64
    assert [split_of(f"key {number}", SHARES, 17) for number in range(len(SPLITS))] == SPLITS


def test_two_processes_with_different_hash_seeds_agree() -> None:
    answers = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
        answers.add(done.stdout)
    assert len(answers) == 1 and "train" in answers.pop()


@pytest.mark.parametrize("shares", [(0.08, 0.12), (0.5, 0.2), (0.0, 0.0)])
def test_the_shares_are_met(shares: tuple[float, float]) -> None:
    validation, test = shares
    config = SplitShares(validation=validation, test=test)
    found = [split_of(f"{number:06d}", config, 17) for number in range(4000)]
    for split, share in (("validation", validation), ("test", test), ("train", 1 - validation - test)):
        # Four standard deviations of a draw of 4000.
        assert abs(found.count(split) / 4000 - share) <= 4 * (share * (1 - share) / 4000) ** 0.5
