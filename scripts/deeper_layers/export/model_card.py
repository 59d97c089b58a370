"""The model card of an exported checkpoint. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import jinja2
from huggingface_hub import ModelCard, ModelCardData

from ..checkpoints.folder import MANIFEST
from ..checkpoints.hub_cache import cached_file
from ..models.artifacts import healed_artifact
from ..pruning.layer_set import LayerSet
from ..reporting.scores import read_result, suite_scores
from ..reporting.text import layers_in_words, si
from ..resources import resource
from ..runtime.files import read_json

CARD = resource("card.md")


def card(
    exported: str | Path,
    full: str | Path,
    results: Sequence[Path],
    unpruned: Sequence[Path],
    healing: str | Path | None = None,
    metrics: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The model card of the folder ``exported``, as the hub reads it: YAML, then Markdown.

    ``full`` is the folder of the uncut checkpoint; ``results`` are the evaluations of the exported variant
    and ``unpruned``, in the same order, those of the uncut model; ``healing`` is the variant's heal.json;
    ``metrics`` has of suites the metric that stands for their tasks.
    """
    exported = Path(exported)
    manifest = read_json(exported / MANIFEST)
    source = manifest["source"]
    front_matter = ModelCardData(
        base_model=source["id"] if source["kind"] == "hub" else None,
        license=licence(source),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["layer-pruning", "deeper-layers"],
    )
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"si": si, "in_words": layers_in_words}
    return environment.from_string(CARD.read_text()).render(
        front_matter=front_matter.to_yaml(),
        name=exported.name,
        base=read_json(Path(full) / MANIFEST),
        cut=manifest,
        removed=LayerSet.parse(manifest["block"]),
        scores=side_by_side(results, unpruned, metrics),
        healing=read_json(healing) if healing else None,
        artifact=healed_artifact(Path(healing).parent).describe() if healing else None,
        versions=read_result(results[0])["deeper_layers"]["versions"] if results else {},
    )


def side_by_side(
    results: Sequence[Path], unpruned: Sequence[Path], metrics: Mapping[str, str] = MappingProxyType({})
) -> list[dict]:
    """Every metric of the evaluations, of the uncut model (``before``) and of the variant (``after``):
    (value, standard error), with the name, the suite and the precision. ``metrics`` are those that stand for
    the tasks of suites."""
    rows = []
    for path, other in zip(results, unpruned, strict=True):
        result = read_result(path)
        made = {key: result["deeper_layers"][key] for key in ("suite", "precision")}
        metric = metrics.get(made["suite"])
        before = suite_scores(read_result(other), metric)
        for name, score in suite_scores(result, metric).items():
            rows.append({"name": name, **made, "before": before[name], "after": score})
    return rows


def licence(source: dict) -> str | None:
    """The licence that the base model's own card states, None if it has none here.

    ``source`` is the manifest's: a local folder, or a model of the hub whose card is in the cache."""
    if source["kind"] == "hub":
        path = cached_file(source["id"], source["revision"], "README.md")
    else:
        path = Path(source["id"]) / "README.md"
    if path is None or not path.is_file():
        return None
    return ModelCard.load(path, ignore_metadata_errors=True).data.license
