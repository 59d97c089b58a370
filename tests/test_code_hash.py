"""The hash of a stage's code: changed by code and resources, not by comments and moves."""

import shutil
from pathlib import Path

import pytest

from deeper_layers.study import code_hash

ROOT = Path(__file__).parents[1]


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A program of three modules, one with a resource; returns its folder and a function for its hash."""
    scripts = tmp_path / "scripts"
    for name, text in {
        "scripts/stage.py": "from deeper_layers import used\nprint(used.f())\n",
        "scripts/deeper_layers/used.py": "from .room.deep import g as h\n\n\ndef f():\n    return h()\n",
        "scripts/deeper_layers/room/deep.py": "from ..other import x\n\n\ndef g():\n    return x\n",
        "scripts/deeper_layers/other.py": "from .resources import resource\n\nx = resource('a/b.csv')\n",
        "scripts/deeper_layers/resources.py": "def resource(name):\n    return name\n",
        "scripts/deeper_layers/apart.py": "x = 1\n",
        "resources/a/b.csv": "1\n",
        "resources/a/c.csv": "1\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(code_hash, "SCRIPTS", scripts)

    def now():
        code_hash.digest.cache_clear()
        return code_hash.code("stage")

    yield tmp_path, now
    code_hash.digest.cache_clear()


def edit(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_comments_docstrings_and_modules_that_are_not_imported_change_nothing(stage):
    folder, now = stage
    library, first = folder / "scripts/deeper_layers", now()
    edit(library / "room/deep.py", "def g():\n", '# why\ndef g():\n    """Docs."""\n')
    edit(library / "apart.py", "1", "2")
    edit(folder / "resources/a/c.csv", "1", "2")
    assert now() == first


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("scripts/stage.py", "used.f()", "used.f() + 1"),
        ("scripts/deeper_layers/used.py", "return h()", "return -h()"),
        ("scripts/deeper_layers/room/deep.py", "return x", "return x * 2"),  # in a room, through levels
        ("scripts/deeper_layers/other.py", "'a/b.csv'", "'a/c.csv'"),
        ("resources/a/b.csv", "1", "2"),
    ],
)
def test_changed_code_and_changed_resources_change_it(stage, file, old, new):
    folder, now = stage
    first = now()
    edit(folder / file, old, new)
    assert now() != first


def test_a_folder_of_resources_counts_with_the_names_of_its_files(stage):
    folder, now = stage
    edit(folder / "scripts/deeper_layers/other.py", "'a/b.csv'", "'a'")
    first = now()
    (folder / "resources/a/c.csv").rename(folder / "resources/a/d.csv")
    assert now() != first


def test_moving_a_module_changes_nothing(stage):
    folder, now = stage
    library, first = folder / "scripts/deeper_layers", now()
    (library / "new/inner").mkdir(parents=True)
    (library / "room/deep.py").rename(library / "new/inner/deepest.py")
    edit(library / "new/inner/deepest.py", "from ..other", "from ...other")
    edit(library / "used.py", "from .room.deep", "from .new.inner.deepest")
    (library / "used.py").rename(library / "new/very_used.py")
    edit(library / "new/very_used.py", "from .new.inner", "from .inner")
    edit(
        folder / "scripts/stage.py",
        "from deeper_layers import used",
        "from deeper_layers.new import very_used as used",
    )
    assert now() == first


def test_of_a_module_that_only_tells_its_imports_count_alone(stage, monkeypatch):
    folder, now = stage
    monkeypatch.setattr(code_hash, "COSMETIC", {"used"})
    first = now()
    edit(folder / "scripts/deeper_layers/used.py", "return h()", "return -h()")
    assert now() == first
    edit(folder / "scripts/deeper_layers/room/deep.py", "return x", "return -x")
    assert now() != first


def test_an_estimate_changes_nothing(stage):
    folder, now = stage
    path = folder / "scripts/deeper_layers/used.py"
    edit(path, "def f():", "@estimate\ndef cost():\n    return 1\n\n\ndef f():")
    first = now()
    edit(path, "return 1", "return 2")
    assert now() == first
    edit(path, "@estimate\n", "")
    assert now() != first


def test_what_is_imported_by_another_name_is_another_program(stage):
    folder, now = stage
    first = now()
    edit(folder / "scripts/deeper_layers/room/deep.py", "import x\n", "import resource as x\n")
    assert now() != first


def test_a_resource_has_a_plain_name(stage):
    folder, now = stage
    edit(folder / "scripts/deeper_layers/other.py", "'a/b.csv'", "'a/' + 'b.csv'")
    with pytest.raises(ValueError, match="plain text"):
        now()


def test_every_resource_that_a_stage_reads_counts(tmp_path, monkeypatch):
    """Of the real programs: a copy in which each resource is changed in turn."""
    for name in ("scripts", "resources"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_hash, "SCRIPTS", tmp_path / "scripts")
    stages = ("blocks", "card", "heal", "table", "world")

    def now():
        code_hash.digest.cache_clear()
        return {stage: code_hash.code(stage) for stage in stages}

    before = now()
    for resource, stage in {
        "published/blocks.csv": "blocks",
        "published/results.csv": "table",
        "table.html": "table",
        "card.md": "card",
        "tasks/yesno.yaml": "world",
    }.items():
        path = tmp_path / "resources" / resource
        path.write_text(path.read_text() + "\n")
        after = now()
        assert [s for s in stages if after[s] != before[s]] == [stage], resource
        before = after
    code_hash.digest.cache_clear()


def test_no_module_reads_a_resource_past_the_hash():
    for path in (ROOT / "scripts").rglob("*.py"):
        if path.stem not in ("resources", "code_hash"):
            assert '"resources' not in path.read_text() and "/resources" not in path.read_text(), path


def test_what_changes_no_result_is_there():
    for name in code_hash.COSMETIC:
        path = ROOT / "scripts/deeper_layers" / name
        assert path.is_dir() or path.with_suffix(".py").is_file(), name
