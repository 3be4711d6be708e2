"""Register the bundle as a model version: challenger always, champion where the metrics allow it; one version a bundle.

artifacts/{bundle, evaluation, train/run.json}, reports/{evaluate/metrics, export/parity}.json -> reports/register/version.json
"""

from __future__ import annotations

from components.evaluation.kept_items import check_items
from components.runtime import registry
from components.runtime.recording import known_run
from components.runtime.registry import Version, set_alias
from components.runtime.tracking import RunIdentity
from core.files import digest, read_fields, read_json, write_json
from core.metric_keys import FIGURES
from export.builder.model_card import example_prompt
from export.bundle import CARD, Bundle, bundle_digest, open_bundle
from export.run import serving_schema
from pipelines import paths, stage
from pipelines.ancestry import given, of_bundle
from pipelines.promotion import ITEMS_FOLDER, decided, rule_of
from pipelines.sections import Params
from pipelines.version_tags import version_tags

METRICS_REPORT = paths.EVALUATION / "metrics.json"


def main(params: Params) -> None:
    """Register the bundle as a version of the model, with its metrics, card and aliases."""
    config, metrics = params.register, read_json(METRICS_REPORT)
    bundle = open_bundle(paths.BUNDLE)
    manifests, _ = given("train", "evaluation", bundle=bundle.manifest, parts={"train": "run.json"})
    of_bundle(bundle.manifest, parity_needed=True)
    check_items(paths.EVALUATION_ITEMS, manifests["evaluation"])
    trained = read_fields(paths.TRAIN / "run.json", "run_id")
    identity = known_run(trained["run_id"], otherwise="register")
    uri, name, sha256 = identity.tracking_uri, config.name, bundle_digest(bundle.manifest)
    # Also the question whether the registry answers at all: without it nothing is begun.
    known = registry.find_version(uri, name, sha256)
    version = known or _create(identity, params, bundle, metrics, trained.get("name", "a run without a name"))
    if not registry.show_evaluation(uri, version, tag=FIGURES, value=digest(metrics)):
        print(f"{uri} has no run with this evaluation, so MLflow's page of the model is without figures", flush=True)
    if known and not registry.keep_beside(uri, version, ITEMS_FOLDER, paths.EVALUATION_ITEMS):
        print(f"{name} version {version.version} has no files in {uri} any more, so it cannot be compared", flush=True)
    set_alias(uri, name, "challenger", version.version)
    outcome = decided(uri, config, version)
    aliases = ["challenger"] + ["champion"] * outcome.is_champion
    facts = {"name": name, "version": version.version, "run_id": version.run_id, "bundle_sha256": sha256}
    report = {**facts, "aliases": aliases, "reasons": list(outcome.reasons)}
    write_json(paths.REPORTS / "register/version.json", report)
    print(f"{name} version {version.version} ({'known' if known else 'new'}): {' and '.join(aliases)}", flush=True)
    for reason in outcome.reasons:
        print(f"  {reason}", flush=True)


def _create(identity: RunIdentity, params: Params, bundle: Bundle, metrics: dict[str, float], trained: str) -> Version:
    config = params.register
    return registry.create_version(
        identity,
        config.name,
        python_model=serving_schema.MODEL_CODE,
        bundle=bundle.folder,
        bundle_sha256=bundle_digest(bundle.manifest),
        beside={ITEMS_FOLDER: paths.EVALUATION_ITEMS},
        metrics=metrics,
        judged=rule_of(config).read,
        tags={"trained": trained} | version_tags(params, bundle, metrics),
        # The card without its front matter, which is for model hubs.
        description=(bundle.folder / CARD).read_text().split("---\n", 2)[-1].strip(),
        signature=registry.model_signature(serving_schema.OUTPUTS, serving_schema.parameters(bundle.generation)),
        input_example=[example_prompt(metrics)],
        pip_requirements=registry.installed(serving_schema.PACKAGES),
    )


if __name__ == "__main__":
    stage.run("register", __doc__, main)
