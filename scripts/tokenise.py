"""Tokenise a text once with a model's tokenizer, for every stage to share."""

from pathlib import Path

from deeper_layers.runtime import cli
from deeper_layers.runtime.process import torch_unless_verified


def main(arguments):
    from deeper_layers.data.tokens import load_tokenizer, read_texts, tokenise, write_tokens

    tokenizer = load_tokenizer(arguments.checkpoint, arguments.trust_remote_code)
    write_tokens(arguments.out, tokenise(tokenizer, read_texts(arguments.text)))


if __name__ == "__main__":
    p = cli.parser(__doc__)
    p.add_argument("--checkpoint", type=Path, required=True, help="folder with the tokenizer")
    p.add_argument("--text", type=Path, required=True, help='JSONL file, a {"text": ...} a line')
    p.add_argument("--trust-remote-code", action="store_true", help="run the code that comes with the model")
    p.add_argument(
        "--out", type=Path, required=True, help="summary to write; the tokens beside it as .safetensors"
    )
    cli.run(main, p, torch_unless_verified)
