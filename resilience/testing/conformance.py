"""The suite as a pytest class: an author writes one fixture, that makes the storage.

.. code-block:: python

    class TestMyStorage(StorageConformance):
        kit = "1"

        @pytest.fixture
        def storage_factory(self, tmp_path):
            return partial(MyStorage, f"mine://{tmp_path}", None)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from resilience.testing.checks import Check, all_checks
from resilience.testing.runner import run_unless_broken
from resilience.testing.subject import Subject

if TYPE_CHECKING:
    from resilience.storage import Key
    from resilience.testing.handle import Factory


class StorageConformance:
    """All checks for one storage, a test each; a subclass named ``Test…`` is collected.

    `kit` is the version of the suite; a check that a later version brought is skipped, and says so.  `quick` makes
    fewer rounds with fewer processes.
    """

    kit: ClassVar[str] = "1"
    quick: ClassVar[bool] = False
    _failed: ClassVar[set[str]]

    def __init_subclass__(cls, **given: Any) -> None:
        """Remember the checks that failed, of each class by itself."""
        super().__init_subclass__(**given)
        cls._failed = set()

    @pytest.fixture
    def storage_factory(self) -> Factory | str:
        """Return what makes the storage, or its URL: to be overridden.

        It is called many times, here and in other processes, and each time makes an object for the same records: so
        it can be pickled, as `functools.partial` of a class can.
        """
        pytest.fail(
            f"{type(self).__name__} has no fixture storage_factory: define one that returns, for example,"
            " functools.partial(MyStorage, 'mine:…', None)",
            pytrace=False,
        )

    def damage(self, storage: Any, key: Key) -> None:
        """Damage the stored record of a key: to be overridden, where a record can be damaged."""
        raise NotImplementedError

    def unreachable(self) -> Factory | str | None:
        """Return what makes a storage whose store does not answer: to be overridden, where there is a server."""
        return None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test of each check."""
        if "resilience_check" in metafunc.fixturenames:
            current = {check.name for check in all_checks(self.kit)}
            metafunc.parametrize(
                "resilience_check",
                [
                    pytest.param(check, id=check.name, marks=[] if check.name in current else [_later(check)])
                    for check in all_checks()
                ],
            )

    def test_storage(self, resilience_check: Check, storage_factory: Factory | str) -> None:
        """Run one check; skipped where one that it stands on has failed."""
        damages = type(self).damage is not StorageConformance.damage
        with Subject(
            storage_factory,
            damage=self.damage if damages else None,
            unreachable=self.unreachable(),
            quick=self.quick,
        ) as subject:
            result = run_unless_broken(resilience_check, subject, self._failed)
        if result.outcome == "failed":
            pytest.fail(str(result), pytrace=False)
        if result.outcome == "skipped":
            pytest.skip(result.reason)
        if result.notes:
            print(result)  # noqa: T201 - `pytest -rP` shows it


def _later(check: Check) -> pytest.MarkDecorator:
    return pytest.mark.skip(reason=f'new in version {check.kit} of the kit: set kit = "{check.kit}" to run it')
