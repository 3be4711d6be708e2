"""The one generation loop: text and latents, interleaved, for many requests at once, over any engine.

A request becomes a sequence (sequence.py), which owns a slot of the engine's cache. In a tick every sequence feeds its next
chunk (a prefix, a token, a latent at its own noise level, a finished latent with its end token), the chunks are batched into
forward passes (batching.py), and each sequence takes its token or prediction from the output; a slot goes to the next request
as soon as it is free.

Guidance gives a request a pair of slots. The second, unconditional one holds the begin token alone before the latent, and never
learns what the first one holds. Pairs nest around the middle, the conditional slots first: with two requests 1c 0c 0u 1u. So
the rows that are under way lie side by side, and noise levels outside the guidance interval cost the conditional rows alone.

Legend: V vocabulary, p patches of a latent, W numbers in its patch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
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
        # Thrown away: made here so that a solver of another path is refused now, and not at the first latent.
        Denoiser(engine.config.process, options.solver, options.num_steps, torch.Generator())
    # Like requests together, so that few rows are padded.
    order = sorted(range(len(requests)), key=lambda index: (requests[index].max_latents, requests[index].shapes))
    waiting = deque((index, requests[index]) for index in order)
    loop = _Loop(engine, options, min(num_slots, len(requests)), latents=latents)
    completions: dict[int, Completion] = {}
    while len(completions) < len(requests):
        loop.admit(waiting)
        loop.tick()
        finished = loop.pop_finished()
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
        # By pair: what is under way in it, which request that is, and of which modality the begin token in its second slot is.
        self.sequences: dict[int, SequenceState] = {}
        self.request_index: dict[int, int] = {}
        self.unconditional_prefix: dict[int, int] = {}
        modalities = self.config.modalities
        # Never the model's to choose: end tokens are fed by the loop, behind the latents that they end.
        never = [self.config.pad_token_id, self.config.bos_token_id, *(modality.end_token_id for modality in modalities)]
        self.suppressible = torch.tensor([*never, *(modality.begin_token_id for modality in modalities)])
        self.always_suppressed = [True] * len(never)

    def admit(self, waiting: deque[tuple[int, Request]]) -> None:
        """Give every free pair of slots to a waiting request."""
        for pair in range(self.num_pairs):
            if waiting and pair not in self.sequences:
                self.request_index[pair], request = waiting.popleft()
                self.sequences[pair] = SequenceState(self.config, request, self.options)

    def pop_finished(self) -> dict[int, Completion]:
        """Free the slots of requests that are done; their completions, by the requests' indices."""
        done = [pair for pair, sequence in self.sequences.items() if sequence.done]
        return {self.request_index.pop(pair): self.sequences.pop(pair).completion for pair in done}

    @torch.no_grad()
    def tick(self) -> None:
        """Feed every sequence's next chunk, and let each take its token or prediction from the output."""
        chunks = {self._slot(pair): sequence.next_chunk() for pair, sequence in self.sequences.items()}
        guided_pairs = [pair for pair, sequence in self.sequences.items() if self._is_guided(sequence)]
        self._write_unconditional_prefixes(guided_pairs)
        # Both slots of a pair are fed the same noised latent; what stands before it is all that they differ in.
        chunks |= {self._unconditional_slot(pair): chunks[self._slot(pair)] for pair in guided_pairs}
        outputs = self._forward(chunks)
        wanting: list[tuple[SequenceState, Tensor]] = []
        for pair, sequence in self.sequences.items():
            output = outputs[self._slot(pair)]
            if sequence.noisy_latent is None:
                if sequence.commit():
                    wanting.append((sequence, output.logits))
                continue
            # A pass is as long as its longest row and as wide as the widest modality; this much of it is the latent's.
            num_patches, patch_dim = sequence.noisy_latent.x_t.shape
            prediction = output.prediction[:num_patches, :patch_dim]
            if pair in guided_pairs:
                unconditional = outputs[self._unconditional_slot(pair)].prediction[:num_patches, :patch_dim]
                prediction = guided(prediction, unconditional, self.options.guidance_scale)
            sequence.apply_prediction(prediction)
        if wanting:
            self._choose_tokens(wanting)

    def _slot(self, pair: int) -> int:
        return self.num_pairs - 1 - pair

    def _unconditional_slot(self, pair: int) -> int:
        return self.num_pairs + pair

    def _end(self, slot: int) -> int:
        """The first column of a slot that nobody will see before it is written again."""
        if slot >= self.num_pairs:
            # An unconditional one holds its begin token, and a latent that is written over at every evaluation.
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
        latent = sequence.noisy_latent
        # Behind its begin token alone a latent is the unconditional one itself.
        return self.guided and latent is not None and sequence.length > 1 and low <= latent.denoiser.time <= high

    def _write_unconditional_prefixes(self, pairs: Sequence[int]) -> None:
        """Let the unconditional slots of `pairs` hold the begin token of what each denoises."""
        needed = {pair: latent.modality for pair in pairs if (latent := self.sequences[pair].noisy_latent)}
        missing = {pair: modality for pair, modality in needed.items() if self.unconditional_prefix.get(pair) != modality}
        if not missing:
            return
        # The first pass fills the slots of all pairs, also of those that come to their latent later: most requests generate the
        # same kind, so that this pass is the only one.
        modality = next(iter(missing.values()))
        changed = {pair: modality for pair in range(self.num_pairs) if pair not in self.unconditional_prefix} | missing
        self.unconditional_prefix |= changed
        # A pass is a range of slots: those that lie between changed ones write once more what they hold.
        between = range(min(changed), max(changed) + 1)
        begins = [self.config.modalities[self.unconditional_prefix[pair]].begin_token_id for pair in between]
        slots = range(self._unconditional_slot(between.start), self._unconditional_slot(between.stop))
        self._step(slots, [token_chunk(token) for token in begins], [0] * len(begins))

    # ---- text

    def _choose_tokens(self, wanting: Sequence[tuple[SequenceState, Tensor]]) -> None:
        """One token for every sequence that wants one, from its logits [V]; read from the engine's device at once."""
        options, modalities = self.options, range(len(self.config.modalities))
        suppressed = [
            [*self.always_suppressed, *(sequence.is_suppressed(modality) for modality in modalities)] for sequence, _ in wanting
        ]
        uniform = None
        if options.temperature:
            # Of the request's own generator, so that the neighbours in the batch change nothing.
            uniform = torch.tensor([sequence.generator.random() for sequence, _ in wanting], dtype=torch.float64)
        tokens = choose(
            suppress(torch.stack([logits for _, logits in wanting]), self.suppressible, torch.tensor(suppressed)),
            uniform,
            temperature=options.temperature,
            top_p=options.top_p,
            min_p=options.min_p,
        )
        for (sequence, _), token in zip(wanting, tokens.tolist(), strict=True):
            sequence.append_token(token)
