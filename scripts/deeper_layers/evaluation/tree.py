"""Log-likelihoods of all cuts of one model at once: the layers before a cut are run once for all of them.

The cuts of a model differ only in which layers are skipped, so they form a tree: a trunk of all layers,
and at the first removed layer of every block a branch that jumps to the first layer behind it. A batch
walks the trunk once; each branch is finished where it leaves, so that one state of the trunk and one of
a branch are in memory at any time. Final norm and head are run only where a token is scored.

The layers are called one by one (see ``apart``). A model for which that is not exact is found out at the
start, on a small batch, and each of its cuts is then run as an ordinary model.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..models.layers import decoder_layers, removed
from ..models.layerwise import Apart
from ..models.shapes import padded_length, positions
from ..models.streaming import Store, Stream
from ..pruning.layer_set import LayerSet
from ..runtime.memory import free_memory, is_out_of_memory
from ..runtime.progress import Progress
from ..runtime.provenance import record

log = logging.getLogger(__name__)

Pair = tuple[Sequence[int], Sequence[int]]  # token ids of a context, never empty, and of its continuation
Answer = tuple[float, bool]  # log-likelihood of the continuation in nats; is it what greedy decoding says?
Answers = dict[LayerSet, dict[int, Answer]]  # by block and number of the pair

LOGIT_BYTES = 1 << 28  # most memory for float32 logits


class Family:
    """The cuts ``blocks`` of ``model``, scored together.

    ``batch`` is the number of sequences of a batch; None takes as many as make ``batch_tokens`` tokens,
    padding counted. Either is halved when memory runs out. With ``tree=False`` every cut is
    run by itself.
    """

    def __init__(self, model, blocks: Sequence[LayerSet], batch: int | None = None, tree: bool = True):
        self.model = model
        self.blocks = list(blocks)
        self.batch, self.batch_tokens = batch, default_batch_tokens(self.model.device)
        self.padded = partial(padded_length, device=model.device, longest=positions(model))
        self.n_layers = len(decoder_layers(self.model))
        self.layers_of_cuts = sum(len(block.kept(self.n_layers)) for block in self.blocks)
        self.layers_run = self.layers_separate = 0
        self.tree = self._exact_tree() if tree else None

    def loglikelihoods(
        self, pairs: Sequence[Pair], max_length: int, what: str, journal: Path | None = None
    ) -> dict[LayerSet, list[Answer]]:
        """The answer to every pair, for every block: the sum of the log-probabilities (float32 each) of
        the continuation's tokens, and whether each of them is the likeliest.

        Sequences of more than ``max_length`` + 1 tokens lose their first ones, as in lm-eval. ``what``
        names the job to the person who watches. Answers are added to a file in the folder ``journal``
        after each batch, and a later call with the same pairs goes on from there.
        """
        inputs = _inputs(pairs, max_length)
        answers: Answers = {block: {} for block in self.blocks}
        entries = Journal(journal, inputs, self.blocks)
        done = 0
        with Progress(what, total=len(inputs), unit="input") as progress:
            for upto, found in entries.read():
                _add(answers, found)
                progress.update(upto - done)
                done = upto
            while done < len(inputs):
                size, found = self._score_some(inputs[done:])
                done += size
                entries.write(done, found)
                _add(answers, found)
                progress.update(size)
        return {block: [by_pair[i] for i in range(len(pairs))] for block, by_pair in answers.items()}

    def layer_counts(self) -> dict:
        """Calls of a layer with a batch: those ``run``, and those of each cut evaluated by itself."""
        return {"run": self.layers_run, "separate": self.layers_separate, "tree": self.tree is not None}

    def _score_some(self, inputs: list[Input]) -> tuple[int, Answers]:
        """Score the first of ``inputs``, which are longest first: as many as one batch takes."""
        while True:
            some = _first_batch(inputs, self.batch, self.batch_tokens, self.padded)
            try:
                batch = Batch.of(some, self.model.device, self.padded)
                return len(some), {block: batch.answers(*scores) for block, *scores in self._scores(batch)}
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(some) == 1:
                    raise UserError(
                        f"one sequence of {len(some[0].ids)} tokens does not fit into memory: "
                        "evaluate with precision nf4, or on a card with more memory"
                    ) from None
            log.warning("out of memory with %d sequences: half as many from here on", len(some))
            free_memory()
            self.batch, self.batch_tokens = self.batch and len(some) // 2, self.batch_tokens // 2

    @torch.no_grad()
    def _scores(self, batch: Batch) -> Iterator[tuple[LayerSet, Tensor, Tensor]]:
        """For each block the log-probability of every scored token, and whether it is the likeliest, [F]."""
        piece = logits_at_once(self.model)
        if self.tree:
            for block, states in self.tree.states(batch.ids, self.blocks):
                scores = batch.pick(states, self.tree.head, piece)
                del states  # before the next branch
                yield block, *scores
        else:
            for block in self.blocks:
                with removed(self.model, block):
                    logits = self.model(batch.ids, use_cache=False).logits
                yield block, *batch.pick(logits, lambda logits: logits, piece)
        self.layers_run += self.tree.calls if self.tree else self.layers_of_cuts
        self.layers_separate += self.layers_of_cuts

    def _make_tree(self) -> Tree:
        return Tree(self.model)

    def _exact_tree(self) -> Tree | None:
        """The tree, if it gives the same numbers as each cut by itself on two short sequences. All their
        places are scored: then both ways compute products of the same shapes, which are equal in bf16 too."""
        vocabulary = self.model.get_input_embeddings().num_embeddings
        ids = np.random.default_rng(0).integers(vocabulary, size=(2, 17)).tolist()
        batch = Batch.of(_inputs([(row[:1], row[1:]) for row in ids], 17), self.model.device)
        self.tree = None
        separate = {block: p for block, p, _ in self._scores(batch)}
        try:
            self.tree = self._make_tree()
            together = {block: p for block, p, _ in self._scores(batch)}
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            log.warning("%s: its layers cannot be called apart (%s)", type(self.model).__name__, error)
            return None
        finally:
            self.layers_run = self.layers_separate = 0
        off = {block: (together[block] - separate[block]).abs().mean().item() for block in self.blocks}
        record(tree_check={"mean_difference_nats": max(off.values())})
        if all(_agree(together[block], separate[block], self.model.dtype) for block in self.blocks):
            return self.tree
        log.warning(
            "%s: calling its layers apart is off by %.2g", type(self.model).__name__, max(off.values())
        )
        return None


def _agree(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two sets of log-probabilities [F] are the same but for rounding. In 16 bits a kernel may sum in
    another order: allowed is a mean difference far below that of one wrong layer, which is 7 % to 23 % of the
    standard deviation over the tokens (docs/methods.md)."""
    off = (found - expected).abs()
    if off.max() <= 16 * torch.finfo(torch.float32).eps * expected.abs().max():
        return True
    return dtype != torch.float32 and bool(off.mean() <= 0.005 * expected.std())


class Tree(Apart):
    """The decoder layers of ``model``, called in the order of a family of cuts."""

    def __init__(self, model):
        super().__init__(model)
        self.calls = 0  # of a layer, in the last ``states``
        self.outputs = self._outputs()

    def states(self, ids: Tensor, blocks: Sequence[LayerSet]) -> Iterator[tuple[LayerSet, Tensor]]:
        """(block, hidden states [B, T, d] behind the last layer, before the final norm) of every block."""
        hidden, call = self._start(ids)
        self.calls = 0
        at, end = 0, len(self.layers)
        # The unpruned model is the end of the trunk.
        for fork, block in sorted((block.first if block.n else end, block) for block in blocks):
            for i in range(at, fork):
                hidden = call(i, hidden)
            at, branch = fork, hidden
            for i in range(fork + block.n, end):
                branch = call(i, branch)
            yield block, branch
            del branch

    def _start(self, ids: Tensor) -> tuple[Tensor, Callable[[int, Tensor], Tensor]]:
        """The hidden states before layer 0, and a function that runs layer i on hidden states."""
        arguments = self.arguments(ids, last=len(self.layers) - 1)
        before = arguments[0][0]
        arguments = [(others, named) for _, others, named in arguments]

        def call(i: int, hidden: Tensor) -> Tensor:
            self.calls += 1
            others, named = arguments[i]
            output = self.layers[i](hidden, *others, **named)
            return output[0] if isinstance(output, tuple | list) else output

        return before, call

    def _outputs(self) -> list:
        """What each layer returns for one token."""
        outputs = []
        hooks = [
            layer.register_forward_hook(lambda _, __, output: outputs.append(output)) for layer in self.layers
        ]
        try:
            with torch.no_grad():
                self.model(torch.zeros(1, 1, dtype=torch.long, device=self.model.device), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return outputs


class StreamedFamily:
    """As ``Family``, for a model that is read one layer at a time (see ``stream``): the numbers are those of
    its tree. Hidden states wait in host memory, or on disk in the folder ``spill``.

    A cut's hidden states are shared with every other cut that has run the same layers so far. There is no
    journal: an evaluation that was killed starts again.
    """

    def __init__(
        self,
        stream: Stream,
        blocks: Sequence[LayerSet],
        batch: int | None = None,
        spill: str | Path | None = None,
    ):
        self.stream, self.model = stream, stream.model
        self.blocks = list(blocks)
        self.batch, self.batch_tokens = batch, default_batch_tokens(stream.device)
        self.padded = partial(padded_length, device=stream.device, longest=positions(self.model))
        self.spill = spill
        self.layers_run = self.layers_separate = 0

    @torch.no_grad()
    def loglikelihoods(
        self, pairs: Sequence[Pair], max_length: int, what: str, journal: Path | None = None
    ) -> dict[LayerSet, list[Answer]]:
        """As ``Family.loglikelihoods``."""
        todo, batches = _inputs(pairs, max_length), []
        while todo:
            some = _first_batch(todo, self.batch, self.batch_tokens, self.padded)
            batches.append(Batch.of(some, self.stream.device, self.padded))
            todo = todo[len(some) :]
        store = Store(self.spill)
        states = [
            dict.fromkeys(self.blocks, store.keep(self.stream.embedded(batch.ids))) for batch in batches
        ]
        with Progress(f"{what}, streamed", len(self.stream.layers) * len(batches), "step") as progress:
            for i in self.stream.walk():
                for batch, state in zip(batches, states, strict=True):
                    self._advance(i, batch.ids, state, store)
                    progress.update()
        answers: Answers = {block: {} for block in self.blocks}
        for batch, state in zip(batches, states, strict=True):
            for block in self.blocks:
                scores = batch.pick(state.pop(block)(), self.stream.head, logits_at_once(self.model))
                answers[block].update(batch.answers(*scores))
        return {block: [by_pair[i] for i in range(len(pairs))] for block, by_pair in answers.items()}

    def layer_counts(self) -> dict:
        """As ``Family.layer_counts``."""
        return {"run": self.layers_run, "separate": self.layers_separate, "tree": True}

    def _advance(
        self, i: int, ids: Tensor, state: dict[LayerSet, Callable[[], Tensor]], store: Store
    ) -> None:
        """Replace the hidden states of every cut that has layer i by what that layer makes of them."""
        layer = self.stream.layer(i, ids)
        cuts: dict[Callable[[], Tensor], list[LayerSet]] = {}  # by the hidden states that they share
        for block in self.blocks:
            if i not in block:
                cuts.setdefault(state[block], []).append(block)
        for before, blocks in cuts.items():
            after = store.keep(layer(before()))
            state.update(dict.fromkeys(blocks, after))
            self.layers_run += 1
            self.layers_separate += len(blocks)


def default_batch_tokens(device: torch.device) -> int:
    """Tokens of a batch whose size the user leaves open."""
    return 16384 if device.type == "cuda" else 1024


def logits_at_once(model) -> int:
    """For how many places logits are computed at a time."""
    return max(1, LOGIT_BYTES // (4 * model.get_input_embeddings().num_embeddings))


@dataclass
class Input:
    """A token sequence that is run once, and the continuations (by number of the pair) scored at its end."""

    ids: tuple[int, ...]
    continuations: list[tuple[int, Sequence[int]]] = field(default_factory=list)


def _inputs(pairs: Sequence[Pair], max_length: int) -> list[Input]:
    """The distinct inputs of ``pairs``, longest first. Choices of one token share an input, as in lm-eval."""
    inputs: dict[tuple[int, ...], Input] = {}
    for number, (context, continuation) in enumerate(pairs):
        if len(continuation) > max_length:
            raise UserError(
                f"a continuation of {len(continuation)} tokens is longer than the model's {max_length}"
            )
        ids = (*context, *continuation)[-(max_length + 1) : -1]
        inputs.setdefault(ids, Input(ids)).continuations.append((number, continuation))
    return sorted(inputs.values(), key=lambda i: (-len(i.ids), i.ids))


def _first_batch(
    inputs: list[Input], batch: int | None, batch_tokens: int, padded: Callable[[int], int]
) -> list[Input]:
    """The first of ``inputs``, which are longest first: ``batch``, or as many as make ``batch_tokens``."""
    return inputs[: batch or max(1, batch_tokens // padded(len(inputs[0].ids)))]


@dataclass
class Batch:
    """Padded inputs and what is scored in them.

    ``ids`` [B, T], padded on the right; ``rows``, ``columns`` [P]: the places whose logits are needed;
    ``places``, ``targets``, ``owners`` [F]: for each scored token its place in [0, P), ascending, its id,
    and the number of its pair.
    """

    ids: Tensor
    rows: Tensor
    columns: Tensor
    places: Tensor
    targets: Tensor
    owners: Tensor

    @classmethod
    def of(
        cls, inputs: Sequence[Input], device: torch.device, padded: Callable[[int], int] = lambda n: n
    ) -> Batch:
        """``padded`` says how long a batch is whose longest sequence has so many tokens."""
        ids = torch.zeros(len(inputs), padded(max(len(i.ids) for i in inputs)), dtype=torch.long)
        rows, columns, scored = [], [], []
        for row, one in enumerate(inputs):
            ids[row, : len(one.ids)] = torch.tensor(one.ids)
            longest = max(len(continuation) for _, continuation in one.continuations)
            rows += [row] * longest
            columns += range(len(one.ids) - longest, len(one.ids))
            for number, continuation in one.continuations:
                places = range(len(rows) - len(continuation), len(rows))
                scored += zip(places, continuation, [number] * len(continuation), strict=True)
        places, targets, owners = zip(*sorted(scored), strict=True)
        return cls(*(torch.as_tensor(x).to(device) for x in (ids, rows, columns, places, targets, owners)))

    def pick(self, states: Tensor, head: Callable[[Tensor], Tensor], piece: int) -> tuple[Tensor, Tensor]:
        """The log-probability of each scored token and whether it is the likeliest, [F], given
        ``states`` [B, T, ...] of which ``head`` makes logits, of at most ``piece`` places at a time."""
        states = states[self.rows, self.columns]
        chosen, likeliest = [], []
        for start in range(0, len(states), piece):
            log_p = head(states[start : start + piece]).float().log_softmax(-1)
            here = (self.places >= start) & (self.places < start + piece)
            places, targets = self.places[here] - start, self.targets[here]
            chosen.append(log_p[places, targets])
            likeliest.append(log_p.argmax(-1)[places] == targets)
        return torch.cat(chosen), torch.cat(likeliest)

    def answers(self, chosen: Tensor, likeliest: Tensor) -> dict[int, Answer]:
        """The answer to each pair of the batch, from the log-probabilities of its tokens."""
        numbers, owners = self.owners.cpu().unique(return_inverse=True)
        sums = torch.zeros(len(numbers), dtype=torch.float64).index_add_(0, owners, chosen.cpu().double())
        misses = torch.zeros(len(numbers)).index_add_(0, owners, (~likeliest).cpu().float())
        return dict(
            zip(numbers.tolist(), zip(sums.tolist(), (misses == 0).tolist(), strict=True), strict=True)
        )


class Journal:
    """The answers of finished batches in a file of ``folder`` (None: nowhere), so that a killed evaluation
    goes on where it died. A line holds how many inputs are done and the answers of the last ones."""

    def __init__(self, folder: Path | None, inputs: Sequence[Input], blocks: Sequence[LayerSet]):
        self.blocks = blocks
        digest = sha256()
        for one in inputs:
            digest.update(repr(one).encode())
        self.path = folder and folder / f"{digest.hexdigest()[:16]}.jsonl"

    def read(self) -> Iterator[tuple[int, Answers]]:
        """(inputs done, their answers) of every line that is whole and knows all of our blocks; what
        follows the last such line is cut off."""
        if self.path is None or not self.path.exists():
            return
        whole = 0
        with open(self.path, "rb") as file:
            for line in file:
                try:
                    done, by_block = json.loads(line if line.endswith(b"\n") else b"")
                    found = {b: {i: (ll, hit) for i, ll, hit in by_block[str(b)]} for b in self.blocks}
                except (ValueError, KeyError):
                    break
                whole += len(line)
                yield done, found
        os.truncate(self.path, whole)

    def write(self, done: int, found: Answers) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        by_block = {str(block): [(i, *answer) for i, answer in by.items()] for block, by in found.items()}
        with open(self.path, "a") as file:
            file.write(json.dumps([done, by_block]) + "\n")


def _add(answers: Answers, found: Answers) -> None:
    for block, by_pair in found.items():
        answers[block].update(by_pair)
