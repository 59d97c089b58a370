"""Draw a fixed sample of documents from a data set of the Hugging Face hub, or from a folder."""

from dataclasses import fields
from pathlib import Path

from deeper_layers import program


def main(arguments):
    from deeper_layers.corpus import Corpus, write_sample

    settings = {field.name: getattr(arguments, field.name) for field in fields(Corpus)}
    write_sample(Corpus(**settings), arguments.documents, arguments.out)


if __name__ == "__main__":
    p = program.parser(__doc__)
    p.add_argument("--source", required=True, help="id of a data set, OWNER/NAME, or a folder")
    p.add_argument("--name", help="its configuration, such as en")
    p.add_argument("--revision", help="commit, branch or tag; none: the newest")
    p.add_argument("--split", default="train", help="its split")
    p.add_argument("--field", default="text", help="field that holds the text")
    p.add_argument("--parts", type=int, default=1, help="disjoint parts of the split")
    p.add_argument("--part", type=int, default=0, help="which of them to sample")
    p.add_argument("--seed", type=int, default=0, help="seed of the order")
    p.add_argument("--buffer", type=int, default=10_000, help="documents of the buffer that is shuffled")
    p.add_argument("--documents", type=int, required=True, help="how many documents")
    p.add_argument("--out", type=Path, required=True, help="JSONL file to write; a .json beside it")
    program.run(main, p)
