"""What a study asks for, read from the configuration and checked before anything runs.

Pure Python on plain dictionaries: Snakemake builds one ``Study`` while it reads the Snakefile.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints import config_keys
from ..checkpoints.hub_cache import cache_folder, cached_file, is_offline
from ..data.local_source import SPLITS
from ..data.texts import check_text, sample_settings, text_fingerprint
from ..errors import UserError
from ..pruning.choices import Choice, choose, read_choices
from ..pruning.layer_set import FULL, LayerSet
from ..pruning.published_blocks import published_blocks
from ..pruning.strategies import BY_DISTANCE, STRATEGIES
from ..reporting.published import Published
from ..reporting.scores import PRUNED, result_path
from ..runtime.files import read_json
from ..settings.distances import DistanceSettings
from ..settings.healing import Healing
from ..settings.suites import LossSettings, TaskSettings
from .asked import check_study
from .checks import check_name, check_settings
from .options import determining, expanded, options, tuning, without
from .schema import MissingError, did_you_mean

RESERVED_MODELS = {"texts", "figures", "logs", "benchmarks", "export"}
RESERVED_RECIPES = {"checkpoints", "tokens", "pruned"}
EXPORT = re.compile(r"[^/]+/[^/]+/(\d+|full|drop_[\d_-]+)")
HUB_ID = re.compile(r"([\w.-]+/)?[\w.-]+")
# What a hub model is taken for until its config.json is here.
LLAMA_2_7B = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Unknown(LayerSet):
    """A block of n layers that only the distances will tell. For estimates it begins at layer 0, which is the
    most work; it equals no ``LayerSet``."""


def _by_size(block: LayerSet) -> tuple[int, tuple[int, ...]]:
    return block.n, block.removed


class Study:
    """The study of a configuration whose defaults are filled in. Raises UserError if it makes no sense.

    ``warnings`` are lines about what makes sense, but less than it seems to.
    """

    def __init__(self, config: dict):
        self.config = config
        self.out = expanded(config["outdir"]).rstrip("/")
        study = config["study"]
        self.models: list[str] = study["models"]
        self.strategies: list[str] = study["strategies"]
        self.recipes: list[str] = study["recipes"]
        self.suites: list[str] = study["suites"]
        self._configs: dict[str, dict] = {}  # of models, once they were found: asked for thousands of times
        self._check()
        self.warnings = list(dict.fromkeys(line for m in self.models for line in check_study(self, m)))

    # Facts about models

    def source(self, model: str) -> dict:
        """``{"kind": "pretrain" | "folder" | "hub", "id": ..., "revision": ...}``."""
        settings = self.config["models"][model]
        source = settings["source"]
        if source == "pretrain":
            kind = "pretrain"
        else:
            kind = "folder" if source.startswith(("/", "./", "../", "~")) or os.path.isdir(source) else "hub"
        return {"kind": kind, "id": expanded(source), "revision": settings.get("revision")}

    def models_from(self, kind: str) -> list[str]:
        """Models of the study whose source is of this kind."""
        return [m for m in self.models if self.source(m)["kind"] == kind]

    def model_config(self, model: str) -> dict | None:
        """config.json of a folder, or of a hub model that is in the cache or the results; None if not yet."""
        if model not in self._configs and (config := self._read_config(model)) is not None:
            self._configs[model] = config
        return self._configs.get(model)

    def _read_config(self, model: str) -> dict | None:
        source = self.source(model)
        if source["kind"] == "folder":
            return read_json(Path(source["id"]) / "config.json")
        paths = [cached_file(source["id"], source["revision"], "config.json")]
        paths.append(Path(f"{self.out}/{model}/checkpoints/full/config.json"))
        return next((read_json(path) for path in paths if path and path.is_file()), None)

    def converted(self, layout: str | None) -> list[str]:
        """Models whose checkpoint is rewritten from this layout; None for those that are not."""
        return [m for m in self.models if self.config["models"][m].get("convert") == layout]

    def texts_from(self, world: bool) -> list[str]:
        """Texts that are generated, or those that come from data sets."""
        return [
            t for t, settings in self.config["texts"].items() if (settings["source"] == "generate") == world
        ]

    def n_layers(self, model: str) -> int | None:
        """Number of decoder layers, from the configuration or config.json; None if not known yet."""
        if self.source(model)["kind"] == "pretrain":
            return self.config["models"][model]["pretrain"]["layers"]
        return config_keys.n_layers(self.model_config(model) or {})

    @property
    def unseen(self) -> list[str]:
        """Hub models of which nothing is at hand yet, so that their number of layers is not known."""
        return [m for m in self.models_from("hub") if self.model_config(m) is None]

    def gpus(self, model: str) -> int:
        return self.config["models"][model]["gpus"]

    def trust(self, model: str) -> dict:
        """The option that lets the Python code of this one model run."""
        return {"trust_remote_code": self.config["models"][model]["trust_remote_code"]}

    def fingerprint(self, model: str) -> str:
        """Empty, or for a local folder what tells whether it holds other weights than before, without reading
        them all and whatever their dates: sizes, files up to 4 MB whole, and a thousand samples of others."""
        if self.source(model)["kind"] != "folder":
            return ""
        digest = hashlib.sha256()
        for path in sorted(Path(self.source(model)["id"]).glob("*")):
            if path.suffix not in (".safetensors", ".json") or not path.is_file():
                continue
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            with open(path, "rb") as file:
                for part in range(1024):
                    file.seek(part * size // 1024)
                    digest.update(file.read(4096))
        return digest.hexdigest()[:16]

    # What is to be computed

    def remove(self, model: str) -> list[int] | None:
        """The numbers of layers to remove, none for no cuts; None for all of 1..L-1 while L is not known."""
        remove = self.config["study"]["remove"]
        if remove != "all":
            return sorted(set(remove) - {0})
        n_layers = self.n_layers(model)
        return list(range(1, n_layers)) if n_layers else None

    def choices(self, path: str | Path) -> list[Choice]:
        """The choices in a blocks.csv that this study asks for."""
        return [c for c in read_choices(path) if c.strategy in self.strategies]

    def expected(self, model: str) -> list[Choice]:
        """What a model's blocks.csv will hold, as far as it can be told; other blocks are ``Unknown``."""
        path = Path(f"{self.out}/{model}/blocks.csv")
        known = {(c.strategy, c.n): c.block for c in read_choices(path)} if path.is_file() else {}
        n_layers = self.n_layers(model) or LLAMA_2_7B["num_hidden_layers"]
        ns = self.remove(model)
        ns = range(1, n_layers) if ns is None else ns
        choices = []
        for strategy in self.strategies:
            if strategy in BY_DISTANCE:
                blocks = [FULL, *(known.get((strategy, n), Unknown.contiguous(0, n)) for n in ns)]
                choices += [Choice(strategy, block, math.nan) for block in blocks]
            else:
                authors = published_blocks(self.source(model)["id"])
                choices += choose([strategy], ns, n_layers, authors=authors)
        return choices

    def blocks(self, choices: Iterable[Choice]) -> list[LayerSet]:
        """Distinct blocks of a model's choices, the full model first."""
        return sorted({c.block for c in choices} | {FULL}, key=_by_size)

    def healed(self, recipe: str, model: str, choices: Iterable[Choice]) -> list[LayerSet]:
        """The blocks of a model's choices that a recipe heals: all, or those it restricts itself to."""
        settings = self.recipe(recipe, model)
        ns, strategies = settings.get("remove"), settings.get("strategies", self.strategies)
        blocks = {c.block for c in choices if c.strategy in strategies and (ns is None or c.n in ns)}
        blocks -= {FULL}
        return sorted(blocks | ({FULL} if settings["control"] else set()), key=_by_size)

    def exported(self, text: str) -> tuple[str, str, str]:
        """(model, treatment, n or block) of an entry of ``export``."""
        model, treatment, cut = text.split("/")
        return model, treatment, cut

    def exported_block(self, cut: str, path: str | Path) -> str:
        """The block that an entry of ``export`` names, or that the first strategy chose for its n in the
        blocks.csv at ``path``."""
        if not cut.isdecimal():
            return cut
        blocks = {c.n: c.block for c in self.choices(path) if c.strategy == self.strategies[0]}
        return str(blocks[int(cut)])

    # Settings of each stage, as command-line options: each is one string, compared by value

    def world_options(self, text: str) -> str:
        settings = self.config["texts"][text]
        names = ("seed", "people", "train", "calibration", "validation", "questions")
        return options({name: settings[name] for name in names})

    def sample_options(self, text: str, split: str) -> str:
        """Of a text from a data set or from local files: what determines the documents of one split."""
        return options(sample_settings(self.config["texts"][text], split, self.documents(text)))

    def text_fingerprint(self, text: str) -> str:
        """Empty, or for local files what tells whether they have changed."""
        return text_fingerprint(self.config["texts"][text]["source"])

    def documents(self, text: str) -> dict[str, int]:
        """How many documents each split of a text has, of those that the study reads."""
        readers = [self.config["distances"]] if self.distance_figures else []
        readers += [self.recipe(recipe, model) for recipe in self.recipes for model in self.models]
        readers += [self.config["suites"][suite]["loss"] for suite in self.suites if self.is_loss(suite)]
        read = {reader["split"] for reader in readers if reader["text"] == text}
        read |= {"train" for model in self.models_from("pretrain") if self.pretraining(model)["text"] == text}
        return {split: self.config["texts"][text][split] for split in SPLITS if split in read}

    def pretraining(self, model: str) -> dict:
        return self.config["models"][model]["pretrain"]

    def pretraining_options(self, model: str) -> str:
        return options(without(self.pretraining(model), "text"))

    def download_options(self, model: str) -> str:
        source = self.source(model)
        return options({"id": source["id"], "revision": source["revision"]} | self.trust(model))

    def source_options(self, model: str) -> str:
        source = self.source(model)
        where = {
            "pretrain": {"source": f"{self.out}/{model}/pretrained"},
            "folder": {"source": source["id"]},
            "hub": {"download": f"{self.out}/{model}/download.json"},
        }[source["kind"]]
        if model not in self.converted(None):
            return options(where)  # our own code reads that layout
        reshard = {"reshard": self.config["models"][model].get("reshard")}
        return options(where | self.trust(model) | reshard)

    def trust_options(self, model: str) -> str:
        return options(self.trust(model))

    def distance_options(self, model: str) -> str:
        settings = determining(DistanceSettings, self.config["distances"])
        return options(without(settings, "text", "split") | self.trust(model))

    def distance_tuning(self) -> str:
        return tuning(DistanceSettings, self.config["distances"])

    def block_options(self, model: str) -> str:
        return options(
            {
                "strategies": self.strategies,
                # Without numbers: no cuts; without the option: all.
                "remove": None if self.config["study"]["remove"] == "all" else self.remove(model) or True,
                "distances": self.distance_files(model),
            }
        )

    def recipe(self, recipe: str, model: str) -> dict:
        """Settings of a recipe for one model, its own values for that model included."""
        settings = self.config["recipes"][recipe]
        return without(settings, "models") | settings.get("models", {}).get(model, {})

    def healing_options(self, recipe: str, model: str) -> str:
        settings = determining(Healing, self.recipe(recipe, model)) | self.trust(model)
        return options(without(settings, "text", "split", "remove", "strategies", "control"))

    def healing_tuning(self, recipe: str, model: str) -> str:
        return tuning(Healing, self.recipe(recipe, model))

    def is_loss(self, suite: str) -> bool:
        return "loss" in self.config["suites"][suite]

    def suite_options(self, suite: str, model: str) -> str:
        settings = self.config["suites"][suite]
        if self.is_loss(suite):
            loss = determining(LossSettings, settings["loss"]) | self.trust(model)
            tokens = self.tokens(model, settings["loss"])
            return options(without(loss, "text", "split") | {"loss": True, "suite": suite, "tokens": tokens})
        include = self._tasks_of(suite) if settings.get("text") else expanded(settings.get("include"))
        settings = determining(TaskSettings, without(settings, "text")) | self.trust(model)
        return options(settings | {"suite": suite, "include": include})

    def suite_tuning(self, suite: str) -> str:
        settings = self.config["suites"][suite]
        if self.is_loss(suite):
            return tuning(LossSettings, settings["loss"])
        return tuning(TaskSettings, settings)

    def check_options(self) -> str:
        """What the machine is checked for: the precisions that the study computes in, and packing."""
        recipes = [self.recipe(recipe, model) for recipe in self.recipes for model in self.models]
        suites = [self.config["suites"][suite] for suite in self.suites]
        settings = [self.config["distances"], *recipes, *(suite.get("loss", suite) for suite in suites)]
        packing = any(recipe["packing"] for recipe in recipes)
        return options({"precisions": sorted({s["precision"] for s in settings}), "packing": packing})

    def speed_options(self, model: str) -> str:
        return options(self.config["speed"] | self.trust(model))

    def table_options(self) -> str:
        controls = [r for r in self.recipes if self.config["recipes"][r]["control"]]
        return options(
            {
                "models": self.models,
                "recipes": [text for r in self.recipes for text in self._restricted(r)],
                "controls": controls,
                "suites": self.suites,
                "speed": self.config["study"]["speed"],
                "c4": [s for s in self.suites if self.is_loss(s) and self._is_c4(s)],
            }
        )

    def summary_options(self) -> str:
        return options({"suites": self.suites, "tolerance": self.config["tolerance"]})

    def card_options(self, model: str, block: str, treatment: str) -> str:
        """The files that a model card tells of."""
        folder = f"{self.out}/{model}"
        return options(
            {
                "healing": None if treatment == PRUNED else f"{folder}/{treatment}/{block}/heal.json",
                "results": [f"{folder}/{result_path(treatment, block, suite)}" for suite in self.suites],
                "unpruned": [f"{folder}/{result_path(PRUNED, FULL, suite)}" for suite in self.suites],
            }
        )

    def _restricted(self, recipe: str) -> list[str]:
        """A recipe with the cuts that it heals, as table.Recipe reads them; several if models differ."""
        models: dict[str, list[str]] = {}
        for model in self.models:
            settings = self.recipe(recipe, model)
            parts = [",".join(map(str, settings.get(key, []))) for key in ("remove", "strategies")]
            models.setdefault(":".join([recipe, *parts]), []).append(model)
        if len(models) == 1:
            return [text.rstrip(":") for text in models]
        return [f"{text}:{','.join(names)}" for text, names in models.items()]

    def _is_c4(self, suite: str) -> bool:
        """Whether the loss of a suite is what the paper calls the C4 validation loss."""
        loss = self.config["suites"][suite]["loss"]
        return self.config["texts"][loss["text"]]["source"] == "allenai/c4" and loss["split"] == "validation"

    # Figures that the study has data for, by their names in scripts/figure.py

    @property
    def distance_figures(self) -> list[str]:
        """Figures of one model's distances."""
        return ["distance-curves", "distance-map"] if BY_DISTANCE & set(self.strategies) else []

    @property
    def speed_figures(self) -> list[str]:
        """Figures of one model's speed."""
        return ["speed"] if self.config["study"]["speed"] else []

    @property
    def model_figures(self) -> list[str]:
        """Figures of one model."""
        if not self._cuts:
            return []
        names = ["layer-map"]
        names += ["pareto"] if self.config["study"]["speed"] and self.suites else []
        if self.recipes and self.suites:
            names += ["healing", "retained", "strategies"]
            names += (
                ["distance-loss"] if self.distance_figures and any(map(self.is_loss, self.suites)) else []
            )
            names += ["recipes"] if len(self.recipes) > 1 else []
        names += ["prompts"] if len(self._prompts) > 1 else []
        return names

    @property
    def _cuts(self) -> bool:
        """Whether anything is removed at all."""
        return any(self.remove(model) != [] for model in self.models)

    @property
    def _prompts(self) -> list[str]:
        """The columns of the task that most suites ask, if several do."""
        asked: dict[str, list[str]] = {}
        for suite in self.suites:
            for task in self.config["suites"][suite].get("tasks", []):
                asked.setdefault(task, []).append(f"{suite}_{task}")
        return max(asked.values(), key=len, default=[])

    def figure_options(self, figure: str) -> str:
        """What a figure of one model is told besides."""
        return options({"metrics": self._prompts}) if figure == "prompts" else ""

    @property
    def study_figures(self) -> list[str]:
        """Figures of all models."""
        if not self._cuts:
            return []
        names = ["published"] if any(map(self._is_published, self.models)) else []
        if self.recipes and self.suites:
            names += ["healing"] + (["loss"] if any(map(self.is_loss, self.suites)) else [])
        return names

    def _is_published(self, model: str) -> bool:
        """Whether the paper has a value beside one of ours, for the strategy that figures show."""
        paper = Published(self.source(model)["id"])
        return any(
            paper.value(self.strategies[0], n, "pruned", metric) is not None
            for n in [0, *(self.remove(model) or [])]
            for metric in self._published_metrics()
        )

    def _published_metrics(self) -> set[str]:
        """What the suites measure, by the paper's names; of tasks, those whose shots are configured."""
        found = set()
        for suite in self.suites:
            settings = self.config["suites"][suite]
            if self.is_loss(suite):
                found |= {"c4_loss_nats"} if self._is_c4(suite) else set()
            else:
                found |= {f"{task}_{settings.get('shots')}shot" for task in settings["tasks"]}
        return found

    # Files that a stage reads

    def distance_files(self, model: str) -> list[str]:
        """The distances of a model, if a strategy of the study chooses by them."""
        return [f"{self.out}/{model}/distances.csv"] if BY_DISTANCE & set(self.strategies) else []

    def tokens(self, model: str, settings: dict) -> str:
        """Summary of the token file of a model for the text and split in ``settings``."""
        return f"{self.out}/{model}/tokens/{settings['text']}-{settings['split']}.json"

    def suite_files(self, suite: str, model: str) -> list[str]:
        """What a suite reads besides the model: the tokens of its text, or the tasks made from it."""
        if self.is_loss(suite):
            return [self.tokens(model, self.config["suites"][suite]["loss"])]
        return self.task_files(suite)

    def task_files(self, suite: str) -> list[str]:
        """Definitions and questions of a suite's tasks, where the study generates them."""
        settings = self.config["suites"][suite]
        if not settings.get("text"):
            return []
        return [
            f"{self._tasks_of(suite)}/{t}.{kind}" for t in settings["tasks"] for kind in ("yaml", "jsonl")
        ]

    def _tasks_of(self, suite: str) -> str:
        return f"{self.out}/texts/{self.config['suites'][suite]['text']}/tasks"

    # Checks

    def _check(self) -> None:
        config = self.config
        if not self.out or self.out.startswith("-") or set("{}") & set(self.out):
            raise UserError(
                f"outdir: {config['outdir']!r} cannot be the folder of the results; write a path that does "
                "not begin with - and has no { or }, such as results/mine"
            )
        for kind, names, known in (
            ("models", self.models, config["models"]),
            ("strategies", self.strategies, STRATEGIES),
            ("recipes", self.recipes, config["recipes"]),
            ("suites", self.suites, config["suites"]),
        ):
            for name in names:
                if name not in known:
                    raise MissingError(f"study.{kind}: {name!r} is not known{did_you_mean(name, known)}")
        for kind, names, reserved in (
            ("models", self.models, RESERVED_MODELS),
            ("recipes", self.recipes, RESERVED_RECIPES),
            ("suites", self.suites, {"heal", "training", "adapter", "index"}),
        ):
            for name in names:
                check_name(kind, name, reserved)
        for model in self.models:
            self._check_model(model)
        self._check_offline()
        self._check_published()
        for recipe in self.recipes:
            for model in self.models:
                settings = self.recipe(recipe, model)
                self._check_text(f"recipes.{recipe}", settings)
                for strategy in settings.get("strategies", []):
                    if strategy not in self.strategies:
                        raise UserError(
                            f"recipes.{recipe}.strategies: {strategy!r} is not in study.strategies"
                        )
        for suite in self.suites:
            settings = config["suites"][suite]
            if ("loss" in settings) == bool(settings.get("tasks")):
                raise UserError(f"suites.{suite}: give either tasks or loss")
            if "loss" in settings:
                self._check_text(f"suites.{suite}.loss", settings["loss"], "sequences")
            else:
                self._check_text(f"suites.{suite}", settings)
                if settings.get("text") in self.texts_from(world=False):
                    raise UserError(f"suites.{suite}.text: only a generated text has tasks of its own")
        if self.distance_figures:
            if "distances" not in config:
                raise MissingError(
                    "distances: the strategy similarity needs them; write distances: {text: NAME}"
                )
            self._check_text("distances", config["distances"], "samples")
        check_settings(self)
        for text in config["texts"]:
            self._check_source(text)
        for text in config["export"]:
            self._check_export(text)

    def _check_source(self, text: str) -> None:
        """What a text that is read is sampled from. If all was sampled before it need not be here, as on the
        nodes of a cluster."""
        settings, read = self.config["texts"][text], self.documents(text)
        try:
            if read:
                check_text(settings, read)
        except UserError as error:
            summaries = [Path(f"{self.out}/texts/{text}/{split}.json") for split in read]
            sampled = all(s.is_file() and read_json(s).get("source") == settings["source"] for s in summaries)
            if self.text_fingerprint(text) or not sampled:
                raise UserError(f"texts.{text}: {error}") from None

    def _check_model(self, model: str) -> None:
        settings, source = self.config["models"][model], self.source(model)
        if source["kind"] == "pretrain":
            if "pretrain" not in settings:
                raise UserError(f"models.{model}: source is pretrain, so it needs a key pretrain")
            self._check_text(f"models.{model}.pretrain", settings["pretrain"])
        elif source["kind"] == "hub" and not HUB_ID.fullmatch(source["id"]):
            raise UserError(
                f"models.{model}.source: {source['id']!r} is neither pretrain, nor a folder here, nor an id "
                "of the hub, which is OWNER/NAME"
            )
        elif source["kind"] == "folder":
            folder = Path(source["id"])
            if not folder.is_dir():
                raise UserError(f"models.{model}.source: there is no folder {folder}")
            if not (folder / "config.json").is_file():
                raise UserError(f"models.{model}.source: {folder} has no config.json, so it is no checkpoint")
            if not any(folder.glob("*.safetensors")):
                raise UserError(
                    f"models.{model}.source: {folder} has no .safetensors file; "
                    "save it with model.save_pretrained(folder, safe_serialization=True)"
                )
        known = None if source["kind"] == "pretrain" else self.model_config(model)
        if known and known.get("model_type") == "qwen" and model not in self.converted("qwen"):
            raise UserError(f"models.{model}: first-generation Qwen runs only as Qwen2; write convert: qwen")
        if settings.get("reshard") and settings.get("convert"):
            raise UserError(f"models.{model}.reshard: a converted model is written anew anyway; leave it out")
        n_layers = self.n_layers(model)
        for n in self.remove(model) or []:
            if n_layers is not None and n >= n_layers:
                raise UserError(
                    f"study.remove: n = {n} leaves nothing of {model}, which has {n_layers} layers; "
                    f"write at most {n_layers - 1}"
                )

    def _check_export(self, text: str) -> None:
        if not EXPORT.fullmatch(text):
            raise UserError(
                f"export: {text!r} is not MODEL/TREATMENT/N, as in embedded/healed/4, or with the block "
                "itself, as in embedded/healed/drop_6-9"
            )
        model, treatment, cut = self.exported(text)
        for name, known in ((model, self.models), (treatment, [*self.recipes, PRUNED])):
            if name not in known:
                raise UserError(f"export: {text!r}: {name!r} is not in the study{did_you_mean(name, known)}")
        n_layers, removes = self.n_layers(model), self.remove(model)
        if not cut.isdecimal():
            block = LayerSet.parse(cut)
            if n_layers is not None:
                block.kept(n_layers)
        elif removes is not None and int(cut) not in [0, *removes]:
            removed = ", ".join(map(str, [0, *removes]))
            raise UserError(f"export: {text!r}: the study does not remove {cut} layers; it removes {removed}")
        elif self.strategies[0] == "published" and int(cut) not in {0, *self._published_blocks(model)}:
            raise UserError(f"export: {text!r}: the authors published no block of {cut} layers of {model}")

    def _check_offline(self) -> None:
        if is_offline() and self.unseen:
            ids = ", ".join(self.source(model)["id"] for model in self.unseen)
            raise UserError(
                f"not in the cache {cache_folder()}, and HF_HUB_OFFLINE is set: {ids}; unset it, or run "
                "`hf download ID` where there is a network, copy the cache here, and set HF_HOME to it"
            )

    def _published_blocks(self, model: str) -> dict[int, LayerSet]:
        return published_blocks(self.source(model)["id"])

    def _check_published(self) -> None:
        """The first strategy is the one that figures show, so every model must have it."""
        if self.strategies[0] != "published":
            return
        for model in self.models:
            if not self._published_blocks(model):
                raise UserError(
                    f"study.strategies: the authors published no blocks of {model}; put similarity first"
                )

    def _check_text(self, where: str, settings: dict, count: str | None = None) -> None:
        """The text must be known and have as many documents as the setting ``count`` asks for."""
        text, texts = settings.get("text"), self.config["texts"]
        if text is not None and text not in texts:
            raise MissingError(f"{where}.text: {text!r} is not known{did_you_mean(text, texts)}")
        if count and settings[count] > texts[text][settings["split"]]:
            raise UserError(
                f"{where}.{count}: {settings[count]} documents are more than the "
                f"{texts[text][settings['split']]} of texts.{text}.{settings['split']}; raise that, or ask "
                "for fewer"
            )
