"""An evaluation from its options to its files: a suite, the cuts that lack its results, and who scores them.

Nothing heavy is imported before something is to be computed.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..pruning.layer_set import FULL, LayerSet
from ..runtime.files import read_json
from ..runtime.progress import Progress
from ..settings.suites import LossSettings, PerplexitySettings, TaskSettings
from .job import Job, LossSuite, PerplexitySuite, TaskSuite

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .cut_scorer import CutScorer
    from .streamed_scorer import StreamedCutScorer

    Scorer = CutScorer | StreamedCutScorer
    Results = Iterable[tuple[LayerSet, dict]]


class Evaluation:
    """What the ``options`` of scripts/evaluate.py ask for. ``job.missing`` is what is left to do.

    Raises UserError for settings that cannot be, and for files that are not what they should be.
    """

    def __init__(self, options: Namespace):
        self.options = options
        self.suite = suite_of(options)
        # Healed cuts fit into memory: they were healed there.
        is_healed = options.adapter is not None or options.healed is not None
        self.is_streamed = options.stream and not isinstance(self.suite, TaskSuite) and not is_healed
        treatment = options.treatment or ("healed" if is_healed else "pruned")
        labels = {"treatment": treatment, "suite": options.suite, "stream": self.is_streamed}
        facts = {"settings": self.suite.facts(), "precision": options.precision, "code": options.code}
        cuts = options.checkpoint, options.blocks, options.adapter, options.out
        self.job = Job(*cuts, facts, labels, options.healed)
        self.title = f"{options.suite} of {self.job.labels['model']}"

    def check_tasks(self) -> None:
        """Load lm-eval's tasks, without torch: a faulty task is told before a GPU is waited for."""
        if self.job.missing and isinstance(self.suite, TaskSuite):
            if self.suite.chat:
                check_chat(self.options.checkpoint)
            if self.suite.bos == "always":
                check_bos(self.options.checkpoint, self.options.trust_remote_code)
            _ = self._tasks

    def run(self) -> None:
        """Write the results that are missing, and then the index."""
        if not self.job.missing:
            self.job.finish()
            return
        if self.job.healed:
            self._write(self._healed())
            self.job.finish()
            return
        model = None if self.is_streamed else self._model()
        scorer, results = self._score(model, self.job.missing, self.title, self.job.journal)
        self._write(results)
        self.job.finish(scorer.layer_counts())

    def _write(self, results: Results) -> None:
        with Progress(f"{self.title}, results", total=len(self.job.missing), unit="block") as progress:
            for block, result in results:
                self.job.write(block, result)
                progress.update()

    def _healed(self) -> Results:
        """Each healed cut by itself, all of them on one model in memory."""
        from ..runtime.memory import free_memory

        for block, healed in self._healed_models():
            with healed as model:
                title = f"{self.title} without {block}"
                _, results = self._score(model, [FULL], title, self.job.journal_of(block))
                for _, result in results:
                    yield block, result
            free_memory()

    def _healed_models(self) -> Iterator[tuple[LayerSet, AbstractContextManager[PreTrainedModel]]]:
        """On the uncut model, or where that may not fit into memory on the checkpoint of the cut."""
        from ..models.artifacts import healed_cut, load_healed

        options, job = self.options, self.job
        if options.stream and not isinstance(self.suite, TaskSuite):
            for block in job.missing:
                cut, artifact = options.checkpoint.with_name(str(block)), job.artifact(block).folder
                yield block, nullcontext(load_healed(cut, artifact, *self._how))
        else:
            model = self._model()
            for block in job.missing:
                yield block, healed_cut(model, block, job.artifact(block))

    @cached_property
    def _tasks(self) -> tuple:
        """lm-eval's manager and the suite's tasks."""
        from .tasks import check_tasks, load_tasks

        manager, tasks = load_tasks(self.suite)
        config = read_json(self.options.checkpoint / "config.json")
        check_tasks(tasks, config, self.options.metric, self.suite.generation)
        return manager, tasks

    def _score(
        self, model: PreTrainedModel | None, blocks: Sequence[LayerSet], title: str, journal: Path
    ) -> tuple[Scorer, Results]:
        """The ``blocks`` of the ``model``; None: of the one that is streamed."""
        if not isinstance(self.suite, TaskSuite):
            from .cut_scorer import CutScorer

            batch = self.options.batch
            scorer = CutScorer(model, blocks, batch) if model else self._streamed_scorer(blocks)
            return scorer, self._of_text(scorer, title, journal).items()
        from ..data.tokens import load_tokenizer
        from .harness import CutsLM, evaluate

        manager, tasks = self._tasks
        tokenizer = load_tokenizer(self.options.checkpoint, self.options.trust_remote_code)
        suite = self.suite
        lm = CutsLM(model, tokenizer, blocks, self.options.batch, title, journal, suite.bos, suite.think_end)
        return lm.scorer, evaluate(lm, self.suite, manager, tasks)

    def _of_text(self, scorer: Scorer, title: str, journal: Path) -> dict[LayerSet, dict]:
        """The loss or the perplexity of the suite's text, by cut."""
        from ..data.tokens import Tokens

        suite = self.suite
        tokens = Tokens(suite.tokens)
        if isinstance(suite, LossSuite):
            from .loss import losses

            return losses(scorer, tokens.first(suite.sequences, suite.length), title, journal)
        from .perplexity import perplexities

        ids = tokens.together(suite.documents)
        return perplexities(scorer, ids, suite.window, suite.stride, title, journal)

    def _streamed_scorer(self, blocks: Sequence[LayerSet]) -> StreamedCutScorer:
        from ..models.streaming import Stream
        from .streamed_scorer import StreamedCutScorer

        options = self.options
        return StreamedCutScorer(Stream(options.checkpoint, *self._how), blocks, options.batch, options.spill)

    def _model(self) -> PreTrainedModel:
        from ..models.artifacts import load_healed
        from ..models.load import load_model

        checkpoint, adapter = self.options.checkpoint, self.options.adapter
        return load_healed(checkpoint, adapter, *self._how) if adapter else load_model(checkpoint, *self._how)

    @property
    def _how(self) -> tuple[str, bool]:
        """The precision, and whether the model's own code is run."""
        return self.options.precision, self.options.trust_remote_code


def check_chat(checkpoint: Path) -> None:
    """Raise UserError if the tokenizer in the folder ``checkpoint`` has no chat template."""
    settings = checkpoint / "tokenizer_config.json"
    said = read_json(settings).get("chat_template") if settings.is_file() else None
    if not said and not (checkpoint / "chat_template.jinja").is_file():
        raise UserError(
            f"{checkpoint}: its tokenizer has no chat template, so it cannot be asked with chat: true; take "
            "the model's instruct version, or leave chat out"
        )


def check_bos(checkpoint: Path, trust_remote_code: bool) -> None:
    """Raise UserError if the tokenizer in the folder ``checkpoint`` begins nothing with a token for that, in
    which case lm-eval adds none either, without a word."""
    from ..data.tokens import load_tokenizer

    tokenizer = load_tokenizer(checkpoint, trust_remote_code)
    if tokenizer.encode("a", add_special_tokens=True)[:1] != [tokenizer.bos_token_id]:
        raise UserError(
            f"{checkpoint}: bos: always, and its tokenizer adds no first token, nor can lm-eval; leave it out"
        )


def suite_of(options: Namespace) -> TaskSuite | LossSuite | PerplexitySuite:
    """The suite that options ask for. Raises UserError if it is none, or has settings that cannot be."""
    kind = next((kind for kind in ("loss", "perplexity") if getattr(options, kind)), None)
    if kind and not options.tokens:
        raise UserError(f"give --tokens along with --{kind}")
    if not kind and not options.tasks:
        raise UserError("give --tasks, --loss or --perplexity")
    if kind == "perplexity":
        asked = PerplexitySettings.of(vars(options))
        return PerplexitySuite(options.tokens, asked.documents, asked.window, asked.stride or asked.window)
    if kind:
        loss = LossSettings.of(vars(options))
        return LossSuite(options.tokens, loss.sequences, loss.length)
    tasks = TaskSettings.of(vars(options))
    names = ("shots", "limit", "order", "bos", "chat", "system", "generation", "think_end")
    asked = {name: getattr(tasks, name) for name in names}
    return TaskSuite(tuple(tasks.tasks), tuple(map(Path, tasks.include)), samples=options.samples, **asked)
