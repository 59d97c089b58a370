"""Fetch the data of lm-eval tasks into the Hugging Face cache, so that evaluating needs no network."""

from pathlib import Path

from deeper_layers.evaluation.job import TaskSuite
from deeper_layers.runtime import cli
from deeper_layers.runtime.files import write_json
from deeper_layers.settings.suites import TaskSettings


def main(arguments) -> None:
    from deeper_layers.evaluation.tasks import fetched, load_tasks
    from deeper_layers.runtime.provenance import provenance

    suite = TaskSuite(tuple(arguments.tasks), tuple(map(Path, arguments.include)))
    _, tasks = load_tasks(suite)
    write_json(arguments.out, {"tasks": fetched(tasks), "deeper_layers": provenance()})


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.add_settings(p, TaskSettings, "tasks", "include")
    cli.add_paths(p, out="JSON to write: of each task its data set and how many documents it has.")
    cli.run(main, p)
