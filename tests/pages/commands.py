"""The commands that the pages tell their readers to type, and how each of them is tested.

A command is found in fenced blocks without a language, and in inline code whose first word is a program's. Every one stands
below: in RUN, and a shell runs it as the page says; in CHECKED, with the reason why it is not run here, and a cheap
command that shows at least that its module, target and options exist; or in NAMED, where a page names it and tells nobody to
type it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *(ROOT / name for name in ("README.md", "infra/README.md", "tests/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
PROGRAMS = frozenset({"make", "python", "dvc", "ray", "mlflow", "export", "git", "pip", "tar", "iconv", ".", "echo"})
ACTIVATE = ". .venv/bin/activate"
# What needs no environment: make makes its own.
WITHOUT_ENVIRONMENT = frozenset({"make", "export", "git", "tar", "iconv", "echo", "."})


class Command(NamedTuple):
    """A command as it stands on a page, without comments and line ends."""

    page: Path
    line: str


class Checked(NamedTuple):
    """A command that is not run."""

    reason: str
    """Why not."""
    probe: str
    """A command that ends with 0 where the module, target and options of the other exist."""
    says: tuple[str, ...] = ()
    """What the probe prints: the options."""


HOURS, ALREADY, PLACEHOLDER = "takes long", "run by another test", "has a place for the reader's own value"
HELP_FAULTS = Checked(HOURS, "python -m benchmarks.faults --help", ("data", "tracking", "training", "--only", "--quick"))
HELP_PUSH = Checked(
    "needs the Hub; tests/export/test_push_to_hub.py has one",
    "python -m export.push_to_hub --help",
    ("--repo", "--private", "--model"),
)
# Whether the last version of that project is better than the one before is chance; its champion is there for certain.
PROMOTE = Checked(ALREADY, "python -m pipelines.promote champion --dry-run", ("it is the champion already",))
HELP_COMPARE = Checked(
    "needs another evaluation than the champion's; tests/pipelines/test_compare.py has them",
    "python -m pipelines.compare champion workspace -o beside.html",
    ("every figure, and the pictures: beside.html",),
)
HELP_PROMOTE = Checked(
    "needs several versions; tests/pipelines/test_promote.py has them",
    "python -m pipelines.promote --help",
    ("VERSION", "--without-comparison", "--roll-back"),
)

# Without the extra it says so, and with it the harness prints its options.
HARNESS = Checked(
    "needs the extra lm-eval; tests/components/evaluation/test_harness.py runs a local task where it is installed",
    "python -m components.evaluation.harness run --help || python -c 'import components.evaluation.harness'",
)
HELP_BUNDLE = Checked(
    "minutes an engine; tests/pipelines/bundle_stages/test_evaluate_bundle.py runs two",
    "python -m pipelines.evaluate_bundle --help",
    ("bundle", "--engine {auto,tensorrt,onnxruntime,torch}", "--set"),
)

# Queued, and not run: tests/components/runtime/test_recording_stores.py runs a queue of one small stage.
QUEUE = Checked(
    HOURS,
    "dvc exp run --queue --name slow -S train.learning_rate=0.001"
    " && dvc exp run --queue -S train.learning_rate=0.002,0.004 -S train.seed=17,18"
    " && dvc queue status && dvc queue remove --all",
    ("slow", "Queued", "train.learning_rate=0.004", "train.seed=18"),
)

# In this order, in the project that the page on own corpora leaves behind.
RUN: tuple[str, ...] = (
    "make help",
    # DVC's experiments are commits.
    "git config user.name me",
    "git config user.email me@example.org",
    "dvc dag --mermaid",
    "dvc status",
    "dvc repro validate@documents",
    "dvc metrics show",
    "dvc metrics show reports/train/metrics.json",
    "dvc metrics diff",
    "dvc plots show",
    "dvc exp show",
    "make experiments",
    "dvc queue status",
    "python -m pipelines.inputs",
    "python -m pipelines.report",
    "python -m pipelines.sync",
    'python -m export.ask "a red three top left" -o three.png',
    'python -m export.ask "a red three top left" --model models:/transfusion@champion --seed 1 -o another.png',
    "python -m export.ask --image three.png",
    'python -m export.ask "Return the" --task text',
    "python -m export.ask --help",
    "python -m export.push_to_hub --repo me/digits --dry-run",
    'python artifacts/bundle/code.pyz "a red three top left" -o three.png',
    "python artifacts/bundle/code.pyz --help",
    "python -m pipelines.train --set train.max_steps=100",
    "ray get-auth-token --generate > /dev/null",
    "iconv -f LATIN1 -t UTF-8",
)
# The page on own corpora runs these, in its own order.
RUN_BY_OWN_CORPUS: tuple[str, ...] = (
    "make repro",
    "dvc repro",
    "dvc repro export",
    ACTIVATE,
    "python -m pipelines.configure mine.yaml",
    'python -m export.ask "a black cat on a red chair" -o cat.png',
    "python -m export.ask --image pictures/0001.jpg",
    "python -m pipelines.infer --set infer.requests=mine.jsonl",
)

# So does the page on sharing: what one clone sends, and what another takes.
RUN_BY_SHARING: tuple[str, ...] = (
    "dvc remote add --default results ../results",
    "git add .dvc/config params.yaml dvc.lock reports",
    'git commit -m "A run and its results"',
    "dvc push",
    "dvc pull",
    "dvc pull artifacts/bundle",
    "dvc pull inputs",
    "dvc repro --pull --allow-missing",
)

# And the page on fine-tuning, as far as the training.
RUN_BY_FINE_TUNING: tuple[str, ...] = ("python -m pipelines.configure edits.yaml",)

CHECKED: dict[str, Checked] = {
    "make": Checked(PLACEHOLDER, "make -n help"),
    "make summary": Checked(
        "make repro ends with it; tests/pipelines/test_summary.py", "make -n summary", ("pipelines.summary",)
    ),
    **dict.fromkeys(
        (
            "python -m pipelines.evaluate_bundle",
            "python -m pipelines.evaluate_bundle --engine onnxruntime",
            "python -m pipelines.evaluate_bundle path/to/bundle --engine tensorrt --set evaluate.batch_size=8",
        ),
        HELP_BUNDLE,
    ),
    "make test": Checked(HOURS, "make -n test", ("pytest",)),
    "make check": Checked(HOURS, "make -n check", ("ruff", "basedpyright", "lint-imports")),
    "make mutants": Checked(HOURS, "make -n mutants", ("tests.mutants",)),
    "make setup-trt": Checked("downloads gigabytes for a GPU", "make -n setup-trt", ("requirements-tensorrt.txt",)),
    "make ui": Checked("serves until it is stopped; tests/pipelines/test_ui.py", "make -n ui", ("pipelines.ui --port 5000",)),
    "make ui PORT=5001": Checked("the same", "make -n ui PORT=5001", ("pipelines.ui --port 5001",)),
    "make wire": Checked("changes dvc.yaml; tests/contracts/test_wiring.py", "make -n wire", ("pipelines.wiring",)),
    # One stage of the experiment, and not the training: whether the values are taken shows by then.
    "dvc exp run -S train.max_steps=2000": Checked(HOURS, "dvc exp run -S train.max_steps=2000 inputs", ("Ran experiment",)),
    "dvc exp run $(grep -v '^#' pipelines/recipes/paper.args)": Checked(
        # The recipe's U-Net is of the demonstration's patch side, half of this project's.
        HOURS,
        "dvc exp run $(grep -v '^#' pipelines/recipes/paper.args) -S train.model.unet_channels=[64,128,256,256] inputs",
        ("Ran experiment",),
    ),
    "dvc exp run $(grep -v '^#' pipelines/recipes/fine_tune.args)": Checked(
        HOURS,
        # Later commands find the parameters as they were, for `start` goes.
        "cp params.yaml kept.yaml && cp -r artifacts/bundle start"
        " && dvc exp run $(grep -v '^#' pipelines/recipes/fine_tune.args) inputs && rm -r start && mv kept.yaml params.yaml",
        ("Ran experiment", "train: pretrained: "),
    ),
    'python -m export.ask "make the cat white" --image edits/0001-before.png -o edited.png': Checked(
        "needs the fine-tuned bundle; of the one before",
        'python -m export.ask "make the cat white" --image pictures/0001.png -o edited.png',
        ("edited.png",),
    ),
    "mlflow artifacts download --artifact-uri models:/transfusion/3 --dst-path version-3": Checked(
        "needs a third version",
        "mlflow artifacts download --artifact-uri models:/transfusion/1 --dst-path version-1"
        " && ls version-1/artifacts/bundle && rm -r version-1",
        ("manifest.json",),
    ),
    "dvc exp run --temp": Checked("another copy of the project", "dvc exp run --help", ("--temp", "--queue")),
    # In a copy without the corpus, which git does not know.
    "dvc exp run --temp --name warmer -S train.learning_rate=0.004": Checked(
        HOURS, "dvc exp run --temp --name warmer -S train.learning_rate=0.004 inputs", ("Ran experiment", "are kept")
    ),
    "dvc exp run --queue --name slow -S train.learning_rate=0.001": QUEUE,
    "dvc exp run --queue --name fast -S train.learning_rate=0.006": QUEUE,
    "dvc exp run --queue -S train.learning_rate=0.002,0.004 -S train.seed=17,18": QUEUE,
    "dvc queue start": Checked("works on in the background", "dvc queue start --help", ("--jobs",)),
    "dvc queue start --jobs 2": Checked("the same", "dvc queue start --help", ("--jobs",)),
    "dvc queue logs slow": Checked("needs an experiment that has run", "dvc queue logs --help"),
    "dvc queue kill slow": Checked("needs an experiment that runs", "dvc queue kill --help"),
    "dvc queue stop": Checked("needs a worker", "dvc queue stop --help"),
    "dvc queue remove --all": QUEUE,
    "dvc exp apply fast": Checked("needs an experiment that has run", "dvc exp apply --help"),
    "dvc exp run": Checked("a part of the others", "dvc exp run --help", ("--copy-paths",)),
    "dvc remote add --default results s3://bucket/results": Checked(
        "needs a bucket; tests/pipelines/test_inputs_away.py has one", "dvc remote add --help", ("--default",)
    ),
    "git push": Checked("needs a repository elsewhere", "git remote"),
    "dvc repro -f ingest": Checked(ALREADY, "dvc repro --dry -f ingest", ("python -m pipelines.ingest",)),
    "dvc repro --single-item <stage>": Checked(
        PLACEHOLDER, "dvc repro --dry --force --single-item encode", ("python -m pipelines.encode",)
    ),
    'python bundle/code.pyz "a red three top left" -o three.png': Checked(
        "a copied bundle's; tests/export/builder/test_own_code.py", "python artifacts/bundle/code.pyz --help", ("prompt", "-o")
    ),
    'pip install -e ".[clip]" -c constraints.txt': Checked("adds a package of 130 MB", "grep 'clip = ' pyproject.toml"),
    'pip install -e ".[lm-eval]" -c constraints.txt': Checked("adds packages of 130 MB", "grep 'lm-eval = ' pyproject.toml"),
    "python -m components.evaluation.harness --include_path tasks --tasks mine": HARNESS,
    "python -m components.evaluation.harness --tasks hellaswag,piqa,social_iqa,winogrande,arc_easy,arc_challenge,boolq"
    " --num_fewshot 0 --batch_size 32 --output_path harness": HARNESS,
    "python -m export.geneval --prompts geneval/prompts/evaluation_metadata.jsonl -o pictures": Checked(
        "needs GenEval's prompts; tests/export/test_geneval.py has some",
        "python -m export.geneval --help",
        ("--prompts", "--output", "--samples", "--model", "--engine"),
    ),
    "python -m export.page": Checked("serves until it is stopped", "python -m export.page --help", ("--port",)),
    "make setup": Checked("downloads an environment", "make -n setup"),
    "python -m export.push_to_hub --repo me/digits --private": HELP_PUSH,
    "python -m export.push_to_hub --repo me/digits --model models:/transfusion@champion": HELP_PUSH,
    "python -m pipelines.<stage>": Checked(PLACEHOLDER, "python -m pipelines.encode --help", ("--set", "--params")),
    "python -m pipelines.register": Checked(ALREADY, "python -m pipelines.register --help", ("--set",)),
    "python -m pipelines.compare champion workspace": HELP_COMPARE,
    "python -m pipelines.compare champion workspace -o beside.html": HELP_COMPARE,
    "python -m pipelines.compare champion challenger": HELP_COMPARE,
    "python -m pipelines.compare slow fast": HELP_COMPARE,
    "python -m pipelines.promote": PROMOTE,
    "python -m pipelines.promote --dry-run": PROMOTE,
    "python -m pipelines.promote 3": HELP_PROMOTE,
    "python -m pipelines.promote 3 --without-comparison": HELP_PROMOTE,
    "python -m pipelines.promote --roll-back": HELP_PROMOTE,
    "python -m pipelines.sync --uri ADDRESS": Checked(PLACEHOLDER, "python -m pipelines.sync --help", ("--uri",)),
    "python -m benchmarks.data": Checked(HOURS, "python -m benchmarks.data --help"),
    "python -m benchmarks.gpu": Checked("needs a GPU; tests/benchmarks/test_gpu.py runs it at toy size", "ls benchmarks/gpu"),
    "python -m benchmarks.peer": Checked(HOURS, "python -m benchmarks.peer --help"),
    "python -m benchmarks.recipes": Checked(
        "hours; test_demonstration.py runs one, with its options", "ls benchmarks/recipes.py"
    ),
    "python -m benchmarks.training --only overlap": Checked(
        "for a machine that does nothing else", "python -m benchmarks.training --help", ("--only", "overlap")
    ),
    "python -m benchmarks.training.checkpoints": Checked(
        "for a machine that does nothing else", "ls benchmarks/training/checkpoints.py"
    ),
    "python -m benchmarks.training.workers": Checked(
        "for a machine that does nothing else", "ls benchmarks/training/workers.py"
    ),
    "python -m benchmarks.profile_step": Checked(HOURS, "python -m benchmarks.profile_step --help"),
    "python -m benchmarks.faults data": HELP_FAULTS,
    "python -m benchmarks.faults tracking": HELP_FAULTS,
    "python -m benchmarks.faults training": HELP_FAULTS,
    "python -m tests.mutants --only-drawn --drawn 200 --seed 24": Checked(
        HOURS, "python -m tests.mutants --help", ("--only-drawn", "--drawn", "--seed")
    ),
    "python -m tests.listeners make repro": Checked(HOURS, "python -m tests.listeners true"),
    "mlflow models serve -m models:/transfusion@champion --env-manager local": Checked(
        "serves until it is stopped; tests/pipelines/bundle_stages/test_served.py loads the model",
        "mlflow models serve --help",
        ("-m", "--env-manager"),
    ),
    "mlflow server --backend-store-uri sqlite:////var/lib/mlflow/mlflow.db --artifacts-destination /var/lib/mlflow/artifacts"
    " --host 127.0.0.1 --port 5000": Checked(
        "serves until it is stopped, from a folder of the system's",
        "mlflow server --help",
        ("--backend-store-uri", "--artifacts-destination", "--host", "--port", "--app-name"),
    ),
    "ray start --head --port 6379 --dashboard-host 127.0.0.1 --temp-dir ~/.ray-files": Checked(
        "a cluster of its own; tests/components/runtime/test_cluster.py joins one",
        "ray start --help",
        ("--head", "--port", "--dashboard-host", "--temp-dir"),
    ),
    "tar --sort=name": Checked("makes a reader's own tar", "tar --sort=name -cf /dev/null README.md"),
}

# Programs, and beginnings of commands that stand whole elsewhere.
NAMED = frozenset({"dvc", "export", "git", "mlflow", "python -m export.ask", "ray", "ray start"})


def commands() -> list[Command]:
    """Of all pages, in their order."""
    return [Command(page, line) for page in PAGES for line in commands_of(page.read_text())]


def blocks_of(text: str, *, language: str) -> list[str]:
    """The fenced blocks of a page in one language, "" for those of commands."""
    return [block for found, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S) if found == language]


def commands_of(text: str) -> Iterator[str]:
    """Of one page: the blocks' first, then those in its sentences and tables."""
    for block in blocks_of(text, language=""):
        for line in block.replace("\\\n", " ").splitlines():
            yield from _command(line)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for code in re.findall(r"`([^`]+)`", rest.replace("\n", " ")):
        yield from _command(code)


def leaves(tree: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a tree of parameters, by their dotted names."""
    if not isinstance(tree, dict) or not tree:
        return {".".join(path): tree}
    return {name: value for key, inner in tree.items() for name, value in leaves(inner, (*path, key)).items()}


def variables() -> frozenset[str]:
    """What infra/env.example lists: a variable that a page sets and nothing reads would be set for nothing."""
    return frozenset(re.findall(r"^#?(\w+)=", (ROOT / "infra/env.example").read_text(), re.M))


def _command(line: str) -> Iterator[str]:
    """The line without its comment, if it is a command."""
    plain = " ".join(re.sub(r"\s+#.*", "", line).split())
    if plain and plain.split()[0] in PROGRAMS:
        yield plain
