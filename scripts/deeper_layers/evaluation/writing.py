"""Answers that a model writes by greedy decoding: prompts of similar length together, as many as memory has
room for; what they begin with is run once.

Keys and values of a common prefix are computed for one row and repeated for each batch. The shorter prompts
of a batch are padded after it, or on their left where there is none.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import Cache

from ..errors import UserError
from ..runtime.memory import free_memory, is_out_of_memory
from ..runtime.provenance import record
from .layer_tree import FAULTS
from .rows import alike
from .sharing import is_rounding, relative_difference

log = logging.getLogger(__name__)

GROUP = 4  # prompts for which a common prefix is worth while
ROWS = {"cpu": 64, "cuda": 512}  # at most: more are no faster
CPU_CACHE = 1 << 30  # bytes of keys and values on a CPU
PLAIN = {"do_sample", "max_gen_toks", "temperature", "until"}
PROBE = 16  # tokens by which keys and values are measured


def is_greedy(said: dict) -> bool:
    """Whether lm-eval's settings for generation ask for the likeliest token at each step and nothing else."""
    how = normalize_gen_kwargs(said)
    return not how.get("do_sample") and not how.get("temperature") and set(how) <= PLAIN


@dataclass(frozen=True)
class Prefix:
    """The first ``length`` tokens of prompts: their keys and values, of one row. ``pads``: whether prompts of
    different lengths may be in a batch."""

    length: int = 0
    cache: Cache | None = None
    pads: bool = True

    def repeated(self, rows: int) -> dict:
        """For ``generate``: the keys and values of so many rows."""
        if self.cache is None:
            return {}
        cache = copy.deepcopy(self.cache)
        for layer in cache.layers:
            layer.reorder_cache(torch.zeros(rows, dtype=torch.long))
        return {"past_key_values": cache}


class Writer:
    """Greedy answers of the model of ``lm`` as it is, that is without the layers that are taken out.

    ``batch``: rows at once; None: as many as memory has room for. Halved when memory runs out.
    """

    def __init__(self, lm: HFLM, batch: int | None):
        self.lm, self.model, self.batch = lm, lm.model, batch
        self.most = ROWS.get(self.model.device.type, 64)

    def write(self, contexts: Sequence[str], said: dict) -> list[str]:
        """What follows each of ``contexts`` by lm-eval's settings ``said``, up to the first stop sequence.

        Raises UserError if an answer may be longer than the model, or one prompt does not fit into memory.
        """
        lm, how = self.lm, normalize_gen_kwargs(said, self.lm.max_gen_toks)
        until = how.pop("until", None)
        until = handle_stop_sequences(until, eos=lm.tok_decode(lm.eot_token_id, skip_special_tokens=False))
        new = how.pop("max_gen_toks")
        how.pop("temperature", None)
        if new >= lm.max_length:
            raise UserError(f"an answer of {new} tokens is longer than the model, which has {lm.max_length}")
        room = {"left_truncate_len": lm.max_length - new, "truncation": lm.truncation}
        prompts = [lm.tok_batch_encode([text], **room)[0][0].tolist() for text in contexts]
        stops = StopSequences(lm.tokenizer, until, lm.think_end_token)
        answers: dict[int, str] = {}
        for shared, group in groups(prompts):
            prefix = self._prefix([prompts[i] for i in group], shared)
            while group:
                rows = group[: self._rows(len(prompts[group[0]]) + new)]
                if not prefix.pads:
                    rows = [i for i in rows if len(prompts[i]) == len(prompts[rows[0]])]
                written = self._try([prompts[i] for i in rows], prefix, new, stops, **how)
                if written is not None:
                    texts = map(lm.tok_decode, written.tolist())
                    texts = [postprocess_generated_text(text, until, stops.think_end) for text in texts]
                    answers.update(zip(rows, texts, strict=True))
                    group = group[len(rows) :]
        return [answers[i] for i in range(len(contexts))]

    def _prefix(self, prompts: list[list[int]], shared: int) -> Prefix:
        """The first ``shared`` tokens of ``prompts``, longest first, if these have the same logits with them
        computed once; tried on the longest and the shortest."""
        if not shared:
            return Prefix()
        pair, name = [prompts[0], prompts[-1]], type(self.model).__name__
        try:
            prefix = Prefix(shared, self._forward(pair[0][:shared]).past_key_values)
            expected = self._first_logits(pair, Prefix(), at_once=False)
            for pads in (True, False):
                off = relative_difference(self._first_logits(pair, prefix, at_once=pads), expected)
                if is_rounding(off, self.model.dtype):
                    record(generation_check={"relative_difference": off})
                    return replace(prefix, pads=pads)
        except FAULTS as error:
            if is_out_of_memory(error):
                self._use_less(1)
            log.warning("%s: the beginning of its prompts cannot be repeated (%s)", name, error)
            return Prefix()
        log.warning("%s: prompts whose beginning is repeated are off by %.2g", name, off)
        return Prefix()

    def _first_logits(self, prompts: list[list[int]], prefix: Prefix, at_once: bool) -> Tensor:
        """Of the first token of an answer to each of two prompts, [2, V]."""
        how = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True}
        batches = [prompts] if at_once else [[prompt] for prompt in prompts]
        return torch.cat([self._generate(rows, prefix, 1, **how).logits[0].float() for rows in batches])

    @torch.no_grad()
    def _forward(self, ids: list[int]):
        return self.model(torch.tensor([ids], device=self.model.device), use_cache=True)

    def _rows(self, tokens: int) -> int:
        """How many rows of so many ``tokens``, prompt and answer, are run at once."""
        if self.batch is not None:
            return self.batch
        device = self.model.device
        memory = CPU_CACHE
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            memory = 0.6 * (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
        rows = memory // (self.bytes_of_a_token * tokens) if self.bytes_of_a_token else self.most
        return int(max(1, min(self.most, rows)))

    @cached_property
    def bytes_of_a_token(self) -> float:
        """Of keys and values."""
        cache = getattr(self._forward([0] * PROBE), "past_key_values", None)
        tensors = [value for layer in getattr(cache, "layers", ()) for value in vars(layer).values()]
        return sum(value.nbytes for value in tensors if isinstance(value, Tensor)) / PROBE

    def _try(
        self, prompts: list[list[int]], prefix: Prefix, new: int, stops: StopSequences, **how
    ) -> Tensor | None:
        """The at most ``new`` tokens written after ``prompts``; None, with fewer rows from now on, if memory
        was too small for them."""
        try:
            return self._generate(prompts, prefix, new, stops, **how)[:, max(map(len, prompts)) :]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._use_less(len(prompts))
        free_memory()
        return None

    def _use_less(self, rows: int) -> None:
        if rows == 1:
            raise UserError(
                "one sequence does not fit into memory: evaluate with precision nf4, "
                "or on a card with more memory"
            ) from None
        self.most = (rows + 1) // 2
        self.batch = self.batch and self.most

    def _generate(
        self,
        prompts: list[list[int]],
        prefix: Prefix,
        new: int,
        stops: StopSequences | None = None,
        **how,
    ):
        """What ``generate`` returns for ``prompts`` and at most ``new`` tokens more."""
        length = max(map(len, prompts))
        pad = self.lm.tokenizer.pad_token_id
        ids, mask = (
            torch.full((len(prompts), length), pad),
            torch.zeros(len(prompts), length, dtype=torch.long),
        )
        for row, prompt in enumerate(prompts):
            for places, tokens in (
                (slice(0, prefix.length), prompt[: prefix.length]),
                (slice(length - len(prompt) + prefix.length, length), prompt[prefix.length :]),
            ):
                ids[row, places], mask[row, places] = torch.tensor(tokens, dtype=torch.long), 1
        device = self.model.device
        return self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            stopping_criteria=StoppingCriteriaList([stops.after(length)] if stops else []),
            pad_token_id=pad,
            use_cache=True,
            max_length=length + new,
            **prefix.repeated(len(prompts)),
            **how,
        )


class StopSequences:
    """``texts`` that end an answer, of a model that thinks first those after ``think_end``. A text is looked
    for only where a token may be its last one: where it, in whatever context, has the last character, or is a
    part of one."""

    def __init__(self, tokenizer, texts: Sequence[str], think_end: str | None = None):
        self.tokenizer, self.texts = tokenizer, [text for text in texts if text]
        self.think_end = think_end
        last = {text[-1] for text in self.texts} | {"\N{REPLACEMENT CHARACTER}"}
        # Twice, since the first token of a text may lose its space.
        twice = tokenizer.batch_decode([[i, i] for i in range(len(tokenizer))])
        self.may_end = torch.tensor([not last.isdisjoint(text) for text in twice])

    def after(self, start: int) -> StoppingCriteria:
        """For ``generate``: which rows have one of the texts after their first ``start`` tokens."""
        return _Stops(self, start)


class _Stops(StoppingCriteria):
    eos_token_id = None  # that it is there makes ``generate`` pad the rows that are done

    def __init__(self, sequences: StopSequences, start: int):
        self.sequences, self.start = sequences, start

    def __call__(self, input_ids: Tensor, scores, **kwargs) -> Tensor:
        stops, last = self.sequences, input_ids[:, -1]
        stops.may_end = stops.may_end.to(last.device)
        known = last < len(stops.may_end)
        looked_at = stops.may_end[last.where(known, 0)] | ~known
        done = torch.zeros_like(looked_at)
        for row in looked_at.nonzero()[:, 0].tolist():
            written = stops.tokenizer.decode(input_ids[row, self.start :])
            if stops.think_end:
                _, thought, written = written.rpartition(stops.think_end)
                if not thought:
                    continue
            done[row] = any(text in written for text in stops.texts)
        return done


def groups(prompts: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """(tokens that prompts begin with alike, the numbers of these prompts, longest first): of ``GROUP``
    prompts or more that have at least half of their tokens in common; and the others, with 0."""
    found: list[tuple[int, list[int]]] = []
    for i in sorted(range(len(prompts)), key=lambda i: prompts[i]):
        if found:
            shared, group = found[-1]
            shared = min(shared, alike(prompts[group[-1]], prompts[i]), len(prompts[i]) - 1)
            if 2 * shared >= max(len(prompts[group[0]]), len(prompts[i])):
                found[-1] = shared, [*group, i]
                continue
        found.append((len(prompts[i]) - 1, [i]))
    large = [(shared, group) for shared, group in found if len(group) >= GROUP]
    others = [i for _, group in found if len(group) < GROUP for i in group]
    return [
        (shared, sorted(group, key=lambda i: (-len(prompts[i]), i)))
        for shared, group in [*large, (0, others)]
        if group
    ]
