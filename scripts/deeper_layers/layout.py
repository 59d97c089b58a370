"""Where a study keeps its files: every path of its folder of results, once.

Rules and programs take paths from here. An argument that is left out stays a wildcard of Snakemake:
``Layout("results").distances()`` is results/{model}/distances.csv.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MODEL, BLOCK, SUITE, RECIPE = "{model}", "{block}", "{suite}", "{recipe}"
FULL, PRUNED = "full", "pruned"  # the uncut model; the treatment of a cut that is not healed


@dataclass(frozen=True)
class Layout:
    """The paths in the folder ``out``, as texts. ``ending`` is that of a file which has another beside it."""

    out: str

    # Texts

    def text(self, text: str = "{text}", split: str = "{split}", ending: str = "jsonl") -> str:
        return f"{self.out}/texts/{text}/{split}.{ending}"

    def tasks(self, text: str = "{text}") -> str:
        """The folder of the tasks that are made from a generated text."""
        return f"{self.out}/texts/{text}/tasks"

    def task_files(self, tasks: Iterable[str], text: str = "{text}") -> list[str]:
        return [f"{self.tasks(text)}/{task}.{ending}" for task in tasks for ending in ("yaml", "jsonl")]

    def task_data(self, suite: str = SUITE) -> str:
        """What says that the data of a suite's tasks are in the Hugging Face cache."""
        return f"{self.out}/tasks/{suite}.json"

    # A model before it is cut

    def pretrained(self, file: str, model: str = MODEL) -> str:
        return f"{self.out}/{model}/pretrained/{file}"

    def download(self, model: str = MODEL) -> str:
        return f"{self.out}/{model}/download.json"

    def checkpoint(self, block: str = BLOCK, model: str = MODEL) -> str:
        """The manifest of a checkpoint, which is written last."""
        return f"{self.out}/{model}/checkpoints/{block}/manifest.json"

    def full(self, model: str = MODEL) -> str:
        """The manifest of the uncut model."""
        return self.checkpoint(FULL, model)

    def tokens(
        self, text: str = "{text}", split: str = "{split}", model: str = MODEL, ending: str = "json"
    ) -> str:
        """The summary of a text's tokens, or with ``ending`` safetensors the tokens."""
        return f"{self.out}/{model}/tokens/{text}-{split}.{ending}"

    def evidence(self, name: str, model: str = MODEL, ending: str = "csv") -> str:
        """What was measured of a model for a strategy that chooses by ``name``."""
        return f"{self.out}/{model}/{name}.{ending}"

    def distances(self, model: str = MODEL, ending: str = "csv") -> str:
        return f"{self.out}/{model}/distances.{ending}"

    # Its cuts

    def blocks(self, model: str = MODEL) -> str:
        return f"{self.out}/{model}/blocks.csv"

    def verified(self, model: str = MODEL) -> str:
        """Which cuts were found to leave what stays as it is."""
        return f"{self.out}/{model}/checkpoints/verified.json"

    def speed(self, model: str = MODEL, ending: str = "csv") -> str:
        return f"{self.out}/{model}/speed.{ending}"

    def healed(self, file: str, recipe: str = RECIPE, block: str = BLOCK, model: str = MODEL) -> str:
        """A file that healing writes; training that was cut short is in ``state``."""
        return f"{self.out}/{model}/{recipe}/{block}/{file}"

    def pruned_index(self, suite: str = SUITE, model: str = MODEL) -> str:
        """Which un-healed cuts a suite has measured, written last."""
        return self.result(PRUNED, "index", suite, model)

    def result(
        self, treatment: str = RECIPE, block: str = BLOCK, suite: str = SUITE, model: str = MODEL
    ) -> str:
        """What a suite has measured of a cut. The treatment is a recipe, or ``pruned`` for none."""
        if treatment == PRUNED:
            return f"{self.out}/{model}/{PRUNED}/{suite}/{block}.json"
        return self.healed(f"{suite}.json", treatment, block, model)

    def healed_index(
        self, suite: str = SUITE, chunk: str = "{chunk}", recipe: str = RECIPE, model: str = MODEL
    ) -> str:
        """Which cuts of a recipe a suite has measured, those of one job, written last."""
        return f"{self.out}/{model}/{recipe}/evaluated/{suite}-{chunk}.json"

    # The study

    def study(self) -> str:
        """What the study consists of, for whoever reads its results."""
        return f"{self.out}/study.json"

    def table(self, ending: str = "csv") -> str:
        return f"{self.out}/table.{ending}"

    def levels(self) -> str:
        return f"{self.out}/levels.csv"

    def summary(self, ending: str = "md") -> str:
        return f"{self.out}/summary.{ending}"

    def explore(self) -> str:
        """The page to explore the table."""
        return f"{self.out}/explore.html"

    def plan(self) -> str:
        return f"{self.out}/plan.md"

    def figure(self, kind: str, figure: str = "{figure}", model: str = MODEL) -> str:
        """A figure of one model, as ``kind``: svg, pdf or png."""
        return f"{self.out}/figures/{model}/{figure}.{kind}"

    def study_figure(self, kind: str, figure: str = "{figure}") -> str:
        """A figure of all models."""
        return f"{self.out}/figures/{figure}.{kind}"

    # What leaves it

    def export(self, model: str = MODEL, block: str = BLOCK, treatment: str = "{treatment}") -> str:
        """The folder of an exported checkpoint."""
        return f"{self.out}/export/{model}-{block}-{treatment}"

    def exported_as(
        self, kind: str = "{type}", model: str = MODEL, block: str = BLOCK, treatment: str = "{treatment}"
    ) -> str:
        """An exported checkpoint in another format: a folder in NF4, a GGUF file of any other type."""
        folder = self.export(model, block, treatment)
        return f"{folder}-{kind}" if kind == "nf4" else f"{folder}.{kind}.gguf"

    def log(self, name: str) -> str:
        return f"{self.out}/logs/{name}.log"
