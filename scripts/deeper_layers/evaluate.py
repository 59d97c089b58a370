"""lm-eval on a checkpoint, or on all cuts of one in one process: its own JSON, with our provenance added."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.metadata
import itertools
import json
import os
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import datasets
import lm_eval.api.task
import lm_eval.tasks
import lm_eval.utils
import torch
import torch.utils.collect_env
from lm_eval import simple_evaluate
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, handle_non_serializable, make_disjoint_window
from tqdm import tqdm

from .blocks import Block
from .errors import UserError
from .evaluation_job import TaskSuite
from .family import Answer, Family
from .layers import removed
from .memory import free_memory, is_out_of_memory

# lm-eval's standard errors of means are analytic whatever this is (0 would turn them off); only metrics
# such as F1 are bootstrapped, and these in this process.
BOOTSTRAP = 1000
os.environ["DISABLE_MULTIPROC"] = "1"
# Bars of libraries would fill the log; program.Progress is what a person sees.
datasets.disable_progress_bars()
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


def load_tasks(suite: TaskSuite) -> tuple[TaskManager, list[Task | Group]]:
    """lm-eval's manager and the suite's tasks and groups, built once for all blocks.

    Its own 14,000 task files are parsed (20 s) only when that cannot be avoided. Raises UserError for a
    name that nobody knows, and for a task whose data cannot be had.
    """
    for manager in _managers(suite):
        if set(suite.tasks) <= set(manager.all_tasks):
            try:
                return manager, _load(manager, suite)
            except (LookupError, TypeError):  # a group of tasks that are defined in other folders
                continue
    known = manager.all_tasks
    name = next(name for name in suite.tasks if name not in known)
    near = difflib.get_close_matches(name, known)
    hint = f"did you mean {' or '.join(near)}?" if near else "`lm-eval ls tasks` lists them"
    raise UserError(f"lm-eval has no task {name!r}: {hint}")


def _managers(suite: TaskSuite) -> Iterator[TaskManager]:
    """lm-eval's manager of the suite's own folders; of these and the folders of lm-eval that define its
    tasks; of all tasks."""
    own = list(suite.include)
    yield TaskManager(include_path=own, include_defaults=False)
    yield TaskManager(include_path=[*_homes(suite.tasks), *own], include_defaults=False)
    yield TaskManager(include_path=own)


def _homes(names: Sequence[str]) -> list[Path]:
    """The folders of lm-eval with a file that defines one of these tasks or groups, found as text."""
    words = "|".join(map(re.escape, names))
    defines = re.compile(rf"^(?:task|group):\s*[\"']?(?:{words})[\"']?\s*$", re.MULTILINE)
    files = Path(lm_eval.tasks.__file__).parent.rglob("*.yaml")
    return sorted({file.parent for file in files if defines.search(file.read_text(errors="replace"))})


def _load(manager: TaskManager, suite: TaskSuite) -> list[Task | Group]:
    items = {}
    for name in suite.tasks:
        try:
            loaded = manager.load(name)
        except (ConnectionError, FileNotFoundError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"no data for task {name!r} ({reason}): is there a network, or a copy in the cache?"
            ) from None
        for task in loaded["tasks"].values():
            if suite.order is not None:
                _shuffle_examples(task, suite.order)
            _build_once(task)
        items |= {name: loaded["groups"][name]} if name in loaded["groups"] else loaded["tasks"]
    return list(items.values())


def _shuffle_examples(task: Task, seed: int) -> None:
    """Show the examples of ``task`` in another order: MMLU's are the first ones of its dev split."""
    if hasattr(task, "sampler"):
        examples = list(task.sampler.df)
        random.Random(seed).shuffle(examples)
        task.sampler.replace_df(examples)


def _build_once(task: Task) -> None:
    """Let ``task`` keep its requests for the next block, with the answers wiped."""
    todo = [task.build_all_requests]

    def once(**how):
        while todo:
            todo.pop()(**how)
        for instance in task.instances:
            instance.resps, instance.filtered_resps = [], {}

    task.build_all_requests = once


class FamilyLM(HFLM):
    """lm-eval's view of a model of which it sees one cut, ``block``, at a time.

    Log-likelihoods are computed for all ``blocks`` when first asked for (see ``family``) and remembered;
    texts are generated by the model with the layers of ``block`` taken out. ``batch`` None: found by
    halving when memory runs out.
    """

    def __init__(
        self, model, tokenizer, blocks: Sequence[Block], batch: int | None, what: str, journal: Path | None
    ):
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch or 64)
        self.family = Family(model, blocks, batch)
        self.block = blocks[0]
        self.what, self.journal = what, journal
        self.remembered: dict[str, dict[Block, list]] = {}

    def loglikelihood(self, requests, disable_tqdm: bool = True) -> list[Answer]:
        """Log-likelihood and greediness of (context, continuation) texts by the current block."""
        key = _digest_of_requests(requests)
        if key not in self.remembered:
            super().loglikelihood(requests, disable_tqdm=True)
            self.remembered[key] = self.latest
        return self.remembered[key][self.block]

    def _loglikelihood_tokens(self, requests, disable_tqdm: bool = True, override_bs=None) -> list[Answer]:
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
            scored = self._score([pair for _, pair in windows])
            self.remembered[key] = {block: [0.0] * len(requests) for block in scored}
            for block, answers in scored.items():
                for (owner, _), (log_likelihood, _) in zip(windows, answers, strict=True):
                    self.remembered[key][block][owner] += log_likelihood
        return self.remembered[key][self.block]

    def _score(self, pairs) -> dict[Block, list[Answer]]:
        return self.family.loglikelihoods(pairs, self.max_length, self.what, self.journal)

    def generate_until(self, requests, disable_tqdm: bool = True) -> list[str]:
        """The continuations that the current block writes."""
        with self._cut():
            while True:
                try:
                    return super().generate_until(requests, disable_tqdm=True)
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
    lm: FamilyLM, suite: TaskSuite, manager: TaskManager, tasks: list
) -> Iterator[tuple[Block, dict]]:
    """(block, lm-eval's results as plain JSON values, under ``chance`` what ``chances`` found) of each of the
    family's blocks, when it is finished.

    ``manager`` and ``tasks`` are from ``load_tasks``. Seeds are lm-eval's fixed ones.
    """
    chance = chances(tasks, suite.limit)
    for block in lm.family.blocks:
        lm.block = block
        results = simple_evaluate(
            model=lm,
            tasks=tasks,
            task_manager=manager,
            num_fewshot=suite.shots,
            limit=suite.limit,
            bootstrap_iters=BOOTSTRAP,
            log_samples=suite.samples,
        )
        results = json.loads(json.dumps(results, default=handle_non_serializable))
        yield block, {**results, "chance": chance}


def chances(tasks: Sequence[Task | Group], limit: int | None = None) -> dict[str, float]:
    """{name: accuracy of a guess} of every task, those of groups included, that lm-eval scores by choosing:
    the mean over its first ``limit`` documents (None: all) of the part of the choices that are right. Left
    out are tasks that score in a way of their own, of which nothing can be told."""
    found = {}
    for task in (t for item in tasks for t in (item.get_all_tasks() if isinstance(item, Group) else [item])):
        if task.OUTPUT_TYPE != "multiple_choice" or callable(task.config.process_results):
            continue
        parts = [_guess(task, doc) for doc in itertools.islice(task.eval_docs, limit)]
        if parts and None not in parts:
            found[task.task_name] = sum(parts) / len(parts)
    return found


def _guess(task: Task, doc: dict) -> float | None:
    """The part of a document's choices that are right; None if it has none."""
    choices, right = task.doc_to_choice(doc), task.doc_to_target(doc)
    if not choices:
        return None
    return (len(set(right)) if isinstance(right, list) else 1) / len(choices)


def _digest_of_requests(requests) -> str:
    digest = hashlib.sha256()
    for request in requests:
        digest.update(repr(request.args).encode())
    return digest.hexdigest()
