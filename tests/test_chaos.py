"""A small study, killed at random moments: ``pytest -m chaos``. ``make chaos`` kills the default one."""

import pytest

from helpers import chaos
from helpers.small_study import changed, prepare

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


def test_a_study_killed_at_random_moments_ends_like_a_calm_one(tmp_path):
    folder = prepare(tmp_path / "study", changed(study__remove=[2], recipes__healed__steps=60))
    calm, killed = chaos.compare(folder, 6, 1 / 16, 0, "table", "--cores", "2")
    print(chaos.report(calm, killed))
    # All six, unless the machine got much faster after the calm run.
    assert killed.kills.keys() == chaos.KINDS.keys()
    assert killed.jobs > calm.jobs
