"""Text that the uncut model writes itself."""

import json

import numpy as np
import pytest
import torch

from deeper_layers.data.tokens import Tokens
from deeper_layers.errors import UserError
from deeper_layers.models import continuation
from deeper_layers.models.continuation import continuations
from deeper_layers.models.load import load_model
from deeper_layers.settings.json_schema import with_defaults
from deeper_layers.settings.texts import ContinuationSettings
from helpers.config import changed, checked
from helpers.healing import VOCABULARY, tiny_llama
from helpers.small_study import changed as small
from helpers.small_study import prepare, run

torch.set_num_threads(1)
SETTINGS = dict(new_tokens=12, precision="fp32")
END = 5


@pytest.fixture(scope="module")
def model():
    model = tiny_llama()
    model.generation_config.eos_token_id = END
    model.generation_config.repetition_penalty = 3.0  # of the model's own file: no part of its distribution
    return model


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(0)
    return [rng.integers(6, VOCABULARY, size) for size in (3, 7, 3, 1, 7, 7, 3)]


@torch.no_grad()
def by_hand(model, prompt: np.ndarray, numbers: np.ndarray, temperature: float) -> list[int]:
    """One token after the other, without a cache."""
    ids = prompt.tolist()
    for number in numbers:
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1].double().numpy()
        if temperature:
            p = np.exp(logits / temperature - (logits / temperature).max())
            token = int(np.searchsorted(np.cumsum(p) / p.sum(), number, side="right"))
        else:
            token = int(logits.argmax())
        if token == END:
            break
        ids.append(token)
    return ids


@pytest.mark.parametrize("temperature", [0.0, 0.7, 2.0])
def test_it_is_what_the_model_says_one_token_after_the_other(model, prompts, temperature):
    settings = ContinuationSettings(**SETTINGS, temperature=temperature, seed=3)
    numbers = np.random.default_rng(3).random((len(prompts), 12))
    found = [document.tolist() for document in continuations(model, prompts, settings)]
    assert found == [by_hand(model, p, n, temperature) for p, n in zip(prompts, numbers, strict=True)]
    assert model.generation_config.repetition_penalty == 3.0


def test_a_document_does_not_depend_on_those_beside_it(model, prompts):
    together, alone = (
        [d.tolist() for d in continuations(model, prompts, ContinuationSettings(**SETTINGS, batch=batch))]
        for batch in (None, 1)
    )
    other = [d.tolist() for d in continuations(model, prompts, ContinuationSettings(**SETTINGS, seed=1))]
    assert together == alone != other


def test_draws_have_the_distribution(model):
    """Of 4,000 draws of the next token, chi squared against the model's own probabilities."""
    prompt = np.array([7, 8, 9])
    settings = ContinuationSettings(new_tokens=1, precision="fp32", temperature=1.5)
    drawn = [d[3] if len(d) > 3 else END for d in continuations(model, [prompt] * 4000, settings)]
    with torch.no_grad():
        p = (model(input_ids=torch.tensor([prompt])).logits[0, -1].double() / 1.5).softmax(-1).numpy()
    counts, common = np.bincount(drawn, minlength=VOCABULARY), p * 4000 > 5
    chi = ((counts - 4000 * p) ** 2 / (4000 * p))[common].sum()
    assert chi < common.sum() + 5 * np.sqrt(2 * common.sum())


def test_out_of_memory_writes_fewer_at_once(model, prompts, monkeypatch):
    expected = [d.tolist() for d in continuations(model, prompts, ContinuationSettings(**SETTINGS))]
    write, rows = continuation._written, []

    def limited(model, prompts, *others):
        rows.append(len(prompts))
        if rows[-1] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return write(model, prompts, *others)

    monkeypatch.setattr(continuation, "_written", limited)
    limit = 1
    found = continuations(model, prompts, ContinuationSettings(**SETTINGS))
    assert [d.tolist() for d in found] == expected and max(rows) > 1
    limit = 0
    with pytest.raises(UserError, match="one document does not fit into memory"):
        list(continuations(model, prompts, ContinuationSettings(**SETTINGS)))


OWN = {"source": "model", "prompts": "world", "prompt_tokens": 3, "new_tokens": 9, "precision": "fp32"}


@pytest.mark.parametrize(
    "text, message",
    [
        (OWN | {"prompts": None}, "a text of the model needs prompts"),
        (
            OWN | {"prompts": "nobody"},
            "own.prompts: 'nobody' is no text to go on with; name one of world",
        ),
        (OWN | {"prompts": "own"}, "texts.own.prompts: 'own' is no text to go on with"),
        (
            OWN | {"train": 10**6},
            "texts.own.train: 1000000 documents are more than the 20000 of",
        ),
        (OWN | {"new_tokens": 0}, "texts.own: new_tokens is 0, it must be at least 1"),
        (OWN | {"temperature": -1}, "texts.own: temperature is -1, it must be at least 0"),
    ],
)
def test_a_text_that_cannot_be_is_refused(text, message):
    with pytest.raises(UserError) as refused:
        checked(with_defaults(changed(texts__own=text, recipes__healed__text="own")))
    assert message in str(refused.value)


def test_a_base_model_is_not_trained_on_its_own_text():
    with pytest.raises(UserError, match="models.embedded.pretrain.text: own is written by the model"):
        checked(with_defaults(changed(texts__own=OWN, models__embedded__pretrain__text="own")))


@pytest.mark.slow
def test_a_study_heals_on_what_its_model_says(tmp_path):
    config = small(texts__own=OWN | {"train": 40, "seed": 2}, recipes__healed__text="own", study__remove=[2])
    folder = prepare(tmp_path, config)
    planned = run(folder, "plan", "--cores", "1")
    assert "continue_text" in planned
    run(folder, "--cores", "2")
    own = Tokens(folder / "results/tiny/tokens/own-train")
    prompts = Tokens(folder / "results/tiny/tokens/world-train").first(40, 3)
    model = load_model(folder / "results/tiny/checkpoints/full")
    settings = ContinuationSettings(prompt_tokens=3, new_tokens=9, precision="fp32", seed=2)
    expected = list(continuations(model, prompts, settings))
    assert [d.tolist() for d in own.first(40, 100)] == [d.tolist() for d in expected]
    summary = json.loads((folder / "results/tiny/tokens/own-train.json").read_text())
    assert summary["settings"]["temperature"] == 1.0 and summary["written_by"].endswith("checkpoints/full")
    (heal,) = (folder / "results/tiny/healed").glob("drop_*/heal.json")
    assert json.loads(heal.read_text())["tokens"] > 0
