"""Many processes meet an outage of their storage: how often it is asked, and how they come back."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from processes.herd import call_until_it_is_back

from resilience.fuse import RETRY_EVERY
from resilience.testing import Workers

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.heavy
def test_eight_processes_ask_once_a_second_each_and_all_come_back(tmp_path: Path) -> None:
    with Workers(8) as workers:
        answers = workers.run(call_until_it_is_back, str(tmp_path), 2.5, 30.0, limit=60)
    for asked, calls, told in answers:
        assert 1 < len(asked) < calls
        assert all(later - earlier >= RETRY_EVERY for earlier, later in pairwise(asked))
        assert told == ["degraded", "recovered"]
