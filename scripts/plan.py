"""Estimate what a study will cost: jobs, tokens, disk, memory of the GPU, hours."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from deeper_layers.runtime import cli
from deeper_layers.runtime.progress import echo


def main(arguments):
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before numpy is there
    from deeper_layers.runtime.files import atomic_write, write_json
    from deeper_layers.study.pace import cpu_flops
    from deeper_layers.study.plan import plan
    from deeper_layers.study.plan_page import markdown
    from deeper_layers.study.study import Study

    planned = plan(Study(json.loads(arguments.config.read_text())), cpu_flops())
    page = markdown(planned)
    with atomic_write(arguments.out) as temporary:
        temporary.write_text(page)
    write_json(arguments.out.with_suffix(".json"), asdict(planned))
    echo(page)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    meaning = "JSON of the configuration, defaults filled in."
    p.add_argument("--config", type=Path, default="/dev/stdin", help=meaning)
    cli.add_paths(p, out="Markdown page to write; a .json beside it.")
    cli.run(main, p)
