"""The mutation command on a small project of its own: what it notices, lets through, leaves out and keeps."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Literal

import pytest

from tests.mutants.__main__ import few_survived
from tests.mutants.drawing import SCOPE, draw, modules_of
from tests.mutants.equivalent import EQUIVALENT
from tests.mutants.listed import LISTED, Listed, MovedText, mutated
from tests.mutants.mapping import groups_of
from tests.mutants.noise import OTHER_MACHINE, Noise
from tests.mutants.running import FolderInUse, Laboratory, Mutant, Result, UnmutatedFailure

SOURCE = '''"""A module."""
from __future__ import annotations

MAX_LOGITS = 8


def clipped(value: int | None, limit: int) -> int:
    """At most limit."""
    if value is None:
        raise ValueError(f"no value, limit {limit - 1}")
    return limit if value > limit else value
'''
TESTS = """
from model.clip import clipped


def test_clipped() -> None:
    assert [clipped(value, 5) for value in (4, 5, 6)] == [4, 5, 5]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name, text in {"model/clip.py": SOURCE, "tests/model/test_clip.py": TESTS, "pyproject.toml": ""}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


def mutant(name: str, old: str, new: str) -> Mutant:
    assert SOURCE.count(old) == 1
    return Mutant(name, f"{old} -> {new}", "model/clip.py", SOURCE.replace(old, new), (("tests/model/test_clip.py",),))


def test_a_real_change_is_noticed_an_equal_one_survives_and_the_checkout_is_left_alone(project: Path, tmp_path: Path) -> None:
    laboratory = Laboratory(project, tmp_path / "folder", libraries=())
    killed = laboratory.run(mutant("wrong side", "value > limit", "value < limit"))
    assert (killed.outcome, killed.noticed_by) == ("killed", ("tests/model/test_clip.py",))
    # Where value equals limit, both branches give the same number.
    assert laboratory.run(mutant("equal", "value > limit", "value >= limit"))[1:3] == ("survived", ())
    assert (project / "model/clip.py").read_text() == (laboratory.tree / "model/clip.py").read_text() == SOURCE
    assert sorted(path.name for path in project.iterdir()) == [".git", "model", "pyproject.toml", "tests"]


def test_results_are_kept_while_the_mutant_and_its_tests_stay_the_same(project: Path, tmp_path: Path) -> None:
    first = Laboratory(project, tmp_path / "folder", libraries=())
    wrong = mutant("wrong side", "value > limit", "value < limit")
    assert first.run(wrong).outcome == "killed"
    with pytest.raises(FolderInUse, match="another --folder"):
        Laboratory(project, tmp_path / "folder", libraries=())
    first.close()
    # The last line of a killed run is cut short.
    with first.journal.open("a") as journal:
        journal.write('{"key": "ab')
    again = Laboratory(project, tmp_path / "folder", libraries=())
    again.log.unlink()
    assert again.run(wrong) == first.run(wrong)
    assert not again.log.exists(), "nothing ran"
    again.close()
    (project / "tests/model/test_clip.py").write_text(TESTS.replace("== [4, 5, 5]", "!= []"))
    weaker = Laboratory(project, tmp_path / "folder", libraries=())
    assert weaker.run(wrong).outcome == "survived"


def test_tests_that_fail_without_a_mutation_say_nothing(project: Path, tmp_path: Path) -> None:
    (project / "tests/model/test_clip.py").write_text(TESTS.replace("[4, 5, 5]", "[4, 5, 6]"))
    laboratory = Laboratory(project, tmp_path / "folder", libraries=())
    with pytest.raises(UnmutatedFailure, match=r"test_clip\.py fail without a mutation"):
        laboratory.run(mutant("wrong side", "value > limit", "value < limit"))
    with pytest.raises(UnmutatedFailure, match="has no tests"):
        laboratory.run(mutant("wrong side", "value > limit", "value < limit")._replace(groups=()))


def test_a_draw_is_the_seeds_and_leaves_noise_out(project: Path) -> None:
    everything = draw(project, ("model",), 99, 1)
    changed = {(one.line, one.operator.split("_")[0]) for one in everything.drawn}
    assert changed == {(9, "AddNot"), (9, "ReplaceComparisonOperator"), (11, "AddNot"), (11, "ReplaceComparisonOperator")}
    assert dict(everything.left_out) == {"annotation": 1, "speed": 1, "text for people": 2}
    assert all(one.mutated != SOURCE for one in everything.drawn)
    assert draw(project, ("model",), 2, 7) == draw(project, ("model",), 2, 7)
    assert len({draw(project, ("model",), 1, seed).drawn[0].line for seed in range(20)}) > 1
    # An edit elsewhere leaves the others as they are.
    (project / "model/clip.py").write_text(SOURCE.replace("MAX_LOGITS = 8", "MAX_LOGITS = 9\nOTHER = 1 + 2"))
    later = {one.what for one in draw(project, ("model",), 99, 1).drawn}
    assert later > {one.what for one in everything.drawn}


def test_rules_look_at_the_place() -> None:
    source = "def f(a, *, b: int = 1) -> int | None:\n    assert a > 0\n    print(a + 1)\n    return g(a + 1, num_threads=2)\n"
    noise = Noise("model/x.py", source)
    places = {(1, 9): "signature", (1, 31): "annotation", (2, 13): "own mistakes", (3, 12): "text for people", (4, 32): "speed"}
    for place, rule in places.items():
        assert noise.rule(place, "ReplaceBinaryOperator_Add_Sub") == rule, place
    assert noise.rule((1, 20), "NumberReplacer") is None
    assert noise.rule((4, 15), "ReplaceBinaryOperator_Add_Sub") is None
    assert Noise("model/attention/flex.py", source).rule((4, 15), "NumberReplacer") == "other machine"


def test_groups_begin_with_the_mirrored_files() -> None:
    files = {
        "tests/model/diffusion/test_noise.py",
        "tests/model/diffusion/test_noise_levels.py",
        "tests/model/test_transfusion.py",
    }
    own = ("tests/model/diffusion/test_noise.py", "tests/model/diffusion/test_noise_levels.py")
    assert groups_of("model/diffusion/noise.py", files) == tuple((name,) for name in (*own, "tests/model/test_transfusion.py"))


def test_every_module_that_is_drawn_from_has_tests() -> None:
    root = Path(__file__).parents[2]
    files = {str(path.relative_to(root)) for path in (root / "tests").rglob("test_*.py")}
    without = [module for module in modules_of(root, SCOPE) if module not in OTHER_MACHINE and not groups_of(module, files)]
    assert not without


def test_a_listed_text_that_has_moved_is_said(project: Path) -> None:
    entry = Listed("no limit", "model/clip.py", "limit if value > limit", "value if value > limit")
    assert "return value if value > limit" in mutated(project, entry)
    for module, old in (("model/clip.py", "min(limit, value)"), ("model/clip.py", "limit"), ("model/gone.py", "limit")):
        with pytest.raises(MovedText, match="'no limit': model/"):
            mutated(project, entry._replace(module=module, old=old))


def test_every_listed_mutation_fits_the_source_and_has_tests() -> None:
    root = Path(__file__).parents[2]
    files = {str(path.relative_to(root)) for path in (root / "tests").rglob("test_*.py")}
    assert len({entry.name for entry in LISTED}) == len(LISTED)
    for entry in LISTED:
        compile(mutated(root, entry), entry.module, "exec")
        missing = set(entry.tests) - files
        assert not missing, f"{entry.name}: {missing}"
        assert entry.tests or groups_of(entry.module, files), entry.name


def test_every_equivalent_change_fits_the_source() -> None:
    root = Path(__file__).parents[2]
    for one in EQUIVALENT:
        assert one.line in [line.strip() for line in (root / one.module).read_text().split("\n")], one
        assert one.why


def test_survivors_count_unless_equivalent_and_an_equivalent_one_must_survive() -> None:
    def result(what: str, outcome: Literal["killed", "survived"], module: str = "model/clip.py") -> Result:
        return Result(Mutant("any", what, module, "", ()), outcome, (), 1.0)

    same = EQUIVALENT[0]
    survivors = [result("a -> b", "survived")]
    assert few_survived([result("a -> b", "killed")] * 19 + survivors)
    assert not few_survived([result("a -> b", "killed")] * 18 + survivors)
    equal = result(same.what, "survived", same.module)
    assert few_survived([equal] * 5)
    assert not few_survived([result("a -> b", "killed")] * 18 + survivors + [equal] * 5)
    assert not few_survived([result(same.what, "killed", same.module)] + [result("a -> b", "killed")] * 30)
