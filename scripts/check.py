"""Check that this machine computes what a study needs (NF4, tree of cuts, head, resume): run it first."""

import tempfile
from pathlib import Path

from deeper_layers.errors import UserError
from deeper_layers.runtime import cli
from deeper_layers.runtime.progress import echo
from deeper_layers.settings.precision import PRECISIONS


def main(arguments) -> None:
    from deeper_layers.self_check import findings

    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for finding in findings(Path(folder), arguments.precisions):
            echo(str(finding))
            wrong += [finding.what] if not finding.holds else []
    if wrong:
        raise UserError(f"on this machine a study would not be right: {', '.join(wrong)}")
    echo("everything that was checked holds on this machine")


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.compute_options(p)
    p.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="To check.")
    cli.run(main, p)
