"""What a study consists of: models, texts, cuts, recipes and suites, read from the configuration.

Pure Python on plain dictionaries: Snakemake builds one ``Study`` while it reads the Snakefile. ``checks``
says whether it makes sense, ``options`` makes command lines of its settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..data.local_source import MODEL
from ..healing.method import Method
from ..healing.methods import healing_method
from ..layout import Layout
from ..pruning.choices import Choice, read_choices
from ..pruning.layer_set import FULL, LayerSet
from ..pruning.selection import expected
from ..pruning.strategies import needed
from ..settings.strategies import StrategySettings
from ..settings.suites import held_out
from ..settings.texts import SPLITS
from .evidence import measured, rules
from .sources import LLAMA_2_7B, ResolvedModel, expanded, resolve


def _by_size(block: LayerSet) -> tuple[int, tuple[int, ...]]:
    return block.n, block.removed


class StudyTexts:
    """The texts of a configuration, by what they come from."""

    config: dict[str, Any]

    @property
    def generated_texts(self) -> list[str]:
        return [name for name, text in self.config["texts"].items() if text["source"] == "generate"]

    @property
    def sampled_texts(self) -> list[str]:
        own = {*self.generated_texts, *self.continued_texts}
        return [name for name in self.config["texts"] if name not in own]

    @property
    def continued_texts(self) -> list[str]:
        """Those that the uncut model writes itself."""
        return [name for name, text in self.config["texts"].items() if text["source"] == MODEL]


class Study(StudyTexts):
    """The study of a configuration whose defaults are filled in; ``paths`` are those of its results."""

    def __init__(self, config: dict[str, Any]):
        self.config = config
        self.out = expanded(config["outdir"]).rstrip("/")
        self.paths = Layout(self.out)
        study = config["study"]
        self.models: list[str] = study["models"]
        self.strategies: list[str] = study["strategies"]
        self.recipes: list[str] = study["recipes"]
        self.suites: list[str] = study["suites"]
        self._resolved: dict[str, ResolvedModel] = {}  # asked for thousands of times

    # Models

    def model(self, name: str) -> ResolvedModel:
        """Where a model comes from and what is known of it now."""
        if name in self._resolved:
            return self._resolved[name]
        adopted = Path(self.paths.full(name)).with_name("config.json")
        model = resolve(name, self.config["models"][name], [adopted])
        if model.kind != "hub" or model.config:  # else its config.json may be here the next time
            self._resolved[name] = model
        return model

    def models_from(self, kind: str) -> list[str]:
        """Models whose source is of this kind: pretrain, folder, gguf or hub."""
        return [name for name in self.models if self.model(name).kind == kind]

    def models_to_convert(self, layout: str) -> list[str]:
        """Models whose checkpoint is rewritten from this layout."""
        return [name for name in self.models if self.config["models"][name].get("convert") == layout]

    @property
    def native_models(self) -> list[str]:
        """Models whose checkpoint is taken as it is."""
        converted = {*self.models_to_convert("qwen"), *self.models_from("gguf")}
        return [name for name in self.models if name not in converted]

    @property
    def uncached_models(self) -> list[str]:
        """Hub models whose config.json is not here yet, so that their number of layers is not known."""
        return [name for name in self.models_from("hub") if self.model(name).config is None]

    # Texts

    def documents(self, text: str) -> dict[str, int]:
        """How many documents each split of a text has, of those that the study reads."""
        readers: list[Mapping[str, Any]] = [measured(self.config, name) for name in self.evidence]
        recipes = [recipe for recipe in self.recipes if self.reads_text(recipe)]
        readers += [self.recipe(recipe, model) for recipe in recipes for model in self.models]
        readers += [found[1] for suite in self.suites if (found := held_out(self.suite(suite)))]
        read = {reader["split"] for reader in readers if reader["text"] == text}
        trained = [self.model(name).pretraining["text"] for name in self.models_from("pretrain")]
        read |= {"train"} if text in trained else set()
        if text not in self.continued_texts:  # which do not begin with each other
            begun = [own for own in self.continued_texts if self.config["texts"][own]["prompts"] == text]
            read = read.union(*map(self.documents, begun))
        return {split: self.config["texts"][text][split] for split in SPLITS if split in read}

    def tokens(self, model: str, reader: Mapping[str, Any]) -> str:
        """The summary of a model's tokens of the text and split that the settings ``reader`` name."""
        return self.paths.tokens(reader["text"], reader["split"], model)

    # Cuts

    @property
    def rules(self) -> dict[str, StrategySettings]:
        """The rule of each strategy, with its settings."""
        return rules(self.config, self.strategies)

    @property
    def evidence(self) -> list[str]:
        """What the strategies choose by, to be measured first."""
        return needed(self.rules.values())

    def removals(self, model: str) -> list[int] | None:
        """The numbers of layers to remove, ascending; empty for no cuts. None where all of 1..L-1 are asked
        for and L is not known yet."""
        remove = self.config["study"]["remove"]
        if remove != "all":
            return sorted(set(remove) - {0})
        n_layers = self.model(model).n_layers
        return list(range(1, n_layers)) if n_layers else None

    def choices(self, path: str | Path) -> list[Choice]:
        """The choices in a blocks.csv that this study asks for."""
        return [choice for choice in read_choices(path) if choice.strategy in self.strategies]

    def expected(self, model: str) -> list[Choice]:
        """What a model's blocks.csv will hold, as far as it can be told."""
        path = Path(self.paths.blocks(model))
        known = read_choices(path) if path.is_file() else []
        n_layers = self.model(model).n_layers or LLAMA_2_7B["num_hidden_layers"]
        ns = self.removals(model)
        ns = list(range(1, n_layers)) if ns is None else ns
        return expected(self.rules, ns, n_layers, self.model(model).id, known)

    def blocks(self, choices: Iterable[Choice]) -> list[LayerSet]:
        """Distinct blocks of a model's choices, the full model first."""
        return sorted({choice.block for choice in choices} | {FULL}, key=_by_size)

    # Recipes and suites

    def recipe(self, recipe: str, model: str) -> dict[str, Any]:
        """Settings of a recipe for one model, its own values for that model included."""
        settings = dict(self.config["recipes"][recipe])
        own = settings.pop("models", {})
        return settings | own.get(model, {})

    def method(self, recipe: str) -> Method:
        """How a recipe heals."""
        return healing_method(self.method_name(recipe))

    def reads_text(self, recipe: str) -> bool:
        """Whether the method of a recipe reads the recipe's text."""
        return "tokens" in self.method(recipe).NEEDS

    def method_name(self, recipe: str) -> str:
        name: str = self.config["recipes"][recipe]["method"]
        return name

    def healed(self, recipe: str, model: str, choices: Iterable[Choice]) -> list[LayerSet]:
        """The blocks of a model's choices that a recipe heals: all, or those it restricts itself to."""
        settings = self.recipe(recipe, model)
        ns, strategies = settings.get("remove"), settings.get("strategies", self.strategies)
        blocks = {c.block for c in choices if c.strategy in strategies and (ns is None or c.n in ns)}
        blocks -= {FULL}
        return sorted(blocks | ({FULL} if settings["control"] else set()), key=_by_size)

    def suite(self, suite: str) -> dict[str, Any]:
        return self.config["suites"][suite]

    def is_loss(self, suite: str) -> bool:
        """Whether a suite measures the loss on held-out text, not tasks."""
        return "loss" in self.suite(suite)

    def is_c4(self, suite: str) -> bool:
        """Whether it is what the paper calls the C4 validation loss."""
        if not self.is_loss(suite):
            return False
        loss = self.suite(suite)["loss"]
        return self.config["texts"][loss["text"]]["source"] == "allenai/c4" and loss["split"] == "validation"
