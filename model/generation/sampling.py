"""How are text and latents generated, interleaved, for many requests at once? The one generation loop, over any engine.

Each request owns a slot. In a tick every request feeds its next block (a prefix, a token, a latent at its own noise level, a
finished latent with its end token) and all of them share one pass; a slot goes to the next request as soon as it is free.

Guidance is a second slot that holds the begin token alone: it never learns what the first one holds. Pairs nest around the
middle, the conditional slots first: with two requests 1c 0c 0u 1u. So the rows that are under way lie side by side, and
noise levels outside the guidance interval cost the conditional rows alone.

Legend: V vocabulary, n patches of a latent, W numbers in its patch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.diffusion.solvers import Denoiser, guided
from model.generation.blocks import Block, step_inputs, token_block
from model.generation.engine import Engine, StepOutput
from model.generation.passes import shared_passes
from model.generation.prefix import check_request, columns_needed
from model.generation.requests import Completion, Request, SamplingOptions
from model.generation.row import Row
from model.generation.token_choice import bar, choose


def generate(
    engine: Engine,
    requests: Sequence[Request],
    options: SamplingOptions,
    *,
    num_slots: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Completion]:
    """Fulfil every request, num_slots at a time (guidance takes a second slot for each); results in the requests' order.

    progress: called with (requests done, requests in all) whenever some are. Raises ValueError for a request that the model
    cannot take, or longer than the engine's slots, and for a solver of another objective.
    """
    if num_slots < 1:
        raise ValueError(f"num_slots: {num_slots} must be at least 1")
    for index, request in enumerate(requests):
        _check(engine, index, request)
    latents = any(request.max_latents for request in requests)
    if latents:
        # Refuses here what would be refused at the first latent.
        Denoiser(engine.config.process, options.solver, options.num_steps, torch.Generator())
    # Like requests together, so that few rows are padded.
    order = sorted(range(len(requests)), key=lambda index: (requests[index].max_latents, requests[index].shapes))
    waiting = deque((index, requests[index]) for index in order)
    loop = _Loop(engine, options, min(num_slots, len(requests)), latents=latents)
    completions: dict[int, Completion] = {}
    while len(completions) < len(requests):
        loop.admit(waiting)
        loop.tick()
        finished = dict(loop.finished())
        completions |= finished
        if progress and finished:
            progress(len(completions), len(requests))
    return [completions[index] for index in range(len(requests))]


def _check(engine: Engine, index: int, request: Request) -> None:
    try:
        check_request(engine.config, request)
    except ValueError as error:
        raise ValueError(f"request {index}: {error}") from None
    needed = columns_needed(engine.config, request)
    if needed > engine.max_length:
        raise ValueError(f"request {index} may need {needed} positions, and the engine has {engine.max_length}")


class _Answer(NamedTuple):
    """What one slot's block brought: row `at` of a pass."""

    output: StepOutput
    at: int

    @property
    def logits(self) -> Tensor:
        """[V], after the block."""
        return self.output.logits[self.at]

    def prediction(self, block: Block) -> Tensor:
        """[n, W], for a block that is a latent."""
        num_patches, width = block.spans[0].patches.shape
        return self.output.prediction[self.at, :num_patches, :width]


class _Loop:
    """Slots of one engine and the requests in them."""

    def __init__(self, engine: Engine, options: SamplingOptions, num_pairs: int, *, latents: bool) -> None:
        self.engine, self.config, self.options = engine, engine.config, options
        self.num_pairs = num_pairs
        self.guided = latents and options.guidance_scale != 1
        self.cache: Any = engine.new_cache(num_pairs * (2 if self.guided else 1))
        self.rows: dict[int, Row] = {}  # by pair
        self.numbers: dict[int, int] = {}  # which request is in which pair
        self.held: dict[int, int] = {}  # the modality whose begin token a pair's unconditional slot holds
        modalities = self.config.modalities
        never = [self.config.pad_id, self.config.bos_id, *(modality.end_id for modality in modalities)]
        self.num_never = len(never)
        self.marked = torch.tensor([*never, *(modality.begin_id for modality in modalities)])

    def admit(self, waiting: deque[tuple[int, Request]]) -> None:
        """Give every free pair of slots to a waiting request."""
        for pair in range(self.num_pairs):
            if waiting and pair not in self.rows:
                self.numbers[pair], request = waiting.popleft()
                self.rows[pair] = Row(self.config, request, self.options)

    def finished(self) -> Iterator[tuple[int, Completion]]:
        """Free the slots of requests that are done: each request's number, and its completion."""
        for pair in [pair for pair, row in self.rows.items() if row.done]:
            yield self.numbers.pop(pair), self.rows.pop(pair).completion

    @torch.no_grad()
    def tick(self) -> None:
        """Feed every request's next block, and let each go on."""
        blocks = {self._slot(pair): row.next_block() for pair, row in self.rows.items()}
        paired = [pair for pair, row in self.rows.items() if self._is_guided(row)]
        self._hold_begins(paired)
        answers = self._run(blocks | {self._slot(pair, unguided=True): blocks[self._slot(pair)] for pair in paired})
        wanting: list[tuple[Row, Tensor]] = []
        for pair, row in self.rows.items():
            answer = answers[self._slot(pair)]
            if row.latent is None:
                if row.settle():
                    wanting.append((row, answer.logits))
                continue
            block = blocks[self._slot(pair)]
            prediction = answer.prediction(block)
            if pair in paired:
                other = answers[self._slot(pair, unguided=True)].prediction(block)
                prediction = guided(prediction, other, self.options.guidance_scale)
            row.take_prediction(prediction)
        if wanting:
            self._choose(*zip(*wanting, strict=True))

    def _slot(self, pair: int, *, unguided: bool = False) -> int:
        return self.num_pairs + pair if unguided else self.num_pairs - 1 - pair

    def _end(self, slot: int) -> int:
        """The first column of a slot that nobody will see before it is written again."""
        if slot >= self.num_pairs:
            return 1
        row = self.rows.get(self.num_pairs - 1 - slot)
        return row.length if row else 0

    # ---- passes

    def _run(self, blocks: dict[int, Block]) -> dict[int, _Answer]:
        """Each slot's answer to its block."""
        answers: dict[int, _Answer] = {}
        ends = [self._end(slot) for slot in range(self.num_pairs * (2 if self.guided else 1))]
        for slots in shared_passes({slot: block.size for slot, block in blocks.items()}, ends, self.engine.max_length):
            fed = [blocks.get(slot) for slot in slots]
            inputs = step_inputs(self.config, fed, [ends[slot] for slot in slots], self.engine.max_length)
            output = self.engine.step(inputs, self.cache, slice(slots.start, slots.stop))
            for at, (slot, block) in enumerate(zip(slots, fed, strict=True)):
                if block:
                    answers[slot] = _Answer(output, at)
        return answers

    # ---- guidance

    def _is_guided(self, row: Row) -> bool:
        """Whether the row's next block needs the unconditional prediction beside its own."""
        low, high = self.options.guidance_interval
        return self.guided and row.latent is not None and low <= row.latent.denoiser.time <= high

    def _hold_begins(self, pairs: Sequence[int]) -> None:
        """Let the unconditional slots of `pairs` hold the begin token of what each denoises."""
        needed = {pair: row.latent.modality for pair in pairs if (row := self.rows[pair]).latent}
        missing = {pair: modality for pair, modality in needed.items() if self.held.get(pair) != modality}
        if not missing:
            return
        # The first pass serves every pair to come, for most requests generate the same kind.
        modality = next(iter(missing.values()))
        changed = {pair: modality for pair in range(self.num_pairs) if pair not in self.held} | missing
        first, last = min(changed), max(changed)
        self.held |= changed
        # Those between write their own again.
        fed = [token_block(self.config.modalities[self.held[pair]].begin_id) for pair in range(first, last + 1)]
        inputs = step_inputs(self.config, fed, [0] * len(fed), self.engine.max_length)
        slots = slice(self._slot(first, unguided=True), self._slot(last, unguided=True) + 1)
        self.engine.step(inputs, self.cache, slots)

    # ---- text

    def _choose(self, rows: tuple[Row, ...], logits: tuple[Tensor, ...]) -> None:
        """One token for every row that wants one, read from the engine's device at once."""
        options = self.options
        modalities = range(len(self.config.modalities))
        barred = torch.tensor([[True] * self.num_never + [row.is_barred(each) for each in modalities] for row in rows])
        uniform = None
        if options.temperature:
            uniform = torch.stack([torch.rand((), generator=row.generator) for row in rows])
        tokens = choose(
            bar(torch.stack(logits), self.marked, barred),
            uniform,
            temperature=options.temperature,
            top_p=options.top_p,
            min_p=options.min_p,
        )
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.take_token(token)
