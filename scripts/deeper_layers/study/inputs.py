"""What the rules read: files of the study, by the wildcards of a job, and the options that name them.

The options are made from a rule's inputs themselves, so that what Snakemake waits for is what the program
gets.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..layout import FULL, PRUNED
from ..pruning.choices import Choice
from ..pruning.layer_set import LayerSet
from ..reporting.contents import Contents
from ..reporting.figures.registry import FIGURES
from ..settings.suites import held_out
from .chunks import chunks
from .code_hash import code
from .exports import exported, exported_block
from .options import command_line, suite_metrics
from .study import Study
from .task_files import fetches


def contents(study: Study, choices: Mapping[str, Iterable[Choice]]) -> Contents:
    """What the results of a study hold, given each model's choices."""
    return Contents(
        models=study.models,
        strategies=study.strategies,
        suites=study.suites,
        c4=[suite for suite in study.suites if study.is_c4(suite)],
        metrics=suite_metrics(study),
        speed=study.config["study"]["speed"],
        healed={
            recipe: {
                model: [str(block) for block in study.healed(recipe, model, choices[model])]
                for model in choices
            }
            for recipe in study.recipes
        },
    )


class Inputs:
    """Input functions of the rules of a study. ``wildcards`` have the attributes model, block and so on.
    ``blocks_csv`` gives the path of a model's blocks.csv, and raises as long as Snakemake has not made it.
    ``command`` gives what a user types for a target."""

    def __init__(self, study: Study, blocks_csv: Callable[[str], str], command: Callable[[str], str]):
        self.study, self.paths = study, study.paths
        self._blocks_csv, self._command = blocks_csv, command

    # The base model

    def training_text(self, wildcards: Any) -> str:
        return self.paths.text(self.study.model(wildcards.model).pretraining["text"], "train")

    def pretrained(self, wildcards: Any) -> list[str]:
        """The base model, if the study trains it."""
        files = [
            self.paths.pretrained(name, wildcards.model) for name in ("model.safetensors", "config.json")
        ]
        return files if self._comes_from("pretrain", wildcards) else []

    def download(self, wildcards: Any) -> list[str]:
        """What was fetched, if the base model is one of the hub."""
        return [self.paths.download(wildcards.model)] if self._comes_from("hub", wildcards) else []

    def _comes_from(self, kind: str, wildcards: Any) -> bool:
        return self.study.model(wildcards.model).kind == kind

    # Healing

    def healing_tokens(self, wildcards: Any) -> list[str]:
        """The tokens of a recipe's text, if its method needs them."""
        recipe = self.study.recipe(wildcards.recipe, wildcards.model)
        is_read = self.study.reads_text(wildcards.recipe)
        return [self.study.tokens(wildcards.model, recipe)] if is_read else []

    def healing_full(self, wildcards: Any) -> list[str]:
        """The uncut model, if a recipe needs it."""
        recipe = self.study.recipe(wildcards.recipe, wildcards.model)
        is_read = self.study.method(wildcards.recipe).reads_full(recipe)
        return [self.paths.full(wildcards.model)] if is_read else []

    def healing_repair(self, wildcards: Any) -> list[str]:
        """What another recipe has repaired the cut by, if a recipe begins with that."""
        recipe = self.study.recipe(wildcards.recipe, wildcards.model)
        needs_one = "repair" in self.study.method(wildcards.recipe).NEEDS
        return self.artifact(wildcards, recipe["settings"]["after"]) if needs_one else []

    def prompts(self, wildcards: Any) -> str:
        """The tokens of the text whose documents begin as those of a text of the model."""
        text = self.study.config["texts"][wildcards.text]["prompts"]
        return self.paths.tokens(text, wildcards.split, wildcards.model)

    def artifact(self, wildcards: Any, recipe: str | None = None) -> list[str]:
        """What a healing writes for evaluation and export."""
        recipe = recipe or wildcards.recipe
        files = self.study.method(recipe).artifact_files
        return [self.paths.healed(file, recipe, wildcards.block, wildcards.model) for file in files]

    # Evaluations

    def suite_tokens(self, wildcards: Any) -> list[str]:
        """The tokens of a suite that reads held-out text."""
        reader = held_out(self.study.suite(wildcards.suite))
        return [self.study.tokens(wildcards.model, reader[1])] if reader else []

    def suite_tasks(self, wildcards: Any) -> list[str]:
        """Definitions and questions of a suite's tasks, where the study generates them."""
        suite = self.study.suite(wildcards.suite)
        return self.paths.task_files(suite["tasks"], suite["text"]) if suite.get("text") else []

    def task_data(self, wildcards: Any) -> list[str]:
        """What says that the data of a suite's tasks were fetched, where it has any that lie elsewhere."""
        return [self.paths.task_data(wildcards.suite)] if fetches(self.study.suite(wildcards.suite)) else []

    # What the blocks decide

    def choices(self, model: str) -> list[Choice]:
        return self.study.choices(self._blocks_csv(model))

    def pruned_blocks(self, wildcards: Any) -> list[LayerSet]:
        """The cuts of a model, as soon as they are chosen."""
        return self.study.blocks(self.choices(wildcards.model))

    def contents(self, wildcards: Any = None) -> Contents:
        """What the results will hold, as soon as the cuts of all models are chosen."""
        return contents(self.study, {model: self.choices(model) for model in self.study.models})

    def evaluations(self, wildcards: Any) -> list[str]:
        """Every evaluation of the study."""
        contents, paths = self.contents(), self.paths
        pairs = [(model, suite) for model in contents.models for suite in contents.suites]
        files = [paths.pruned_index(suite, model) for model, suite in pairs]
        for recipe in contents.healed:
            for model, suite in pairs:
                names = chunks(self.study, recipe, model, self.choices(model))
                files += [paths.healed_index(suite, chunk, recipe, model) for chunk in names]
        return files

    # What leaves the study

    def exported_adapter(self, wildcards: Any) -> list[str]:
        """What healed an exported cut; nothing if it is an un-healed one."""
        return [] if wildcards.treatment == PRUNED else self.artifact(wildcards, wildcards.treatment)

    def exported_healing(self, wildcards: Any) -> list[str]:
        if wildcards.treatment == PRUNED:
            return []
        return [self.paths.healed("heal.json", wildcards.treatment, wildcards.block, wildcards.model)]

    def exported_results(self, wildcards: Any) -> list[str]:
        """What is written after the evaluations of an exported cut: of un-healed ones the index beside them;
        of a healed one that of a job of its own, with nothing to do where the study has evaluated it."""
        of, model, suites = wildcards.treatment, wildcards.model, self.study.suites
        if of == PRUNED:
            return [self.paths.pruned_index(suite, model) for suite in suites]
        return [self.paths.healed_index(suite, wildcards.block, of, model) for suite in suites]

    def exported_files(self) -> list[str]:
        """The model cards of what ``export`` names, which come last, other formats of it, cut GGUF files."""
        files, kinds = [f"{folder}/README.md" for folder in self.exports()], self.study.config["formats"]
        for model, treatment, cut in map(exported, self.study.config["export"]):
            block = exported_block(self.study, cut, self.choices(model))
            files += [self.paths.exported_as(kind, model, block, treatment) for kind in kinds]
            if treatment == PRUNED and self.study.model(model).kind == "gguf":
                files.append(f"{self.paths.export(model, block, treatment)}.gguf")
        return files

    def exports(self) -> list[str]:
        """The folders of what ``export`` names. A fault exits: of an error Snakemake shows a traceback."""
        named = self.study.config["export"]
        if not named:
            example = f"{self.study.models[0]}/{[*self.study.recipes, PRUNED][0]}/4"
            raise SystemExit(
                "error: nothing to export: name it as MODEL/TREATMENT/N, for example "
                f"{self._command('export')} --config 'export=[{example}]'"
            )
        try:
            return [self._export(*exported(text)) for text in named]
        except UserError as error:
            raise SystemExit(f"error: {error}") from None

    def pushed(self) -> list[str]:
        """The same, if it is known where to."""
        if not self.study.config["hub"]:
            raise SystemExit("error: push where to? Give --config hub=ACCOUNT, or the key hub")
        return self.exports()

    def _export(self, model: str, treatment: str, cut: str) -> str:
        return self.paths.export(model, exported_block(self.study, cut, self.choices(model)), treatment)


def figure_code(wildcards: Any) -> str:
    """A figure is drawn by a module that its program loads by name."""
    return code("figure", f"reporting/figures/{FIGURES[wildcards.figure].module}")


def folders(files: Sequence[str]) -> list[str]:
    return [os.path.dirname(path) for path in files]


def source_option(wildcards: Any, input: Any) -> str:
    """Of a base model that the study trains or fetches itself: where it is."""
    return command_line({"source": folders(input.pretrained[:1]), "download": input.download})


def evidence_options(wildcards: Any, input: Any) -> str:
    """What the strategies choose by, each by its name."""
    return command_line({"evidence": [f"{Path(file).stem}={file}" for file in input.evidence]})


def suite_option(wildcards: Any, input: Any) -> str:
    """The text of a loss, or the folder of tasks."""
    return command_line({"tokens": input.tokens, "include": folders(input.tasks[:1])})


def offline_where_fetched(wildcards: Any, input: Any) -> str:
    """What goes before a command whose tasks' data were fetched: nothing is looked for in the network."""
    return "HF_HUB_OFFLINE=1 " if input.data else ""


def adapter_option(wildcards: Any, input: Any) -> str:
    return command_line({"adapter": folders(input.adapter[:1])})


def healing_option(wildcards: Any, input: Any) -> str:
    """What a method reads beside the cut."""
    return command_line({"tokens": input.tokens, "full": folders(input.full), "repair": input.repair})


def card_options(wildcards: Any, input: Any) -> str:
    """What a model card tells of. The results of un-healed cuts lie beside their index, those of healed ones
    beside what healed them."""
    block = wildcards.block
    if wildcards.treatment == PRUNED:
        results = [f"{folder}/{block}.json" for folder in folders(input.results)]
    else:
        suites = [os.path.basename(path).removesuffix(f"-{block}.json") for path in input.results]
        results = [f"{os.path.dirname(input.healing[0])}/{suite}.json" for suite in suites]
    unpruned = [f"{folder}/{FULL}.json" for folder in folders(input.unpruned)]
    return command_line({"results": results, "unpruned": unpruned, "healing": input.healing})
