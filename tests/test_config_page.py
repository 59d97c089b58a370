"""docs/config.md has every key of the configuration; that it says what the schema says is in test_docs.py."""

import yaml

from helpers.config import ROOT, SCHEMA


def test_every_key_is_on_the_page_with_a_meaning():
    def keys(schema):
        for name, value in schema.get("properties", {}).items():
            yield name, value
            yield from keys(value)
            if isinstance(value.get("additionalProperties"), dict):
                yield from keys(value["additionalProperties"])

    text = (ROOT / "docs/config.md").read_text()
    found = list(keys(yaml.safe_load(SCHEMA.read_text())))
    assert len(found) > 80
    for name, value in found:
        assert f"| `{name}` |" in text and value.get("description"), name
