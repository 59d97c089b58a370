"""Draw a fixed sample of documents from local files or from a data set of the Hugging Face hub."""

from dataclasses import fields

from deeper_layers.data.local_source import ALL, kind
from deeper_layers.runtime import cli
from deeper_layers.settings.texts import SPLITS, SampleSettings


def pair(convert):
    """Parser of SPLIT=VALUE, where SPLIT is one of ours."""

    def parse(text):
        ours, _, value = text.partition("=")
        if ours not in SPLITS:
            raise ValueError(text)
        return ours, convert(value)

    parse.__name__ = "SPLIT=VALUE"
    return parse


def main(arguments):
    from deeper_layers.data.sample import write_sample

    if kind(arguments.source) == "datasets":
        from deeper_layers.data.hub_corpus import Corpus as where
    else:
        from deeper_layers.data.local_corpus import LocalCorpus as where
    settings = {field.name: getattr(arguments, field.name) for field in fields(where)}
    for name in ("beside", "splits"):
        if name in settings:
            settings[name] = dict(settings[name])
    write_sample(where(**settings), arguments.documents, arguments.out)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.add_settings(p, SampleSettings)
    p.add_argument("--documents", type=int, required=True, help="How many documents.")
    cli.add_paths(p, out="JSONL file to write; a .json beside it.")
    files, several = p.add_argument_group("of local files"), {"nargs": "+", "default": []}
    files.add_argument("--ours", choices=SPLITS, default="train", help="Which of our splits this is.")
    meaning = "Documents that our other splits take."
    files.add_argument("--beside", type=pair(int), metavar="SPLIT=NUMBER", help=meaning, **several)
    meaning = f"Split of the files that each of ours is drawn from, or {ALL}."
    files.add_argument("--splits", type=pair(str), metavar="SPLIT=THEIRS", help=meaning, **several)
    hub = p.add_argument_group("of a data set")
    hub.add_argument("--split", default="train", help="Its split.")
    hub.add_argument("--parts", type=int, default=1, help="Disjoint parts of the split.")
    hub.add_argument("--part", type=int, default=0, help="Which of them to sample.")
    cli.run(main, p)
