"""Evaluate a checkpoint, or all un-healed cuts of one in one process: lm-eval tasks, or held-out loss.

python scripts/evaluate.py --checkpoint results/M/checkpoints/full --blocks full drop_3-5 drop_6-9 \\
    --suite quiz --tasks knowledge reasoning --include results/texts/world/tasks --shots 0 \\
    --out results/M/pruned/quiz
python scripts/evaluate.py --checkpoint results/M/checkpoints/drop_3-5 \\
    --adapter results/M/healed/drop_3-5/adapter --treatment healed --suite loss --loss \\
    --tokens results/M/tokens/world-validation.safetensors --sequences 500 --length 128 \\
    --out results/M/healed/drop_3-5/loss.json
"""

import sys
from argparse import Namespace
from pathlib import Path

from deeper_layers.checkpoints.limits import check_arguments
from deeper_layers.errors import UserError
from deeper_layers.evaluation.job import Job, LossSuite, TaskSuite
from deeper_layers.runtime import cli
from deeper_layers.runtime.files import read_json
from deeper_layers.runtime.process import OPTIONAL_IMPORTS, optional_imports
from deeper_layers.runtime.progress import Progress
from deeper_layers.settings.suites import LossSettings, TaskSettings


def options():
    p = cli.parser("Evaluate a checkpoint, or all cuts of one: lm-eval tasks, or held-out loss.")
    cli.compute_options(p)
    p.add_argument("--checkpoint", type=Path, required=True, help="folder with a manifest.json")
    p.add_argument("--blocks", nargs="+", help="cuts of the checkpoint, as full drop_3-5; none: itself")
    p.add_argument("--adapter", type=Path, help="folder that a healing wrote")
    p.add_argument("--treatment", help="label of the results; none: pruned, or with --adapter healed")
    cli.add_settings(p, TaskSettings, "precision", "batch")
    p.add_argument("--code", default="", help="hash of the code, a part of every key")
    p.add_argument("--trust-remote-code", action="store_true", help="run the code that comes with the model")
    p.add_argument("--suite", required=True, help="name of the suite: a label")
    p.add_argument("--out", type=Path, required=True, help="folder for --blocks, else the JSON file to write")
    tasks = p.add_argument_group("lm-eval tasks")
    cli.add_settings(tasks, TaskSettings, "tasks", "include", "shots", "limit", "order")
    tasks.add_argument("--samples", action="store_true", help="keep the answer to every document")
    loss = p.add_argument_group("held-out loss")
    loss.add_argument("--loss", action="store_true", help="instead of tasks")
    loss.add_argument("--tokens", type=Path, help="token file of the held-out text")
    cli.add_settings(loss, LossSettings, "sequences", "length", "stream", "spill")
    return p


def check(arguments: Namespace) -> bool:
    """Whether anything is left to evaluate; if so, the model can be asked it."""
    check_arguments(arguments, {"--length": arguments.length} if arguments.loss else {})
    job, suite = job_of(arguments)
    if job.missing and isinstance(suite, TaskSuite):
        arguments.loaded = _load(suite, arguments.checkpoint)
    return bool(job.missing)


def _load(suite: TaskSuite, checkpoint: Path):
    """lm-eval's manager and tasks, without torch: a faulty task is told before a GPU is waited for."""
    from deeper_layers.evaluation.tasks import check_tasks, load_tasks

    manager, tasks = load_tasks(suite)
    check_tasks(tasks, read_json(checkpoint / "config.json"))
    return manager, tasks


def main(arguments: Namespace) -> None:
    job, suite = job_of(arguments)
    job.finish(_evaluate(job, suite, arguments) if job.missing else None)


def job_of(arguments: Namespace) -> tuple[Job, TaskSuite | LossSuite]:
    """What is to be done, checked as far as that is possible without a heavy import."""
    suite = _suite(arguments)
    facts = {"settings": suite.facts(), "precision": arguments.precision, "code": arguments.code}
    treatment = arguments.treatment or ("healed" if arguments.adapter else "pruned")
    labels = {"treatment": treatment, "suite": arguments.suite, "stream": is_streamed(arguments)}
    return Job(arguments.checkpoint, arguments.blocks, arguments.adapter, arguments.out, facts, labels), suite


def is_streamed(arguments: Namespace) -> bool:
    """Healed cuts fit into memory: they were healed there."""
    return arguments.stream and arguments.loss and arguments.adapter is None


def _suite(arguments: Namespace) -> TaskSuite | LossSuite:
    if not (arguments.tokens if arguments.loss else arguments.tasks):
        raise UserError("give --tokens along with --loss" if arguments.loss else "give --tasks, or --loss")
    (LossSettings if arguments.loss else TaskSettings).of(vars(arguments))
    if arguments.loss:
        return LossSuite(arguments.tokens, arguments.sequences, arguments.length)
    include = tuple(map(Path, arguments.include))
    settings = {name: getattr(arguments, name) for name in ("shots", "limit", "samples", "order")}
    return TaskSuite(tuple(arguments.tasks), include, **settings)


def _evaluate(job: Job, suite: TaskSuite | LossSuite, arguments: Namespace) -> dict:
    """Write the results that are missing; returns the layers run for them."""
    what = f"{arguments.suite} of {job.labels['model']}"
    if isinstance(suite, LossSuite):
        from deeper_layers.data.tokens import Tokens
        from deeper_layers.evaluation.cut_scorer import CutScorer
        from deeper_layers.evaluation.loss import losses
        from deeper_layers.evaluation.streamed_scorer import StreamedCutScorer
        from deeper_layers.models.streaming import Stream

        documents = Tokens(suite.tokens).first(suite.sequences, suite.length)
        if is_streamed(arguments):
            stream = Stream(arguments.checkpoint, arguments.precision, arguments.trust_remote_code)
            scorer = StreamedCutScorer(stream, job.missing, arguments.batch, arguments.spill)
        else:
            scorer = CutScorer(_model(arguments), job.missing, arguments.batch)
        results = losses(scorer, documents, what, job.journal).items()
    else:
        from deeper_layers.data.tokens import load_tokenizer
        from deeper_layers.evaluation.harness import CutsLM, evaluate

        manager, tasks = getattr(arguments, "loaded", None) or _load(suite, arguments.checkpoint)
        tokenizer = load_tokenizer(arguments.checkpoint, arguments.trust_remote_code)
        lm = CutsLM(_model(arguments), tokenizer, job.missing, arguments.batch, what, job.journal)
        scorer, results = lm.scorer, evaluate(lm, suite, manager, tasks)
    with Progress(f"{what}, results", total=len(job.missing), unit="block") as progress:
        for block, result in results:
            job.write(block, result)
            progress.update()
    return scorer.layer_counts()


def unused(arguments: Namespace) -> list[str]:
    """Packages that are not to be imported: lm-eval needs all but bitsandbytes."""
    return optional_imports(arguments, OPTIONAL_IMPORTS if arguments.loss else ())


def _model(arguments: Namespace):
    how = {"precision": arguments.precision, "trust_remote_code": arguments.trust_remote_code}
    if arguments.adapter is None:
        from deeper_layers.models.load import load_model

        return load_model(arguments.checkpoint, **how)
    from deeper_layers.models.artifacts import load_healed

    return load_healed(arguments.checkpoint, arguments.adapter, **how)


if __name__ == "__main__":
    # This file must not stand in for the library `evaluate`, which some lm-eval tasks import.
    sys.path.pop(0)
    cli.run(main, options(), unused, check)
