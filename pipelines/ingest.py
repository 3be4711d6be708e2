"""Make captioned images and text of any supported format into documents with splits, and train the tokenizer.

ingest.corpora -> data/documents, data/tokenizer, data/requests, data/quarantine/ingest.jsonl, reports/ingest
"""

from __future__ import annotations

from collections.abc import Mapping

from components.data.config import BUILT_IN
from components.data.demonstration.example_requests import write_requests
from components.data.ingest.corpora import collect, finish, has_scenes, kept_out, learn_tokenizer
from components.runtime.ancestors import check_ancestors
from core.files import fresh_folder, write_json
from core.manifest import manifest_of
from core.text import counted
from pipelines import paths, stage
from pipelines.sections import Params

REJECTED = paths.QUARANTINE / "ingest.jsonl"
REPORT = paths.REPORTS / "ingest/counts.json"


def main(params: Params) -> None:
    """Collect the corpora, learn the tokenizer, describe every document, and write example requests."""
    config = params.ingest
    collected = collect(config, paths.DOCUMENTS, REJECTED)
    tokenizer = learn_tokenizer(config, paths.DOCUMENTS, collected)
    tokenizer.save(fresh_folder(paths.TOKENIZER))
    ancestors = check_ancestors({paths.TOKENIZER: manifest_of(paths.TOKENIZER, kind="tokenizer")})
    report = finish(config, paths.DOCUMENTS, collected, tokenizer, ancestors)
    own = [corpus.name for corpus in config.corpora if corpus.format not in BUILT_IN]
    facts = {"kept_out": kept_out(config), "has_scenes": has_scenes(config), "own": own, "seed": config.seed}
    num_requests = write_requests(paths.REQUESTS, paths.DOCUMENTS, **facts)
    write_json(REPORT, report)
    for name, counts in report["corpora"].items():
        print(
            f"{name}: {_said(counts, 'candidates')} = {_said(counts, 'documents')} + {counts['rejected']} rejected"
            f" + {counted(counts['duplicates_dropped'], 'duplicate')} dropped",
            flush=True,
        )
        for sentence in collected.corpora[name].passed_over.sentences():
            print(f"{name}: passed over {sentence}", flush=True)
        for what in ("notes", "duplicates"):
            if counts[what]:
                print(f"{name}: {what}: {', '.join(f'{kind} ({count})' for kind, count in counts[what].items())}", flush=True)
    for split, sources in report["splits"].items():
        for source, entry in sources.items():
            print(
                f"{split} {source}: {', '.join(_said(entry, what) for what in ('documents', 'images', 'tokens'))}",
                flush=True,
            )
    print(
        f"documents in {paths.DOCUMENTS}, tokenizer of {tokenizer.vocab_size} in {paths.TOKENIZER},"
        f" {counted(num_requests, 'request')} in {paths.REQUESTS}, rejected records in {REJECTED}, counts in {REPORT}",
        flush=True,
    )


def _said(counts: Mapping[str, int], what: str) -> str:
    """As "3 documents". what: the name of the count, which ends in an s."""
    return counted(counts[what], what.removesuffix("s"), what)


if __name__ == "__main__":
    stage.run("ingest", __doc__, main)
