"""lm-eval on a checkpoint, or on all cuts of one in one process: its own JSON, with our provenance added."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import lm_eval.api.task
import lm_eval.utils
import torch
import torch.utils.collect_env
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, handle_non_serializable, make_disjoint_window
from tqdm import tqdm

from ..errors import UserError
from ..models.layers import removed
from ..pruning.layer_set import LayerSet
from ..runtime.memory import free_memory, is_out_of_memory
from ..runtime.provenance import record
from .cut_scorer import CutScorer
from .inputs import Request, Score
from .job import TaskSuite
from .tasks import answer_levels
from .writing import Writer, is_greedy

# lm-eval's standard errors of means are analytic whatever this is (0 would turn them off); only metrics
# such as F1 are bootstrapped, and these in this process.
BOOTSTRAP = 1000
os.environ["DISABLE_MULTIPROC"] = "1"
lm_eval.api.task.tqdm = functools.partial(tqdm, disable=True)
# lm-eval compiles a task's templates anew for every document, and asks the system to describe itself at
# every call: once is enough.
lm_eval.utils.env.from_string = functools.lru_cache(1000)(lm_eval.utils.env.from_string)
torch.utils.collect_env.get_pretty_env_info = functools.cache(torch.utils.collect_env.get_pretty_env_info)


def _read_command(run, command, read=torch.utils.collect_env.run_and_read_all) -> str | None:
    """What a command prints; but what pip lists is read without pip, which takes a second to start."""
    if "-mpip" not in command:
        return read(run, command)
    found = {package.name: package.version for package in importlib.metadata.distributions()}
    return "\n".join(f"{name}=={found[name]}" for name in sorted(found, key=str.lower))


torch.utils.collect_env.run_and_read_all = _read_command


class CutsLM(HFLM):
    """lm-eval's view of a model of which it sees one cut, ``block``, at a time.

    Log-likelihoods are computed for all ``blocks`` when first asked for (see ``cut_scorer``) and remembered;
    texts are written by the model with the layers of ``block`` taken out (see ``writing``). ``batch`` None:
    as many sequences as memory has room for. ``bos`` (always, never, None: the tokenizer's way) and
    ``think_end`` are those of ``settings.suites``.
    """

    def __init__(
        self,
        model,
        tokenizer,
        blocks: Sequence[LayerSet],
        batch: int | None,
        label: str,
        journal: Path | None,
        bos: str | None = None,
        think_end: str | None = None,
    ):
        begins = None if bos is None else bos == "always"
        how = {"add_bos_token": begins, "think_end_token": think_end, "batch_size": batch or 64}
        super().__init__(pretrained=model, tokenizer=tokenizer, **how)
        record(begins_with_bos=self.tok_encode("a")[:1] == [self.prefix_token_id])
        self.scorer, self.writer = CutScorer(model, blocks, batch), Writer(self, batch)
        self.block = blocks[0]
        self.label, self.journal = label, journal
        self.remembered: dict[str, dict[LayerSet, list]] = {}

    def loglikelihood(self, requests, disable_tqdm: bool = True) -> list[Score]:
        """Log-likelihood and greediness of (context, continuation) texts by the current block."""
        key = _digest_of_requests(requests)
        if key not in self.remembered:
            super().loglikelihood(requests, disable_tqdm=True)
            self.remembered[key] = self.latest
        return self.remembered[key][self.block]

    def _loglikelihood_tokens(self, requests, disable_tqdm: bool = True, override_bs=None) -> list[Score]:
        self.latest = self._score([(context, continuation) for _, context, continuation in requests])
        return self.latest[self.block]

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood of whole texts, in windows of the model's length, by the current block."""
        key = _digest_of_requests(requests)
        if key not in self.remembered:
            windows = [
                (owner, make_disjoint_window(window))
                for owner, request in enumerate(requests)
                for window in get_rolling_token_windows(
                    self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, context_len=1
                )
            ]
            scored = self._score([request for _, request in windows])
            self.remembered[key] = {block: [0.0] * len(requests) for block in scored}
            for block, scores in scored.items():
                for (owner, _), (log_likelihood, _) in zip(windows, scores, strict=True):
                    self.remembered[key][block][owner] += log_likelihood
        return self.remembered[key][self.block]

    def _score(self, requests: Sequence[Request]) -> dict[LayerSet, list[Score]]:
        return self.scorer.loglikelihoods(requests, self.max_length, self.label, self.journal, share=True)

    def generate_until(self, requests, disable_tqdm: bool = True) -> list[str]:
        """The continuations that the current block writes: greedy ones by ``writing``, others by lm-eval."""
        answers: dict[int, str] = {}
        with self._cut():
            for numbers in _by_settings(requests):
                said = requests[numbers[0]].args[1]
                if is_greedy(said):
                    texts = self.writer.write([requests[i].args[0] for i in numbers], said)
                else:
                    texts = self._sample([requests[i] for i in numbers])
                answers.update(zip(numbers, texts, strict=True))
        return [answers[i] for i in range(len(requests))]

    def _sample(self, requests) -> list[str]:
        while True:
            try:
                return super().generate_until(requests, disable_tqdm=True)
            except AssertionError as error:  # of lm-eval: an answer longer than the model
                raise UserError(f"{self.label}: {error}") from None
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self.batch_size_per_gpu == 1:
                    raise UserError(
                        "one sequence does not fit into memory: evaluate with precision nf4, "
                        "or on a card with more memory"
                    ) from None
            self.batch_size_per_gpu //= 2
            free_memory()

    def get_model_info(self) -> dict:
        with self._cut():
            return super().get_model_info()

    def _cut(self):
        return removed(self.model, self.block) if self.block.n else nullcontext()


def evaluate(
    lm: CutsLM, suite: TaskSuite, manager: TaskManager, tasks: list
) -> Iterator[tuple[LayerSet, dict]]:
    """(block, lm-eval's results as plain JSON values, under ``chance`` and ``majority`` the
    ``answer_levels``) of each of the blocks of ``lm``, when it is finished.

    ``manager`` and ``tasks`` are from ``tasks.load_tasks``. Seeds are lm-eval's fixed ones.
    """
    levels = answer_levels(tasks, suite.limit)
    for block in lm.scorer.blocks:
        lm.block = block
        results = simple_evaluate(
            model=lm,
            tasks=tasks,
            task_manager=manager,
            num_fewshot=suite.shots,
            limit=suite.limit,
            bootstrap_iters=BOOTSTRAP,
            log_samples=suite.samples,
            apply_chat_template=suite.chat,
            system_instruction=suite.system,
            gen_kwargs=suite.generation,
        )
        results = json.loads(json.dumps(results, default=handle_non_serializable))
        yield block, {**results, **levels}


def _digest_of_requests(requests) -> str:
    digest = hashlib.sha256()
    for request in requests:
        digest.update(repr(request.args).encode())
    return digest.hexdigest()


def _by_settings(requests) -> list[list[int]]:
    """The numbers of the requests with the same settings for generation."""
    found: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        found.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(number)
    return list(found.values())
