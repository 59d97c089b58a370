"""An evaluation from its options to its files: a suite, the cuts that lack its results, and who scores them.

Nothing heavy is imported before something is to be computed.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..runtime.files import read_json
from ..runtime.progress import Progress
from ..settings.suites import LossSettings, TaskSettings
from .job import Job, LossSuite, TaskSuite

if TYPE_CHECKING:
    from .cut_scorer import CutScorer
    from .streamed_scorer import StreamedCutScorer


class Evaluation:
    """What the ``options`` of scripts/evaluate.py ask for. ``job.missing`` is what is left to do.

    Raises UserError for settings that cannot be, and for files that are not what they should be.
    """

    def __init__(self, options: Namespace):
        self.options = options
        self.suite = suite_of(options)
        # Healed cuts fit into memory: they were healed there.
        self.is_streamed = options.stream and options.loss and options.adapter is None
        treatment = options.treatment or ("healed" if options.adapter else "pruned")
        labels = {"treatment": treatment, "suite": options.suite, "stream": self.is_streamed}
        facts = {"settings": self.suite.facts(), "precision": options.precision, "code": options.code}
        self.job = Job(options.checkpoint, options.blocks, options.adapter, options.out, facts, labels)
        self.title = f"{options.suite} of {self.job.labels['model']}"

    def check_tasks(self) -> None:
        """Load lm-eval's tasks, without torch: a faulty task is told before a GPU is waited for."""
        if self.job.missing and isinstance(self.suite, TaskSuite):
            _ = self._tasks

    def run(self) -> None:
        """Write the results that are missing, and then the index."""
        if not self.job.missing:
            self.job.finish()
            return
        scorer, results = self._score_tasks() if isinstance(self.suite, TaskSuite) else self._score_loss()
        with Progress(f"{self.title}, results", total=len(self.job.missing), unit="block") as progress:
            for block, result in results:
                self.job.write(block, result)
                progress.update()
        self.job.finish(scorer.layer_counts())

    @cached_property
    def _tasks(self) -> tuple:
        """lm-eval's manager and the suite's tasks."""
        from .tasks import check_tasks, load_tasks

        manager, tasks = load_tasks(self.suite)
        check_tasks(tasks, read_json(self.options.checkpoint / "config.json"))
        return manager, tasks

    def _score_tasks(self) -> tuple[CutScorer, Iterable]:
        from ..data.tokens import load_tokenizer
        from .harness import CutsLM, evaluate

        manager, tasks = self._tasks
        tokenizer = load_tokenizer(self.options.checkpoint, self.options.trust_remote_code)
        job = self.job
        lm = CutsLM(self._model(), tokenizer, job.missing, self.options.batch, self.title, job.journal)
        return lm.scorer, evaluate(lm, self.suite, manager, tasks)

    def _score_loss(self) -> tuple[CutScorer | StreamedCutScorer, Iterable]:
        from ..data.tokens import Tokens
        from .loss import losses

        documents = Tokens(self.suite.tokens).first(self.suite.sequences, self.suite.length)
        scorer = self._streamed_scorer() if self.is_streamed else self._scorer()
        return scorer, losses(scorer, documents, self.title, self.job.journal).items()

    def _scorer(self) -> CutScorer:
        from .cut_scorer import CutScorer

        return CutScorer(self._model(), self.job.missing, self.options.batch)

    def _streamed_scorer(self) -> StreamedCutScorer:
        from ..models.streaming import Stream
        from .streamed_scorer import StreamedCutScorer

        options = self.options
        stream = Stream(options.checkpoint, options.precision, options.trust_remote_code)
        return StreamedCutScorer(stream, self.job.missing, options.batch, options.spill)

    def _model(self):
        options = self.options
        how = {"precision": options.precision, "trust_remote_code": options.trust_remote_code}
        if options.adapter is None:
            from ..models.load import load_model

            return load_model(options.checkpoint, **how)
        from ..models.artifacts import load_healed

        return load_healed(options.checkpoint, options.adapter, **how)


def suite_of(options: Namespace) -> TaskSuite | LossSuite:
    """The suite that options ask for. Raises UserError if it is none, or has settings that cannot be."""
    if not (options.tokens if options.loss else options.tasks):
        raise UserError("give --tokens along with --loss" if options.loss else "give --tasks, or --loss")
    if options.loss:
        loss = LossSettings.of(vars(options))
        return LossSuite(options.tokens, loss.sequences, loss.length)
    tasks = TaskSettings.of(vars(options))
    include = tuple(map(Path, tasks.include))
    return TaskSuite(tuple(tasks.tasks), include, tasks.shots, tasks.limit, options.samples, tasks.order)
