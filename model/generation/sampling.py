"""The one generation loop: text and latents, interleaved, for many requests at once, over any engine.

A request becomes a sequence (sequence.py), which owns a slot of the engine's cache. In a tick every sequence feeds its next
chunk (a prefix, a token, a latent at its own noise level, a finished latent with its end token), the chunks are batched into
forward passes (batching.py), and each sequence takes its token or prediction from the output; a slot goes to the next request
as soon as it is free.

Guidance is a second slot that holds the unconditional prefix, the begin token alone: it never learns what the first one holds.
Pairs nest around the middle, the conditional slots first: with two requests 1c 0c 0u 1u. So the rows that are under way lie
side by side, and noise levels outside the guidance interval cost the conditional rows alone.

Legend: V vocabulary, p patches of a latent, W numbers in its patch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from model.diffusion.solvers import Denoiser, guided
from model.generation.batching import cheapest_passes, step_inputs
from model.generation.requests import Completion, Request, SamplingOptions
from model.generation.sequence import Chunk, SequenceState, token_chunk
from model.generation.token_choice import choose, suppress
from model.step import Engine, StepOutput


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
    cannot take, or longer than the engine's slots, and for a solver of another prediction type.
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
        request.check(engine.config)
    except ValueError as error:
        raise ValueError(f"request {index}: {error}") from None
    needed = request.columns_needed(engine.config)
    if needed > engine.max_length:
        raise ValueError(f"request {index} may need {needed} positions, and the engine has {engine.max_length}")


class _Loop:
    """Slots of one engine and the sequences in them."""

    def __init__(self, engine: Engine, options: SamplingOptions, num_pairs: int, *, latents: bool) -> None:
        self.engine, self.config, self.options = engine, engine.config, options
        self.num_pairs = num_pairs
        self.guided = latents and options.guidance_scale != 1
        self.num_slots = num_pairs * (2 if self.guided else 1)
        self.cache: Any = engine.new_cache(self.num_slots)
        self.sequences: dict[int, SequenceState] = {}  # by pair
        self.numbers: dict[int, int] = {}  # which request is in which pair
        self.unconditional_prefix: dict[int, int] = {}  # the modality whose begin token a pair's unconditional slot holds
        modalities = self.config.modalities
        never = [self.config.pad_token_id, self.config.bos_token_id, *(modality.end_token_id for modality in modalities)]
        self.suppressible = torch.tensor([*never, *(modality.begin_token_id for modality in modalities)])
        self.always_suppressed = [True] * len(never)

    def admit(self, waiting: deque[tuple[int, Request]]) -> None:
        """Give every free pair of slots to a waiting request."""
        for pair in range(self.num_pairs):
            if waiting and pair not in self.sequences:
                self.numbers[pair], request = waiting.popleft()
                self.sequences[pair] = SequenceState(self.config, request, self.options)

    def finished(self) -> Iterator[tuple[int, Completion]]:
        """Free the slots of requests that are done: each request's number, and its completion."""
        for pair in [pair for pair, sequence in self.sequences.items() if sequence.done]:
            yield self.numbers.pop(pair), self.sequences.pop(pair).completion

    @torch.no_grad()
    def tick(self) -> None:
        """Feed every sequence's next chunk, and let each go on."""
        chunks = {self._slot(pair): sequence.next_chunk() for pair, sequence in self.sequences.items()}
        paired = [pair for pair, sequence in self.sequences.items() if self._is_guided(sequence)]
        self._write_unconditional_prefixes(paired)
        outputs = self._forward(chunks | {self._slot(pair, twin=True): chunks[self._slot(pair)] for pair in paired})
        wanting: list[tuple[SequenceState, Tensor]] = []
        for pair, sequence in self.sequences.items():
            output = outputs[self._slot(pair)]
            if sequence.denoising is None:
                if sequence.commit():
                    wanting.append((sequence, output.logits))
                continue
            # Of the positions and numbers of a pass, those that the latent has.
            size = sequence.denoising.x_t.shape
            prediction = output.prediction[: size[0], : size[1]]
            if pair in paired:
                unconditional = outputs[self._slot(pair, twin=True)].prediction[: size[0], : size[1]]
                prediction = guided(prediction, unconditional, self.options.guidance_scale)
            sequence.apply_prediction(prediction)
        if wanting:
            self._choose(*zip(*wanting, strict=True))

    def _slot(self, pair: int, *, twin: bool = False) -> int:
        return self.num_pairs + pair if twin else self.num_pairs - 1 - pair

    def _end(self, slot: int) -> int:
        """The first column of a slot that nobody will see before it is written again."""
        if slot >= self.num_pairs:
            return 1
        sequence = self.sequences.get(self.num_pairs - 1 - slot)
        return sequence.length if sequence else 0

    def _forward(self, chunks: dict[int, Chunk]) -> dict[int, StepOutput]:
        """Each slot's row of the outputs: logits [V] after its chunk, and its prediction [S, W]."""
        outputs: dict[int, StepOutput] = {}
        ends = [self._end(slot) for slot in range(self.num_slots)]
        for slots in cheapest_passes({slot: chunk.size for slot, chunk in chunks.items()}, ends, self.engine.max_length):
            starts = [ends[slot] for slot in slots]
            output = self._step(slots, [chunks.get(slot) for slot in slots], starts)
            outputs |= {slot: StepOutput(*(part[row] for part in output)) for row, slot in enumerate(slots) if slot in chunks}
        return outputs

    def _step(self, slots: range, chunks: Sequence[Chunk | None], starts: Sequence[int]) -> StepOutput:
        inputs = step_inputs(self.config, chunks, starts, self.engine.max_length)
        return self.engine.step(inputs, self.cache, slice(slots.start, slots.stop))

    # ---- guidance

    def _is_guided(self, sequence: SequenceState) -> bool:
        """Whether the sequence's next chunk needs the unconditional prediction beside its own."""
        low, high = self.options.guidance_interval
        return self.guided and sequence.denoising is not None and low <= sequence.denoising.denoiser.time <= high

    def _write_unconditional_prefixes(self, pairs: Sequence[int]) -> None:
        """Let the unconditional slots of `pairs` hold the begin token of what each denoises."""
        needed = {pair: denoising.number for pair in pairs if (denoising := self.sequences[pair].denoising)}
        missing = {pair: number for pair, number in needed.items() if self.unconditional_prefix.get(pair) != number}
        if not missing:
            return
        # The first pass serves every pair to come, for most requests generate the same kind.
        number = next(iter(missing.values()))
        changed = {pair: number for pair in range(self.num_pairs) if pair not in self.unconditional_prefix} | missing
        self.unconditional_prefix |= changed
        # Those between write their own again.
        between = range(min(changed), max(changed) + 1)
        begins = [self.config.modalities[self.unconditional_prefix[pair]].begin_token_id for pair in between]
        slots = range(self._slot(between.start, twin=True), self._slot(between.stop, twin=True))
        self._step(slots, [token_chunk(token) for token in begins], [0] * len(begins))

    # ---- text

    def _choose(self, sequences: tuple[SequenceState, ...], logits: tuple[Tensor, ...]) -> None:
        """One token for every sequence that wants one, read from the engine's device at once."""
        options = self.options
        numbers = range(len(self.config.modalities))
        suppressed = [[*self.always_suppressed, *(each.is_suppressed(number) for number in numbers)] for each in sequences]
        uniform = None
        if options.temperature:
            uniform = torch.stack([torch.rand((), generator=sequence.generator) for sequence in sequences])
        tokens = choose(
            suppress(torch.stack(logits), self.suppressible, torch.tensor(suppressed)),
            uniform,
            temperature=options.temperature,
            top_p=options.top_p,
            min_p=options.min_p,
        )
        for sequence, token in zip(sequences, tokens.tolist(), strict=True):
            sequence.append_token(token)
