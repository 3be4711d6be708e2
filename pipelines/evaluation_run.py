"""An evaluation as a run of its own in MLflow, below that of the training: headline figures, curves, a table and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from components.evaluation.metrics import HEADLINE, curve_name, curves, table
from components.runtime.recording import later_run, recorded
from components.runtime.run_evaluations import PARENT
from components.runtime.tracking import About, Table
from core.files import digest, read_fields, read_json
from core.metric_keys import FIGURES
from core.png import decode_png
from core.text import counted
from pipelines import paths
from pipelines.described import changes, compared, said, yaml_of
from pipelines.sections import Params

# Always logged; others where they were changed.
COMPARED = ("evaluate.guidance_scale", "evaluate.num_solver_steps", "evaluate.seed")
# Sorts first among the sections of MLflow's charts.
PICTURES = "a sample/pictures from prompts"
FOLDER, ITEMS = "evaluate", "items"


def record(
    params: Params,
    report: Path,
    training: Path,
    *,
    documents: tuple[Path, str],
    captions: Sequence[tuple[str, ...]],
    started_ms: int,
) -> None:
    """Record the evaluation whose report this is. training: the trained model's folder; documents: their folder and digest;
    captions: as `caption_rows` gives them.

    Each evaluation is recorded by itself, and the training's run stays as it was. No store need answer now.
    """
    metrics, trained = read_json(report / "metrics.json"), read_fields(training / "run.json", "run_id")
    about = described(params, trained.get("name", "a model"))
    tags = {PARENT: trained["run_id"], FIGURES: digest(metrics), "mlflow.note.content": about.note}
    with recorded(later_run(about.name, tags=tags, started_ms=started_ms)) as tracker:
        tracker.params(about.params)
        tracker.dataset("held-out documents", digest=documents[1], source=documents[0], context="evaluation")
        # At step 0 MLflow draws a bar, and compares evaluations by bars; at any other a curve of one point.
        tracker.metrics({figure.key: figure.value for figure in table(metrics) if figure.key in HEADLINE.values()}, 0)
        for name, curve in curves(metrics).items():
            for hundredths, value in curve.items():
                tracker.metrics({curve_name(name): value}, hundredths)
        rows = [(each.key, each.value, each.standard_error, each.metric.better, each.metric.meaning) for each in table(metrics)]
        tables: dict[str, Table] = {"figures.json": (("figure", "value", "standard error", "better", "what it is"), rows)}
        if captions:
            tables["captions.json"] = (("in the corpus", "likeliest", "sampled", "judged"), list(captions))
        tracker.tables(tables)
        tracker.image(decode_png((report / "samples.png").read_bytes()), PICTURES, 0)
        tracker.text(about.params_yaml, "params.yaml")
        tracker.artifact(report, FOLDER)
        # What `python -m pipelines.compare` reads of a run.
        tracker.artifact(paths.EVALUATION_ITEMS, ITEMS)


def described(params: Params, trained: str) -> About:
    """What a person is told of it. trained: the name of the training."""
    config = params.evaluate
    how = f"guidance {config.guidance_scale:g}, {counted(config.num_solver_steps, 'step')}"
    changed = changes(params, ("evaluate",))
    note = (
        "Every figure is in the artifact `figures.json`, a table, and some captions in `captions.json`; the page of the whole"
        " run is `reports/index.html` of the project.\n\n"
        f"Evaluates **{trained}**; pictures with {how}. {said(changed)}"
    )
    shown = {"trained": trained} | compared(params, COMPARED, changed)
    return About(f"evaluation of {trained} ({how})", shown, yaml_of(params), note)
