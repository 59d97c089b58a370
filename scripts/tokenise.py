"""Tokenise a text once with a model's tokenizer, for every stage to share."""

from deeper_layers.runtime import cli
from deeper_layers.runtime.process import torch_unless_verified


def main(arguments):
    from deeper_layers.data.tokens import load_tokenizer, read_documents, tokenise, write_tokens

    tokenizer = load_tokenizer(arguments.checkpoint, arguments.trust_remote_code)
    write_tokens(arguments.out, tokenise(tokenizer, read_documents(arguments.text)))


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.trust_option(p)
    cli.add_paths(
        p,
        checkpoint="Folder with the tokenizer.",
        text='JSONL file, a {"text": ...} or {"messages": ...} per line.',
        out="Summary to write; the tokens beside it as .safetensors.",
    )
    cli.run(main, p, torch_unless_verified)
