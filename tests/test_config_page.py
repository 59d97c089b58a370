"""docs/config.md has every key of the configuration; that it says what the schema says is in test_docs.py."""

from deeper_layers.settings.json_schema import schema
from helpers.config import ROOT


def test_every_key_is_on_the_page_with_a_meaning():
    def keys(mapping):
        for name, value in mapping.get("properties", {}).items():
            yield name, value
            yield from keys(value)
            if isinstance(value.get("additionalProperties"), dict):
                yield from keys(value["additionalProperties"])

    text = (ROOT / "docs/config.md").read_text()
    found = list(keys(schema()))
    assert len(found) > 80
    for name, value in found:
        assert f"| `{name}` |" in text and value.get("description"), name
