"""How is text and are images generated, interleaved, for many requests at once? The one generation loop, over any engine.

Transfusion (arXiv 2408.11039, Sec. 3.4): text token by token; on BOI a block of noise is denoised in place against the cached
prefix; then EOI, and text goes on. Before EOI one pass over the *clean* latents overwrites the block's keys and values, so
that later text sees the image itself and not its last noised state. Guidance is a second row that holds BOI alone.

Each request owns a slot (and a second one while guided). A tick runs all rows that are in text by one token and all rows that
are in an image by one solver step, each at its own time; rows of the other phase ride along and write beyond their end.

Legend: B rows, S positions a step, n patches an image, W numbers in a patch, C channels, Y/X latent height/width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.engine import Engine, StepInputs, StepOutput
from model.patches import join
from model.prefix import Layout, block_length, columns_needed, lay_out, pad_together, stack, text_facts
from model.requests import Completion, Request, SamplingOptions
from model.solvers import advance, guided, solver_times

# The active cache window grows in these strides, so that an engine meets few shapes.
WINDOW_STRIDE = 32


def generate(
    engine: Engine,
    requests: Sequence[Request],
    options: SamplingOptions,
    *,
    num_slots: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Completion]:
    """Fulfil every request, num_slots at a time (guidance takes a second row for each); results in the requests' order.

    progress: called with (requests done, requests in all). Raises ValueError for a request longer than the engine's slots.
    """
    widest_block = max((block_length(engine.config, request.image_shape) for request in requests), default=0)
    for index, request in enumerate(requests):
        # A row may ride along with the widest image of its neighbours after its own last column.
        needed = columns_needed(engine.config, request) + widest_block
        if needed > engine.max_length:
            raise ValueError(f"request {index} may need {needed} positions, and the engine has {engine.max_length}")
    # Like requests together, so that few rows only ride along.
    order = sorted(range(len(requests)), key=lambda index: (requests[index].max_images, requests[index].image_shape))
    completions: dict[int, Completion] = {}
    for start in range(0, len(order), num_slots):
        wave = order[start : start + num_slots]
        results = _Wave(engine, [requests[index] for index in wave], options).run()
        completions.update(zip(wave, results, strict=True))
        if progress:
            progress(len(completions), len(requests))
    return [completions[index] for index in range(len(requests))]


@dataclass(eq=False)
class _Row:
    """One request under way. length: cache columns filled. pending: a token not yet in the cache. noised: [n, W] or None."""

    request: Request
    generator: torch.Generator
    length: int = 0
    pending: int | None = None
    noised: Tensor | None = None
    solver_step: int = 0
    num_tokens: int = 0
    num_images: int = 0
    tokens: list[int] = field(default_factory=list)
    segments: list[Tensor] = field(default_factory=list)
    done: bool = False

    def close_text(self) -> None:
        if self.tokens:
            self.segments.append(torch.tensor(self.tokens))
            self.tokens = []


class _Wave:
    """Requests that share every forward pass from their prefixes to their ends."""

    def __init__(self, engine: Engine, requests: Sequence[Request], options: SamplingOptions) -> None:
        self.engine, self.config, self.options = engine, engine.config, options
        self.rows = [_Row(request, torch.Generator().manual_seed(request.seed)) for request in requests]
        self.guided = options.guidance_scale != 1 and any(request.max_images for request in requests)
        self.cache = engine.new_cache(len(self.rows) * (2 if self.guided else 1))
        self.times = torch.tensor(solver_times(engine.config.objective, options.num_steps))

    def run(self) -> list[Completion]:
        """Every request's completion, in their order."""
        self._prefill()
        while not all(row.done for row in self.rows):
            if any(row.pending is not None for row in self.rows):
                self._advance_text()
            if any(row.noised is not None for row in self.rows):
                self._advance_images()
        return [Completion(tuple(row.segments)) for row in self.rows]

    # ---- the prefix

    def _prefill(self) -> None:
        layouts = [lay_out(self.config, row.request.prefix) for row in self.rows]
        inputs = pad_together(layouts, self.config)
        output = self._step(inputs, slice(0, len(self.rows)))
        if self.guided:
            self._prefill_unguided()
        for row, layout, logits in zip(self.rows, layouts, output.logits, strict=True):
            row.length = len(layout.ids)
            if int(layout.ids[-1]) == self.config.boi_id and not bool(layout.is_image[-1]):
                self._begin_image(row)
            else:
                self._take_token(row, logits)

    def _prefill_unguided(self) -> None:
        num_rows = len(self.rows)
        boi = Layout(torch.tensor([self.config.boi_id]), torch.zeros(1, self.config.patch_width), *text_facts(1))
        self._step(pad_together([boi] * num_rows, self.config), slice(num_rows, 2 * num_rows))

    # ---- text

    def _advance_text(self) -> None:
        """Feed every pending token and take the next one from its logits."""
        active = [row for row in self.rows if row.pending is not None]
        write_at = torch.tensor([row.length for row in self.rows])
        inputs = StepInputs(
            ids=torch.tensor([[self.config.pad_id if row.pending is None else row.pending] for row in self.rows]),
            patches=torch.zeros(len(self.rows), 1, self.config.patch_width),
            is_image=torch.zeros(len(self.rows), 1, dtype=torch.bool),
            time=torch.zeros(len(self.rows)),
            position=write_at.unsqueeze(1),
            q_last=write_at.unsqueeze(1),
            write_at=write_at,
            read_at=torch.zeros(len(self.rows), dtype=torch.long),
            num_keys=0,
        )
        output = self._step(inputs, slice(0, len(self.rows)))
        for row, logits in zip(self.rows, output.logits, strict=True):
            if row not in active:
                continue
            fed, row.pending = row.pending, None
            row.length += 1
            if fed == self.config.boi_id:
                self._begin_image(row)
            else:
                self._take_token(row, logits)

    def _take_token(self, row: _Row, logits: Tensor) -> None:
        """Choose the next token, or end the request."""
        if row.num_tokens >= row.request.max_new_tokens:
            return self._finish(row)
        token = self._choose(row, logits)
        if token == self.config.eos_id:
            return self._finish(row)
        row.pending = token
        if token == self.config.boi_id:
            row.close_text()
        else:
            row.tokens.append(token)
            row.num_tokens += 1

    def _choose(self, row: _Row, logits: Tensor) -> int:
        logits = logits.clone()
        barred = [self.config.pad_id, self.config.bos_id, self.config.eoi_id]
        if row.num_images >= row.request.max_images:
            barred.append(self.config.boi_id)
        logits[barred] = float("-inf")
        if self.options.temperature == 0:
            return int(logits.argmax())
        chances = torch.softmax(logits / self.options.temperature, dim=-1)
        return int(torch.multinomial(chances, 1, generator=row.generator))

    def _finish(self, row: _Row) -> None:
        row.close_text()
        row.done = True

    # ---- images

    def _begin_image(self, row: _Row) -> None:
        height, width = row.request.image_shape
        num_patches = height * width // self.config.patch_side**2
        row.noised = torch.randn(num_patches, self.config.patch_width, generator=row.generator)
        row.solver_step = 0

    def _advance_images(self) -> None:
        """One solver step for every image under way; a finished one is committed and its text goes on."""
        # Images of one size share a pass; a request's size never changes, so there are as many passes as sizes.
        for size in sorted({len(row.noised) for row in self.rows if row.noised is not None}):
            active = [row for row in self.rows if row.noised is not None and len(row.noised) == size]
            prediction = self._predict(active, size)
            for row in active:
                self._solve(row, prediction[self.rows.index(row)])
            self._end_images([row for row in active if row.solver_step == self.options.num_steps], size)

    def _predict(self, active: list[_Row], size: int) -> Tensor:
        """What the model predicts for every row, guided: [rows, size, W]."""
        num_rows = len(self.rows)
        conditional = self._image_inputs(active, size, clean=False, unguided=False)
        if not self.guided:
            return self._step(conditional, slice(0, num_rows)).prediction
        pair = stack(conditional, self._image_inputs(active, size, clean=False, unguided=True))
        prediction = self._step(pair, slice(0, 2 * num_rows)).prediction
        return guided(prediction[:num_rows], prediction[num_rows:], self.options.guidance_scale)

    def _solve(self, row: _Row, prediction: Tensor) -> None:
        assert row.noised is not None
        time, next_time = self.times[row.solver_step], self.times[row.solver_step + 1]
        row.noised = advance(self.config.objective, row.noised, prediction, time, next_time)
        row.solver_step += 1

    def _end_images(self, finished: list[_Row], size: int) -> None:
        """Keep the finished latents; where text follows, write their clean keys and values and feed EOI."""
        if any(row.request.max_new_tokens for row in finished):
            self._step(self._image_inputs(finished, size, clean=True, unguided=False), slice(0, len(self.rows)))
        for row in finished:
            assert row.noised is not None
            height, width = row.request.image_shape
            shape = {"channels": self.config.latent_channels, "height": height, "width": width}
            row.segments.append(join(row.noised.unsqueeze(0), **shape, side=self.config.patch_side)[0])
            row.noised, row.num_images, row.length = None, row.num_images + 1, row.length + size
            if row.request.max_new_tokens:
                row.pending = self.config.eoi_id
            else:
                self._finish(row)

    def _image_inputs(self, active: list[_Row], size: int, *, clean: bool, unguided: bool) -> StepInputs:
        """A block of `size` patches for every row; rows that are not active write beyond their end."""
        # The unguided row holds nothing but BOI, so its block always begins at column 1.
        write_at = torch.tensor([1 if unguided else row.length for row in self.rows])
        patches = torch.zeros(len(self.rows), size, self.config.patch_width)
        time = torch.zeros(len(self.rows))
        for row in active:
            index = self.rows.index(row)
            assert row.noised is not None
            patches[index] = row.noised
            time[index] = 0 if clean else self.times[row.solver_step]
        return StepInputs(
            ids=torch.full((len(self.rows), size), self.config.pad_id),
            patches=patches,
            is_image=torch.ones(len(self.rows), size, dtype=torch.bool),
            time=time,
            position=write_at.unsqueeze(1) + torch.arange(size),
            q_last=(write_at + size - 1).unsqueeze(1).expand(-1, size).contiguous(),
            write_at=write_at,
            read_at=torch.zeros(len(self.rows), dtype=torch.long),
            num_keys=0,
        )

    def _step(self, inputs: StepInputs, rows: slice) -> StepOutput:
        """Run the engine with the smallest window that holds what is written and seen."""
        needed = int((inputs.write_at + inputs.ids.shape[1]).max())
        window = min(-(-needed // WINDOW_STRIDE) * WINDOW_STRIDE, self.engine.max_length)
        return self.engine.step(inputs._replace(num_keys=window), self.cache, rows)
