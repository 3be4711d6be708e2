"""Encoded bytes, whoever encodes them. D14: other workers, batches, order; D15: the stage or a worker killed in its work."""

from __future__ import annotations

from contextlib import chdir

from benchmarks.data.corpus import Corpus
from benchmarks.faults.corpora import encode_here, params_for, write_inputs
from benchmarks.faults.counts import Found, Setting, Trial, counted, environment, misses
from benchmarks.faults.killed_encoding import digests, drawn, killed_and_resumed


def other_workers(setting: Setting) -> Found:
    """D14: batches of 1, 3 and 64, the last part first, one worker and two; the bytes of one process in order."""
    from components.data.encode.assembly import assemble
    from components.data.encode.encoding import encode_parts
    from pipelines import encode

    work = setting.folder / "work"
    write_inputs(work, 60)
    trials = []
    with chdir(work):
        encode_here(work / "reference", params_for(), work / "one")
        expected = digests(work / "one")
        for batch in (1, 3, 64):
            params = params_for(overrides=(f"encode.batch_size={batch}",))
            encode_here(work / f"batch-{batch}", params, work / "again", reverse=batch == 3)
            trials.append(_same(f"batches of {batch}", expected, digests(work / "again")))
        for workers in () if setting.quick else ("1", "2"):
            sources, settings, assembly, _ = encode.inputs(params_for())
            target = work / f"workers-{workers}"
            with environment({"TRANSFUSION_NUM_ACTORS": workers}):
                encode_parts(sources, settings, target)
            assemble(sources, settings, assembly, target, work / "again")
            trials.append(_same(f"{workers} workers", expected, digests(work / "again")))
    return Found(counted(trials), {}, misses(trials))


def killed_workers(setting: Setting) -> Found:
    """D15: SIGKILL, as the kernel sends it when memory is out: ten times to the stage and ten to a worker amid a part."""
    seed = int(setting.generator.integers(2**20))
    targets = drawn(1 if setting.quick else 10, seed)
    corpus = Corpus(num_documents=len(targets) * 100, side_px=16, documents_per_file=4, seed=seed)
    overrides = ("train.model.patch_side=2", "encode.shard_mib=1")
    outcome = killed_and_resumed(setting.folder, targets, corpus, overrides, finish_here=False)
    missed = "" if outcome.same else "the bytes are not those of an undisturbed run"
    trials = [Trial(missed, wrong_bytes=int(not outcome.same)) for _ in range(outcome.made)]
    return Found(counted(trials), {}, misses(trials), f"in {outcome.starts} starts of the stage")


def _same(what: str, expected: dict[str, str], found: dict[str, str]) -> Trial:
    if found == expected:
        return Trial()
    names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return Trial(f"{what}: {', '.join(names[:3])} differ", wrong_bytes=int(bool(found)))
