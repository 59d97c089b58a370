"""Evaluate a checkpoint, or all cuts of one in one process, healed or not: lm-eval tasks, or the loss or the
perplexity of held-out text.

python scripts/evaluate.py --checkpoint results/M/checkpoints/full --blocks full drop_3-5 drop_6-9 \\
    --suite quiz --tasks knowledge reasoning --include results/texts/world/tasks --shots 0 \\
    --out results/M/pruned/quiz
python scripts/evaluate.py --checkpoint results/M/checkpoints/full --blocks drop_3-5 drop_6-9 \\
    --healed results/M/healed --suite quiz --tasks knowledge --include results/texts/world/tasks \\
    --out results/M/healed/evaluated/quiz-1of1.json
python scripts/evaluate.py --checkpoint results/M/checkpoints/drop_3-5 \\
    --adapter results/M/healed/drop_3-5/adapter --treatment healed --suite loss --loss \\
    --tokens results/M/tokens/world-validation.safetensors --sequences 500 --length 128 \\
    --out results/M/healed/drop_3-5/loss.json
"""

import sys
from argparse import Namespace
from pathlib import Path

from deeper_layers.checkpoints.limits import check_arguments
from deeper_layers.evaluation.evaluation import Evaluation
from deeper_layers.runtime import cli
from deeper_layers.runtime.process import OPTIONAL_IMPORTS, optional_imports
from deeper_layers.settings.suites import LossSettings, PerplexitySettings, TaskSettings


def check(arguments: Namespace) -> bool:
    """Whether anything is left to evaluate; if so, the model can be asked it."""
    lengths = {"--length": arguments.length} if arguments.loss else {}
    lengths |= {"--window": arguments.window} if arguments.perplexity else {}
    check_arguments(arguments, lengths)
    arguments.evaluation = Evaluation(arguments)
    arguments.evaluation.check_tasks()
    return bool(arguments.evaluation.job.missing)


def main(arguments: Namespace) -> None:
    arguments.evaluation.run()


def block_imports(arguments: Namespace) -> list[str]:
    """Packages that are not to be imported: lm-eval needs all but bitsandbytes."""
    return optional_imports(arguments, OPTIONAL_IMPORTS if arguments.loss or arguments.perplexity else ())


if __name__ == "__main__":
    # This file must not stand in for the library `evaluate`, which some lm-eval tasks import.
    sys.path.pop(0)
    p = cli.parser("Evaluate a checkpoint, or all cuts of one: lm-eval tasks, or held-out loss.")
    cli.model_options(p)
    meaning = "Folder for --blocks; with --healed the index of what was done; else a JSON file."
    cli.add_paths(p, checkpoint="Folder with a manifest.json.", out=meaning)
    p.add_argument("--blocks", nargs="+", help="Cuts, as full drop_3-5. Default is the checkpoint itself.")
    p.add_argument("--adapter", type=Path, help="Folder that a healing wrote.")
    meaning = "Folder of a recipe: evaluate --blocks as they were healed in its folders BLOCK, into these."
    p.add_argument("--healed", type=Path, help=meaning)
    p.add_argument("--suite", required=True, help="Name of the suite: a label.")
    meaning = "Label of the results. Default is pruned, or with --adapter healed."
    p.add_argument("--treatment", help=meaning)
    p.add_argument("--code", default="", help="Hash of the code, a part of every key.")
    cli.add_settings(p, TaskSettings, "precision", "batch")
    tasks = p.add_argument_group("lm-eval tasks")
    cli.add_settings(tasks, TaskSettings, "tasks", "include", "shots", "limit", "order", "metric")
    cli.add_settings(tasks, TaskSettings, "bos", "chat", "system", "generation", "think_end")
    cli.add_flags(tasks, samples="Keep the answer to every document.")
    loss = p.add_argument_group("held-out loss")
    cli.add_flags(loss, loss="Instead of tasks.")
    loss.add_argument("--tokens", type=Path, help="Token file of the held-out text.")
    cli.add_settings(loss, LossSettings, "sequences", "length", "stream", "spill")
    perplexity = p.add_argument_group("perplexity, of --tokens too")
    cli.add_flags(perplexity, perplexity="Instead of tasks.")
    cli.add_settings(perplexity, PerplexitySettings, "documents", "window", "stride")
    cli.run(main, p, block_imports, check)
