"""Named mutations that the tests must notice, each as the exact text that stands in the source and what replaces it.

Where the old text is no longer found exactly once, the run fails: the list moves with the code. A defect that got past
the tests adds its line here.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Listed(NamedTuple):
    """tests: files that must notice, in place of those of tests/mutants/mapping.py."""

    name: str
    module: str
    old: str
    new: str
    tests: tuple[str, ...] = ()


LOOP, READER = "components/training/transformer/trainer.py", "components/training/transformer/step_batch.py"
OPTIMISER, WORLD = "components/training/optimiser.py", "components/runtime/world.py"
STEPS = ("tests/components/training/transformer/test_trainer.py",)
ACCUMULATION = ("tests/components/training/transformer/test_accumulation.py",)
NO_WAIT = ("tests/components/training/transformer/test_no_wait.py",)
PREFETCH = ("tests/components/data/test_prefetch.py",)
TRAIN = ("tests/components/training/transformer/test_worker.py",)

TRAINING_STEP = (
    Listed(
        "always the rows of step 0",
        READER,
        "rows_of_step(self.config.seed, step - 1, self.config.batch_rows",
        "rows_of_step(self.config.seed, 0, self.config.batch_rows",
    ),
    Listed("no caption is dropped", READER, "step, config.caption_dropout, config.resample", "step, 0.0, config.resample"),
    Listed(
        "latents are not resampled",
        READER,
        "config.caption_dropout, config.resample_latents)",
        "config.caption_dropout, False)",
    ),
    Listed(
        "the same noise every step",
        READER,
        "training_noise(self.process, part, number, config.seed, step, config.loss)",
        "training_noise(self.process, part, number, config.seed, 1, config.loss)",
    ),
    Listed("no image weight in the loss", LOOP, "config.image_loss_weight * local.image", "local.image"),
    Listed(
        "gradients are not clipped",
        OPTIMISER,
        "nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)",
        "pass",
        STEPS,
    ),
    Listed(
        "the learning rate is never set", OPTIMISER, 'group["lr"] = learning_rate * group.get("rate_share", 1.0)', "pass", STEPS
    ),
    Listed(
        "validation with training's loss options",
        LOOP,
        "replace(self.config.loss, after_image_weight=1.0, snr_gamma=0.0, z_loss_weight=0.0)",
        "replace(self.config.loss)",
    ),
    Listed("validation on raw weights", LOOP, "loss_sums(self.state.ema_model, batch", "loss_sums(self.state.model, batch"),
    Listed(
        "no limit for images that come first",
        READER,
        "image_first_time_limit=self.config.image_first_time_limit",
        "image_first_time_limit=1.0",
    ),
    Listed("samples from raw weights", LOOP, "callback.sample(step, state.ema_model)", "callback.sample(step, state.model)"),
    Listed(
        "the loss is not multiplied by the number of workers",
        LOOP,
        "(loss * (self.world.size * micro_batch.share)).backward()",
        "(loss * micro_batch.share).backward()",
    ),
    Listed(
        "rows that count for nothing bring gradients",
        LOOP,
        "(loss * (self.world.size * micro_batch.share)).backward()",
        "(loss * self.world.size).backward()",
        ACCUMULATION,
    ),
    Listed(
        "a pass is divided by its own worker's counts",
        LOOP,
        "self.world.all_reduce(local.divisors",
        "(local.divisors",
        ACCUMULATION,
    ),
    Listed(
        "one pass's counts for the whole step",
        READER,
        "num_values = sum(float(each.counts[0]) for each in micro_batches)",
        "num_values = float(micro_batches[0].counts[0])",
        ACCUMULATION,
    ),
    Listed(
        "gradients of the last pass alone are exchanged",
        "components/training/gradient_sync.py",
        'hasattr(network, "no_sync") and not is_last',
        'hasattr(network, "no_sync") and is_last',
        ACCUMULATION,
    ),
    Listed(
        "rows that do not fit a pass are left out",
        READER,
        "np.array_split(local, self.num_micro_batches)",
        "np.array_split(local, self.num_micro_batches)[:1]",
        ACCUMULATION,
    ),
    Listed("gradients pile up", OPTIMISER, "optimiser.zero_grad()", "pass", STEPS),
    Listed(
        "weights are never averaged",
        LOOP,
        "update_ema(state.ema_model, state.model, config.ema_decay, step, stepped.skipped)",
        "pass",
    ),
    Listed("only worker 0's counts", WORLD, "torch.distributed.all_reduce(values)", "pass", STEPS),
    Listed("every worker reads all rows", READER, "numbers[self.world.slice_of(len(numbers))]", "numbers"),
    Listed("validation drops captions", LOOP, "step=0, caption_dropout=0.0", "step=0, caption_dropout=0.5"),
    Listed(
        "validation at other noise every time",
        LOOP,
        "self.config.seed, 0, options)",
        "self.config.seed, time.time_ns() % 2**31, options)",
    ),
    Listed(
        "a warm-up that begins at the full rate",
        "components/training/transformer/schedule.py",
        "config.learning_rate * step / config.warmup_steps",
        "config.learning_rate",
    ),
    Listed("no decay of the rate", "components/training/transformer/schedule.py", "(1 + math.cos(math.pi * done)) / 2", "1.0"),
    Listed(
        "norms decay too",
        "components/training/transformer/optimiser.py",
        "config.weight_decay if each.dim() >= 2 else 0.0",
        "config.weight_decay",
    ),
)

WIRING = (
    Listed(
        "resume repeats a step",
        "components/training/transformer/worker.py",
        "trainer.run(watchdog.over(trainer, trainer.schedule(callback)), first_step=first_step)",
        "trainer.run(watchdog.over(trainer, trainer.schedule(callback)), first_step=max(1, first_step - 1))",
        TRAIN,
    ),
    Listed(
        "quarantined documents are trained on",
        "components/training/transformer/worker.py",
        'PackedRows(run.latents, "train", run.quarantine)',
        'PackedRows(run.latents, "train", None)',
        TRAIN,
    ),
    Listed(
        "validation on the training split",
        "components/training/transformer/worker.py",
        'PackedRows(run.latents, "validation", run.quarantine)',
        'PackedRows(run.latents, "train", run.quarantine)',
        TRAIN,
    ),
    Listed(
        "raw weights are published",
        "components/training/transformer/callbacks.py",
        "write_network(self.checkpointer.folder, state.kept_network,",
        'write_network(self.checkpointer.folder, "model",',
        TRAIN,
    ),
)

EVALUATION = (
    Listed(
        "the caption gap has the wrong sign",
        "components/evaluation/suite.py",
        "float(np.mean(losses.wrong) - np.mean(losses.right))",
        "float(np.mean(losses.right) - np.mean(losses.wrong))",
        ("tests/components/evaluation/test_suite.py",),
    ),
    Listed(
        "right and wrong captions change places",
        "components/evaluation/diffusion.py",
        '{"right": right, "wrong": wrong, ',
        '{"right": wrong, "wrong": right, ',
    ),
    Listed(
        "retrieval ranks the queries of a candidate",
        "components/evaluation/retrieval.py",
        "hits(less_average(found))",
        "hits(less_average(found.swapaxes(1, 2)))",
    ),
    Listed(
        "an image has other noise under every caption",
        "components/evaluation/retrieval.py",
        "first_image=image",
        "first_image=None",
    ),
    Listed(
        "the digit classifier is trained on held-out scans",
        "components/evaluation/scenes/measure.py",
        "train_classifier(training.scans, config.digit_classifier, config.seed)",
        "train_classifier(sorted({scan for entry in scenes for scan in entry.scans}), config.digit_classifier, config.seed)",
        ("tests/components/evaluation/test_suite.py",),
    ),
    Listed(
        "the digit classifier is trained on all scans",
        "components/evaluation/scenes/digit_classifier.py",
        "chosen = np.asarray(scans, np.int64)",
        "chosen = np.arange(len(all_scans.digit))",
    ),
    Listed(
        "scans shared with held-out scenes are no fault",
        "components/evaluation/scenes/measure.py",
        "& set(training.scans)",
        "& set()",
        ("tests/components/evaluation/test_suite.py",),
    ),
)

DATA_AND_DOORS = (
    Listed(
        "splits by a hash that changes with the process",
        "core/random.py",
        r'int.from_bytes(_sha256(f"{purpose}\0{seed}\0{name}")[:8], "big") / 2**64',
        "(hash((purpose, seed, name)) % 2**64) / 2**64",
        ("tests/components/data/test_splits.py",),
    ),
    Listed(
        "the stage's lock is not taken",
        "pipelines/stage.py",
        "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        ("tests/pipelines/test_stage.py",),
    ),
    Listed(
        "Ray without authentication",
        "components/runtime/cluster.py",
        'os.environ.setdefault("RAY_AUTH_MODE", "token")',
        'os.environ.setdefault("RAY_AUTH_MODE", "disabled")',
        ("tests/components/runtime/test_doors.py",),
    ),
    Listed(
        "a parity limit ten times too wide",
        "export/builder/make_bundle.py",
        'if not entry["largest_error"] <= entry["limit"]',
        'if not entry["largest_error"] <= 10 * entry["limit"]',
        ("tests/export/builder/test_limits.py",),
    ),
    Listed(
        "a request's max_new_tokens is ignored",
        "export/run/predictor.py",
        "request = text_request(config, self._ids(prompt), seed=seed, max_new_tokens=options.max_new_tokens)",
        "request = text_request(config, self._ids(prompt), seed=seed, max_new_tokens=512)",
        ("tests/export/run/test_options.py",),
    ),
    Listed(
        "a caption's max_new_tokens is ignored",
        "export/run/predictor.py",
        "caption_request(config, self._latents(prompt, folder), seed=seed, max_new_tokens=options.max_new_tokens)",
        "caption_request(config, self._latents(prompt, folder), seed=seed, max_new_tokens=512)",
        ("tests/export/run/test_options.py",),
    ),
)

ANCESTORS_AND_STORES = (
    Listed(
        "another ancestor than stands here is no fault",
        "components/runtime/ancestors.py",
        "if kind in found and found[kind][0] != wanted:",
        "if kind in found and found[kind][0] is None:",
        ("tests/pipelines/test_ancestry.py",),
    ),
    Listed(
        "two things made from different ancestors are no fault",
        "components/runtime/ancestors.py",
        "if first != wanted:",
        "if first is None:",
        ("tests/components/runtime/test_ancestors.py",),
    ),
    Listed(
        "what is given belongs to no bundle",
        "pipelines/ancestry.py",
        "check_ancestors(places | ({paths.BUNDLE: bundle} if bundle else {}))",
        "check_ancestors(places)",
        ("tests/pipelines/test_ancestry.py",),
    ),
    Listed(
        "a damaged chunk of a picture's pixels is shown",
        "core/png_chunks.py",
        "damaged |= begun and not chunk.is_intact",
        'damaged |= begun and chunk.kind != b"IDAT" and not chunk.is_intact',
    ),
    Listed(
        "a damaged name hides a chunk of a picture's pixels",
        "core/png_chunks.py",
        "damaged |= begun and not chunk.is_intact",
        'damaged |= chunk.kind == b"IDAT" and not chunk.is_intact',
    ),
    Listed(
        "a file that changed in size alone is the same",
        "core/fingerprint.py",
        'yield Entry(name, status.st_size, f"{status.st_mtime_ns}',
        'yield Entry(name, 0, f"{status.st_mtime_ns}',
        ("tests/pipelines/test_inputs.py",),
    ),
    Listed(
        "a file that changed in time alone is the same",
        "core/fingerprint.py",
        'f"{status.st_mtime_ns} {',
        'f"{',
        ("tests/pipelines/test_inputs.py",),
    ),
    Listed(
        "the pictures that requests name are not looked at",
        "pipelines/named_files.py",
        '"pictures": (path.parent / name for name in named)',
        '"pictures": []',
        ("tests/pipelines/test_inputs.py",),
    ),
    Listed(
        "what was appended counts as delivered",
        "components/runtime/outbox.py",
        "found, end = list[Entry](), self._delivered(lane)",
        "found, end = list[Entry](), self.entries.stat().st_size if self.entries.exists() else 0",
        ("tests/components/runtime/test_recording.py",),
    ),
    Listed(
        "points that the store has are sent again",
        "components/runtime/delivery.py",
        "if point not in known:",
        "if point != ():",
        ("tests/components/runtime/test_recording.py",),
    ),
    Listed(
        "an outbox that was not delivered is deleted",
        "components/runtime/outbox.py",
        "if not alone or self.waiting() or not (ended or self.has_ended())",
        "if not alone or not (ended or self.has_ended())",
        ("tests/components/runtime/test_outbox.py",),
    ),
    Listed(
        "hidden files are data",
        "components/data/ingest/readers/passed_over.py",
        'return name.startswith((".", "~")) or name.lower() in SYSTEM_NAMES',
        "return name.lower() in SYSTEM_NAMES",
        ("tests/components/data/test_real_inputs.py",),
    ),
)

LISTED = (*TRAINING_STEP, *WIRING, *EVALUATION, *DATA_AND_DOORS, *ANCESTORS_AND_STORES)


class MovedText(Exception):
    """The old text of a listed mutation does not stand exactly once in its module."""


def mutated(root: Path, listed: Listed) -> str:
    """The module's text with the change; raises MovedText."""
    path = root / listed.module
    source = path.read_text() if path.is_file() else ""
    if (found := source.count(listed.old)) != 1:
        raise MovedText(f"{listed.name!r}: {listed.module} holds {listed.old!r} {found} times, not once")
    return source.replace(listed.old, listed.new)
