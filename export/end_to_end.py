"""Does generation through the step graph see what training saw? One interleaved document, both ways.

The document: a ragged text prefix, an image, text after it. Through an engine it is prefilled with right padding, its
image is denoised twice in place, then committed clean, and the text after it is fed token by token. In torch it is one
masked forward of the whole sequence, as in training. Equal numbers show that the cache, the visibility rule, the stale
padding and the overwriting of the image's keys and values are right together.

Legend: B rows, L sequence length, n patches of the image, W numbers in a patch, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from export.parity import Difference, difference
from model.engine import Engine, StepInputs, StepOutput
from model.transfusion import Batch, Transfusion

PREFIX_LENGTHS = (5, 9)
TIMES = (0.9, 0.4)


class Story(NamedTuple):
    """Two documents: ragged prefixes ending in BOI, the image at two noise levels and clean, the text after it."""

    prefixes: list[Tensor]  # each int64 [prefix length]
    noised: list[Tensor]  # one for each of TIMES: float32 [B, n, W]
    clean: Tensor  # float32 [B, n, W]
    after: Tensor  # int64 [B, 3], the first is EOI


class EndToEnd(NamedTuple):
    """Differences of the image's predictions at each noise level, and of the logits after every later token."""

    prediction: list[Difference]
    logits: list[Difference]

    @property
    def max_abs(self) -> float:
        return max(entry.max_abs for entry in (*self.prediction, *self.logits))


def end_to_end(model: Transfusion, engine: Engine, *, num_patches: int, seed: int) -> EndToEnd:
    """Generate a random document through `engine` and compare each number with the full forward of `model`."""
    story = _random_story(model, num_patches, seed)
    got_predictions, got_logits = _through_engine(engine, story)
    noised = zip(story.noised, TIMES, strict=True)
    wanted_predictions = [_full_forward(model, story, patches, time)[0] for patches, time in noised]
    _, wanted_logits = _full_forward(model, story, story.clean, 0.0)
    return EndToEnd(
        [difference(wanted, got) for wanted, got in zip(wanted_predictions, got_predictions, strict=True)],
        [difference(wanted_logits[:, index], got) for index, got in enumerate(got_logits)],
    )


def _random_story(model: Transfusion, num_patches: int, seed: int) -> Story:
    config, generator = model.config, torch.Generator().manual_seed(seed)
    size = (len(PREFIX_LENGTHS), num_patches, config.patch_width)
    prefixes = [torch.randint(5, config.vocab_size, (length,), generator=generator) for length in PREFIX_LENGTHS]
    after = torch.randint(5, config.vocab_size, (len(PREFIX_LENGTHS), 3), generator=generator)
    for prefix in prefixes:
        prefix[0], prefix[-1] = config.bos_id, config.boi_id
    after[:, 0] = config.eoi_id
    blocks = [torch.randn(size, generator=generator) for _ in range(len(TIMES) + 1)]
    return Story(prefixes, blocks[:-1], blocks[-1], after)


def _through_engine(engine: Engine, story: Story) -> tuple[list[Tensor], list[Tensor]]:
    """Predictions [B, n, W] at each noise level, and logits [B, V] after each token of story.after."""
    start = torch.tensor([len(prefix) for prefix in story.prefixes])
    num_rows, size, width = story.clean.shape
    # Two slots below stay empty, so that a slice of the cache is what is written.
    cache, rows = engine.new_cache(num_rows + 2), slice(2, 2 + num_rows)
    padded = torch.nn.utils.rnn.pad_sequence(story.prefixes, batch_first=True)
    write_at = torch.zeros(num_rows, dtype=torch.int64)
    engine.step(_inputs(padded, None, 0.0, write_at, width), cache, rows)
    ids = torch.zeros(num_rows, size, dtype=torch.int64)
    steps = [*zip(story.noised, TIMES, strict=True), (story.clean, 0.0)]
    outputs = [engine.step(_inputs(ids, patches, time, start, width), cache, rows) for patches, time in steps]
    texts: list[StepOutput] = []
    for index in range(story.after.shape[1]):
        token = story.after[:, index : index + 1]
        texts.append(engine.step(_inputs(token, None, 0.0, start + size + index, width), cache, rows))
    return [output.prediction for output in outputs[:-1]], [output.logits for output in texts]


def _inputs(ids: Tensor, patches: Tensor | None, time: float, write_at: Tensor, width: int) -> StepInputs:
    num_rows, length = ids.shape
    column = write_at.unsqueeze(1) + torch.arange(length)
    return StepInputs(
        ids=ids,
        patches=torch.zeros(num_rows, length, width) if patches is None else patches,
        is_image=torch.full((num_rows, length), patches is not None),
        time=torch.full((num_rows,), time),
        position=column,
        q_last=column if patches is None else column[:, -1:].expand(-1, length),
        write_at=write_at,
        read_at=torch.full((num_rows,), length - 1),
        num_keys=int(column.max()) + 1,
    )


@torch.inference_mode()
def _full_forward(model: Transfusion, story: Story, patches: Tensor, time: float) -> tuple[Tensor, Tensor]:
    """Predictions [B, n, W] and logits [B, 3, V] of one training forward over the whole rows."""
    num_rows, size, _ = patches.shape
    predict_at, patch_at, rows, lasts = [], [], [], []
    length = max(PREFIX_LENGTHS) + size + story.after.shape[1]
    for row, prefix in enumerate(story.prefixes):
        start, end = len(prefix), len(prefix) + size
        ids = torch.cat([prefix, torch.zeros(size, dtype=torch.int64), story.after[row]])
        rows.append(torch.nn.functional.pad(ids, (0, length - len(ids)), value=model.config.pad_id))
        last = torch.arange(length, dtype=torch.int32)
        last[start:end] = end - 1
        lasts.append(last)
        patch_at.append(row * length + torch.arange(start, end))
        predict_at.append(row * length + torch.arange(end, end + story.after.shape[1]))
    batch = Batch(
        ids=torch.stack(rows),
        position=torch.arange(length).expand(num_rows, -1),
        first=torch.zeros(num_rows, length, dtype=torch.int32),
        last=torch.stack(lasts),
        patches=patches.flatten(0, 1),
        patch_at=torch.cat(patch_at),
        patch_image=torch.arange(num_rows).repeat_interleave(size),
        image_sample=torch.arange(num_rows),
        time_limit=torch.ones(num_rows),
        predict_at=torch.cat(predict_at),
        target=torch.zeros(len(predict_at) * story.after.shape[1], dtype=torch.int64),
        after_image=torch.ones(len(predict_at) * story.after.shape[1], dtype=torch.bool),
    )
    output = model(batch, batch.patches, torch.full((num_rows,), time))
    return output.prediction.view(patches.shape), output.logits.view(num_rows, -1, model.config.vocab_size)


def report(result: EndToEnd) -> dict[str, Any]:
    """The parity report's entries of an end-to-end comparison."""
    from export.parity import rounded

    named = {f"prediction at noise {time}": entry for time, entry in zip(TIMES, result.prediction, strict=True)}
    named |= {f"logits after token {index}": entry for index, entry in enumerate(result.logits)}
    return {name: rounded(entry) for name, entry in named.items()}
