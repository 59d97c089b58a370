"""Write a text of the uncut model's own: what it goes on with from the beginnings of another text."""

from deeper_layers.runtime import cli
from deeper_layers.runtime.process import optional_imports
from deeper_layers.settings.texts import ContinuationSettings


def main(arguments):
    from deeper_layers.data.tokens import Tokens, write_tokens
    from deeper_layers.models.continuation import continuations
    from deeper_layers.models.load import load_model

    settings = arguments.settings
    prompts = Tokens(arguments.tokens).first(arguments.documents, settings.prompt_tokens)
    model = load_model(arguments.checkpoint, settings.precision, arguments.trust_remote_code)
    facts = {"written_by": str(arguments.checkpoint), "settings": settings.determining()}
    write_tokens(arguments.out, continuations(model, prompts, settings), **facts)


if __name__ == "__main__":
    p = cli.parser(__doc__)
    cli.model_options(p)
    cli.add_paths(
        p,
        checkpoint="Folder of the uncut model.",
        tokens="Token file of the text whose documents begin as ours do.",
        out="Summary to write; the tokens beside it as .safetensors.",
    )
    p.add_argument("--documents", type=int, required=True, help="How many, from the first.")
    cli.add_settings(p, ContinuationSettings)
    cli.run(main, p, optional_imports)
