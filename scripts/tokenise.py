"""Tokenise a text once with a model's tokenizer, for every stage to share."""

from pathlib import Path

from deeper_layers import program


def main(arguments):
    from deeper_layers.models import load_tokenizer
    from deeper_layers.tokens import read_texts, tokenise, write_tokens

    tokenizer = load_tokenizer(arguments.checkpoint)
    write_tokens(arguments.out, tokenise(tokenizer, read_texts(arguments.text)))


if __name__ == "__main__":
    p = program.parser(__doc__)
    p.add_argument("--checkpoint", type=Path, required=True, help="folder with the tokenizer")
    p.add_argument("--text", type=Path, required=True, help='JSONL file, a {"text": ...} a line')
    p.add_argument(
        "--out", type=Path, required=True, help="summary to write; the tokens beside it as .safetensors"
    )
    program.run(main, p)
