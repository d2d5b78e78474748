"""The composition root: settings, plugins and clock, put together once.

Nothing else reads the environment, loads a plugin or builds a storage.
"""

from __future__ import annotations

import atexit
import os
import sys
from _thread import RLock
from _thread import allocate_lock as Lock  # noqa: N812 - what `threading` offers under this name; it takes 4 ms
from _weakref import ref  # what `weakref` offers under this name, without its containers, which take a millisecond

from resilience.clock import SystemClock, wall
from resilience.errors import ConfigurationError, PluginError, ResilienceError, StorageUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Any, Self

    from resilience.cell import Cell
    from resilience.clock import Clock
    from resilience.engine import Engine
    from resilience.plan import Plan
    from resilience.policy import Policy
    from resilience.ports import Observers, Ports
    from resilience.selection import Selection
    from resilience.settings import Configuration, PolicySettings
    from resilience.storage import Key, Snapshot

    Remake = Callable[[Configuration | None], Policy]

LOOK_EVERY = 0.99
"""Seconds between two looks at the configuration file: a little less than a memo lives, so that each end is a look."""

SETTLED = 0.25
"""A configuration file that was written less than so many seconds ago may be written still, and is left for later."""


class Opened:
    """An open storage and what stands on it."""

    __slots__ = ("engine", "made_with", "observers", "ports", "storage", "url")

    def __init__(
        self, url: str, storage: Any, ports: Ports, engine: Engine, observers: list[tuple[str, object]] | None = None
    ) -> None:
        self.observers = observers
        """Their names and themselves; `None`: a plan knows them."""
        self.url = url
        self.storage = storage
        self.ports = ports
        self.engine = engine
        self.made_with: object = None
        """The settings that storage and observers were made with."""


class Watched:
    """The configuration file that a runtime looks at now and then."""

    __slots__ = ("_lock", "_next", "path", "seen")

    def __init__(self, path: str, seen: list[int] | None) -> None:
        self.path = path
        self.seen = seen
        """Its identity when it was read or looked at last; `None`: it was not there."""
        self._lock = Lock()
        self._next = 0.0

    def is_touched(self, now: float, wall: float) -> bool:
        """Whether it changed since the last look, and is whole as far as that can be told; one system call a second.

        :param now: monotonic seconds; `wall`: wall-clock seconds.
        """
        if now < self._next or not self._lock.acquire(blocking=False):
            return False
        try:
            from resilience.configfile import identify

            self._next = now + LOOK_EVERY
            before, found = self.seen, identify(self.path)
            if found != before and found is not None and 0 <= wall - found[-1] / 1e9 < SETTLED:
                self._next = now + SETTLED
                return False
            self.seen = found
            return found != before
        finally:
            self._lock.release()


class Alive:
    """What is known of objects as long as somebody holds them; iterating gives both."""

    __slots__ = ("_forget", "_known")

    def __init__(self) -> None:
        known: dict[ref[Any], Any] = {}
        self._known = known
        self._forget: Callable[[ref[Any]], object] = lambda gone: known.pop(gone, None)  # one for all: there are many

    def put(self, thing: object, value: object) -> None:
        """Know something of an object."""
        self._known[ref(thing, self._forget)] = value

    def get(self, thing: object) -> Any:
        """Return what is known of an object; `None` if there is nothing."""
        return self._known.get(ref(thing))

    def drop(self, thing: object) -> None:
        """Know it no more."""
        self._known.pop(ref(thing), None)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Go over those that live, as they are now: others may come and go meanwhile."""
        for reference in list(self._known):
            thing = reference()
            if thing is not None:
                yield thing, self._known.get(reference)


def _check_timeout(seconds: Any) -> None:
    if not (isinstance(seconds, int | float) and 0 < seconds <= 3600):
        raise ConfigurationError(
            f"Runtime(storage_timeout=…): {seconds!r:.80} is refused: it is a number of seconds above 0, at most 3600"
        )


def _check_environ(environ: Mapping[Any, Any]) -> None:
    for name, value in environ.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            what = type(value if isinstance(name, str) else name).__name__
            raise ConfigurationError(
                f"Runtime(environ=…): {name!r:.80}: variables and their values are text, not {what}"
            )


def _check_told(observers: Iterable[tuple[str, object]]) -> None:
    """Refuse what somebody handed in to be told of things and would never be."""
    from resilience.fitting import has_hooks

    for name, observer in observers:
        if not has_hooks(observer):
            raise PluginError(
                f"plugin {name}: it has no hook, so it would be told nothing: mark its methods with @hookimpl"
            )


class Runtime:
    """Settings, plugins and clock of one storage; guards bind to the current one at their first use.

    Most programs never make one: the first use of a guard makes one from the environment.  A test makes its own and
    enters it, which makes it the current one until the block ends::

        with Runtime(storage="memory:"):
            ...

    :param storage: URL of the storage, stronger than `RESILIENCE_STORAGE`; or a storage that was made by hand, which
        then is its maker's to close, and to keep fit for a fork.
    :param storage_timeout: seconds; stronger than `RESILIENCE_STORAGE_TIMEOUT`.
    :param clock: where time comes from.
    :param observers: plugins that are told of transitions and events, besides the installed ones.
    :param environ: the variables to read; those of the process if left out.
    :param plan: what an earlier run of the command line came to, to be taken over, see `resilience.plan`.  For a
        process that ends soon: nothing looks whether something changes meanwhile.
    :raises ConfigurationError: the URL is empty, the time-out is no number of seconds above 0, at most an hour, or a
        variable is no text.
    """

    def __init__(
        self,
        *,
        storage: str | object | None = None,
        storage_timeout: float | None = None,
        clock: Clock | None = None,
        observers: Iterable[object] = (),
        environ: Mapping[str, str] | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.begun = wall()
        """Wall-clock second at which it was made; nothing was read or loaded for it before."""
        self._plan = plan
        if storage == "":
            raise ConfigurationError("Runtime(storage=…): it is empty: give it a URL, or leave it out")
        if storage_timeout is not None:
            _check_timeout(storage_timeout)
        if environ is not None:
            _check_environ(environ)
        self._storage = storage
        self._storage_timeout = storage_timeout
        self._clock: Clock = SystemClock() if clock is None else clock
        self._observers = tuple(observers)
        self._environ = environ
        self._lock = RLock()
        self._reloading = RLock()
        self._opened: Opened | None = None
        self._configuration: Configuration | None = None
        self._last_policy: tuple[object, Any] = None, None
        """What was made last, and of what: guards of a family, and neighbours, mostly have the same settings."""
        self._cells: Alive = Alive()
        self._watched: Watched | None = None
        self._left: Opened | None = None
        """The storage that a reload left behind: calls that were under way may still be in it."""
        self._replaced: list[Runtime | None] = []
        _all.put(self, None)

    @staticmethod
    def current() -> Runtime:
        """Return the runtime that guards bind to; the first call makes it from the environment."""
        global _current  # noqa: PLW0603 - the one root of a process
        with _install:
            if _current is None:
                _current = Runtime()
            return _current

    def __enter__(self) -> Self:
        """Become the current runtime."""
        global _current
        with _install:
            self._replaced.append(_current)
            replaced, _current = _current, self
        if replaced is not None:
            replaced.unbind()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close, and let the runtime that was replaced become the current one again."""
        global _current  # noqa: PLW0603 - the one root of a process
        with _install:
            _current = self._replaced.pop()
        self.close()

    @property
    def environ(self) -> Mapping[str, str]:
        """The variables that this runtime reads."""
        return os.environ if self._environ is None else self._environ

    @property
    def configuration(self) -> Configuration:
        """What the variables say.

        :raises ConfigurationError: one of them is unknown or impossible.
        """
        with self._lock:
            if self._configuration is None:
                self._adopt(self._configure())
            assert self._configuration is not None  # noqa: S101 - for the type checkers
            return self._configuration

    def _configure(self) -> Configuration:
        from functools import partial

        from resilience import plugins
        from resilience.settings import Configuration

        file = None
        if self.environ.get("RESILIENCE_CONFIG"):
            from resilience.configfile import load, path_of

            path = path_of(self.environ)
            file = None if path is None else load(path)
        return Configuration(
            self.environ,
            storages=list(plugins.installed(plugins.STORAGE)),
            policies={kind: partial(_settings_model, kind) for kind in plugins.installed(plugins.POLICY)},
            observers=list(plugins.installed(plugins.OBSERVER)),
            installed=plugins.everything,
            file=file,
        )

    @property
    def selection(self) -> Selection:
        """Which installed plugins may be loaded.

        :raises ConfigurationError: the configuration is wrong, and might say so of some.
        """
        if not any(name.startswith(("RESILIENCE_PLUGINS_", "RESILIENCE_CONFIG")) for name in self.environ):
            from resilience.selection import Selection

            return Selection()
        return self.configuration.selection

    @property
    def plan(self) -> Plan | None:
        """What an earlier run came to, if this one may take it over."""
        return self._plan

    @property
    def url(self) -> str:
        """URL of the storage, with the path that it means."""
        if self._storage is None and self.plan is not None:
            from resilience.plan import url_of

            if (url := url_of(self.plan, self.environ)) is not None:
                return url
        if self._storage is None or isinstance(self._storage, str):
            return self.resolve(self._storage or self.configuration.core.storage)
        return str(getattr(self._storage, "url", None) or f"{type(self._storage).__name__}:")

    @property
    def timeout(self) -> float:
        """Seconds that the waiting of one decision may take in all."""
        given = self._storage_timeout
        if given is None:
            given = self.configuration.core.storage_timeout if self.plan is None else self.plan["timeout"]
        return given

    @property
    def opened(self) -> Opened:
        """The open storage; the first use opens it.

        :raises ConfigurationError: the variables or the URL are wrong.
        :raises PluginError: the chosen storage does not load or does not fit.
        """
        opened = self._opened
        if opened is None:
            with self._lock:
                opened = self._opened = self._opened or self._open()
        return opened

    def resolve(self, url: str) -> str:
        """Give `file:` without a path the one of this user: ``resilience`` under the state home."""
        *outer, scheme = url.partition(":")[0].split("+")
        if scheme == "file" and url.partition(":")[2] in {"", "//"}:
            return "+".join([*outer, (self.state_home / "resilience").as_uri()])
        return url

    @property
    def is_default_place(self) -> bool:
        """Whether the URL says nothing of the place, so that it is found in the home of this user."""
        return self._storage is None and self.configuration.core.storage in {"file:", "file://"}

    @property
    def state_home(self) -> Path:
        """Where programs of this user keep state: `XDG_STATE_HOME`, else ``~/.local/state``."""
        from pathlib import Path

        set_home = self.environ.get("XDG_STATE_HOME", "")
        if Path(set_home).is_absolute():
            return Path(set_home)
        try:
            home = Path(self.environ["HOME"]) if self.environ.get("HOME") else Path.home()
        except RuntimeError as error:
            raise ConfigurationError(
                f"RESILIENCE_STORAGE: this user has no home folder to keep state in ({error}); set it to file:///…"
            ) from error
        return home.absolute() / ".local" / "state"

    def _open(self) -> Opened:
        _settle_at_exit()
        if self._storage is None and self.plan is not None:
            try:
                return self._reopen(self.plan)
            except Exception:  # noqa: BLE001 - what is wrong is said by the long way
                self._plan = None
        from resilience import plugins

        url = self.url
        chosen = self._storage is None or isinstance(self._storage, str)
        storage = self._make_chosen(url) if chosen else self._storage
        named = [(f"{type(plugin).__name__} #{number}", plugin) for number, plugin in enumerate(self._observers, 1)]
        installed = plugins.observers(self)
        ports, observers = self._connect(storage, url, [*installed, *named])
        _check_told(named)
        engine = self._engine(storage, ports, observers, self.configuration.core.max_staleness)
        opened = Opened(url, storage, ports, engine, [*installed, *named])
        opened.made_with = self._made_with(self.configuration, url)
        return opened

    def _connect(self, storage: object, url: str, observers: list[tuple[str, object]]) -> tuple[Ports, Observers]:
        """Resolve the hooks of a storage and of observers."""
        from resilience import plugins
        from resilience.ports import connect

        scheme = url.partition(":")[0]

        def origin(name: str) -> str:
            group = plugins.STORAGE if name.endswith(":") else plugins.OBSERVER
            found = plugins.installed(group).get(name.removesuffix(":").partition("+")[0])
            if found is None or storage is self._storage:
                return f"storage {scheme}" if name.endswith(":") else f"plugin {name}"
            return plugins.origin(found)

        if not self.configuration.core.trace_hooks:
            return connect(storage, scheme, observers, origin=origin)
        from resilience.trace import traced

        return connect(storage, scheme, observers, origin=origin, trace=traced)

    def _made_with(self, configuration: Configuration, url: str) -> object:
        """Return what storage and observers depend on, to be compared."""
        from resilience import plugins

        selection = configuration.selection
        settings: list[object] = [url, configuration.core.trace_hooks]
        if self._storage is None or isinstance(self._storage, str):
            for scheme in plugins.schemes(url):
                model = getattr(plugins.storage_class(scheme, selection), "Settings", None)
                settings.append(configuration.storage_settings(scheme, model))
        for name, entry_point in plugins.selected(plugins.OBSERVER, selection).items():
            try:
                model = plugins.settings_of(plugins.load(entry_point))
            except PluginError:
                continue  # it was left out
            settings.append(configuration.observer_settings(name, model))
        return settings

    def _engine(self, storage: Any, ports: Ports, observers: Observers, max_staleness: float) -> Engine:
        from resilience.announce import Announcer
        from resilience.engine import Engine

        announcer = Announcer(observers, self._clock)
        return Engine(
            ports,
            announcer,
            self._clock,
            timeout=self.timeout,
            max_staleness=max_staleness,
            recheck=None if self._watched is None else self._look,
            prepare=lambda: _settle_at_fork(storage),
        )

    def _reopen(self, plan: Plan) -> Opened:
        """Open what another run has opened before, without looking for it again."""
        from resilience.plan import named, observers_of, settings_of
        from resilience.ports import connect_plain

        url = self.url
        kind = named(plan["storage"])
        storage = kind(url, settings_of(plan, kind))
        observers = observers_of(plan, self._observers, self)
        ports, observing = connect_plain(storage, url.partition(":")[0], plan["hooks"], observers)
        return Opened(url, storage, ports, self._engine(storage, ports, observing, plan["max_staleness"]))

    def _make_chosen(self, url: str) -> Any:
        """Make the storage that a URL names; an error names the place that the URL is from.

        A plugin knows of the variable alone.
        """
        try:
            return self._make(url)
        except ConfigurationError as error:
            from resilience.plan import STORAGE

            place = self.configuration.storage_source if self._storage is None else "the given storage"
            message = str(error)
            if place == STORAGE or not message.startswith(f"{STORAGE}: "):
                raise
            raise ConfigurationError(place + message[len(STORAGE) :]) from error.__cause__

    def _make(self, url: str) -> Any:
        """Make the storage that a URL names, and first the one that it holds, if it holds one."""
        from resilience import plugins

        if ":" not in url:
            raise ConfigurationError(
                f"RESILIENCE_STORAGE: {url[:80]!r} is no URL; write scheme:…, for example file:///var/lib/app/resilience"
            )
        scheme, *inner = plugins.schemes(url)
        kind = plugins.storage_class(scheme, self.configuration.selection)
        origin = plugins.origin(plugins.installed(plugins.STORAGE)[scheme])
        if bool(inner) != bool(getattr(kind, "holds_storage", False)):
            what = (
                f"holds no other storage; write {'+'.join(inner)}:… without it"
                if inner
                else (f"holds another storage and keeps nothing by itself; write {scheme}+file:…, for example")
            )
            raise ConfigurationError(f"RESILIENCE_STORAGE: {origin} {what}")
        settings = self.configuration.storage_settings(scheme, getattr(kind, "Settings", None))
        arguments: list[object] = [url, settings]
        if inner:
            its_url = url[len(scheme) + 1 :]
            arguments.append(self._connect(self._make(its_url), its_url, [])[0])
        try:
            return kind(*arguments)
        except ResilienceError:
            raise
        except Exception as error:
            raise PluginError(f"{origin} cannot be made: {type(error).__name__}: {error}") from error

    def policy(
        self,
        kind: type[Policy],
        name: str,
        given: Mapping[str, Any] | None,
        stored: Mapping[str, object] | None = None,
        configuration: Configuration | None = None,
    ) -> Policy:
        """Make the policy of a guard.

        :param given: the settings given in code; `None`: there is no code.
        :param stored: those that code stored with the record, where there is no code.
        :param configuration: the one to go by, if it is not that of the runtime.
        :raises ConfigurationError: a setting is unknown or impossible or contradicts another.
        """
        if given is None and configuration is None and self.plan is not None:
            from resilience.plan import policy_of

            if (policy := policy_of(self.plan, kind, name, stored)) is not None:
                return policy
        configured = configuration or self.configuration
        alike = _alike(configured, kind, name, given, stored)
        before, policy = self._last_policy
        if alike is None or alike != before:
            layers = kind.kind, name, kind.settings_model(), given or {}, stored
            settings = configured.policy_settings(*layers)
            try:
                policy = kind.from_settings(settings, given)
            except ConfigurationError as error:
                raise configured.located(error, *layers) from error.__cause__
            if alike is not None:
                self._last_policy = alike, policy
        return policy

    def bind(self, key: Key, policy: Policy, remake: Remake | None = None) -> Cell:
        """Make the cell of a guard.

        :param remake: makes the policy again when the configuration was reloaded; without it the policy stays.
        """
        with self._lock:  # all of it, so that no cell is missed by who closes
            cell = self.opened.engine.cell(key, policy)
            self._cells.put(cell, remake)
        return cell

    def remaking(self, cell: Cell) -> Remake:
        """Return what makes the policy of a cell again: `remake` of `bind`, or a function that finds no change."""
        policy = cell.policy
        with self._lock:
            return self._cells.get(cell) or (lambda _: policy)

    # -- reloading ---------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the variables and the configuration file anew; what they say applies from the next call on.

        State, windows and permits stay: they are in the storage.  If the storage, its settings or those of an observer
        are others now, the storage is opened anew, with new observers; then reports of calls that are under way are
        dropped, as by `close`.  Observers are told of a ``configuration_reloaded`` event.

        :raises ConfigurationError: something in it cannot be, or contradicts what a guard in use was given in code;
            then everything stays as it was.
        :raises PluginError: a storage that was chosen now does not load or does not fit; likewise.
        """
        with self._reloading:
            configuration = self._configure()
            with self._lock:
                opened, policies = self._tried(configuration)
                old, self._opened = self._opened, opened
            if opened is None or old is None:
                return
            old.engine.settle_all()  # without the lock: observers may run
            with self._lock:
                if opened is old:
                    recheck = None if self._watched is None else self._look
                    opened.engine.retune(self.timeout, configuration.core.max_staleness, recheck)
                    for cell, policy in policies:
                        cell.follow(policy)
                else:
                    self._leave(old)
            file = configuration.file
            data = {"file": None if file is None else file.path, "reopened": opened is not old}
            opened.engine.tell("configuration_reloaded", data)

    def _tried(self, configuration: Configuration) -> tuple[Opened | None, list[tuple[Cell, Policy]]]:
        """Go by a configuration if that can be done for all guards, else raise and go by the old one."""
        before = self._configuration, self._watched, self._plan
        self._adopt(configuration)
        self._plan = None
        try:
            policies = [(cell, remake(configuration)) for cell, remake in self._cells if remake is not None]
            opened = self._opened
            if opened is not None and opened.made_with != self._made_with(configuration, self.url):
                opened = self._open()
        except BaseException:
            self._configuration, self._watched, self._plan = before
            raise
        return opened, policies

    def _adopt(self, configuration: Configuration) -> None:
        file = configuration.file
        self._configuration = configuration
        self._watched = None if file is None else Watched(file.path, file.identity)

    def _leave(self, old: Opened) -> None:
        """Let the guards of a storage bind to the new one; it stays open until the next is left behind."""
        for cell in [cell for cell, _ in self._cells if cell.engine is old.engine]:
            self._cells.drop(cell)
            cell.retire()
        left, self._left = self._left, old
        self._shut(left)

    def _shut(self, opened: Opened | None) -> None:
        if opened is not None and opened.storage is not self._storage:
            getattr(opened.storage, "close", lambda: None)()

    def _look(self) -> None:
        """Reload if the configuration file was touched; if it cannot be, tell so and go on as before."""
        watched = self._watched
        if watched is None or not watched.is_touched(self._clock.monotonic(), self._clock.wall()):
            return
        try:
            self.reload()
        except Exception as error:  # noqa: BLE001 - a call must not fail because somebody edits a file
            what = str(error) if isinstance(error, ResilienceError) else f"{type(error).__name__}: {error}"
            self.opened.engine.tell("configuration_rejected", {"file": watched.path, "error": what})

    def keep_plan(self, verbs: Mapping[str, tuple[str, str]]) -> bool:
        """Let the next run of the command line take over what this one came to, and tell whether it can.

        :param verbs: the policy that brings each verb, as its entry point names it, and what it calls the verb.
        """
        opened = self._opened
        if opened is None or not self.has_composed:
            return False
        from resilience.planning import keep

        return keep(self, opened, verbs)

    @property
    def has_composed(self) -> bool:
        """Whether it has opened the storage of the variables, without a plan."""
        return self._storage is None and self._opened is not None and self._opened.observers is not None

    def keys(self) -> list[Key]:
        """List all keys that have a record, sorted.

        :raises StorageError: the storage cannot list them, or not now.
        """
        ports = self.opened.ports
        if ports.keys is None:
            raise StorageUnavailable(f"storage {ports.name} cannot list its keys; name the ones you want")
        try:
            return sorted(ports.keys())
        except ResilienceError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise StorageUnavailable(f"storage {ports.name}: its keys raised {what}") from error

    def records(self, kind: str) -> list[tuple[Key, Snapshot | None]]:
        """List all records of a kind, sorted, as they are; `None` for one that is to be loaded.

        :raises StorageError: the storage cannot list them, or not now.
        """
        read = getattr(self.opened.storage, "records", None)
        if read is not None:
            try:
                return sorted(read(kind), key=lambda record: record[0].name)
            except Exception:  # noqa: BLE001, S110 - it lists its keys, or says what is wrong
                pass
        return [(key, None) for key in self.keys() if key.kind == kind]

    def policies(self, kind: type[Policy]) -> Callable[[str, Mapping[str, object]], Policy]:
        """Make a function that does what `policy` does for guards that have no code: of name and stored settings.

        For very many: those for which the same is set share one policy.
        """
        from resilience.jsontext import dumps
        from resilience.variables import normal_form

        named = self._named_settings(kind)
        made: dict[tuple[str, str], Policy] = {}
        last: tuple[object, Policy | None] = None, None

        def find(name: str, stored: Mapping[str, object]) -> Policy:
            nonlocal last
            if stored is last[0] and not named and last[1] is not None:
                return last[1]  # neighbours mostly have the same settings
            form = normal_form(name) if named else ""
            key = (form if form in named else "", dumps(stored) if stored else "")
            policy = made.get(key)
            if policy is None:
                policy = made[key] = self.policy(kind, name, None, stored)
            last = stored, policy
            return policy

        return find

    def _named_settings(self, kind: type[Policy]) -> Collection[str]:
        """Return the names, in their normal form, for which file or variables set something of a policy."""
        if self.plan is not None:
            from resilience.plan import names_of

            if (names := names_of(self.plan, kind)) is not None:
                return names
        return self.configuration.policy_names(kind.kind)

    def unbind(self) -> None:
        """Commit what is owed, and let every guard bind anew at its next use."""
        self._settle()
        self._retire()

    def close(self) -> None:
        """Commit what is owed, let go of all guards and close the storage; the next use opens it again."""
        self.unbind()  # without the lock: observers may run
        with self._lock:
            opened, self._opened = self._opened, None
            left, self._left = self._left, None
            self._configuration = None
            self._shut(opened)
            self._shut(left)

    def _settle(self) -> None:
        opened = self._opened
        if opened is not None:
            opened.engine.settle_all()
            opened.engine.finish()

    def _settle_before_fork(self) -> None:
        opened = self._opened
        if opened is not None:
            opened.engine.settle_before_fork()

    def _retire(self) -> None:
        with self._lock:
            cells, self._cells = self._cells, Alive()
        for cell, _ in cells:
            cell.retire()

    def _after_fork_in_child(self) -> None:
        """Leave all that is open to the parent: it owns the descriptors, the permits and what is owed."""
        self._lock = RLock()
        self._reloading = RLock()
        self._opened = self._left = None
        if self._watched is not None:
            self._watched = Watched(self._watched.path, self._watched.seen)
        self._retire()


def _alike(
    configuration: Configuration,
    kind: type[Policy],
    name: str,
    given: Mapping[str, Any] | None,
    stored: Mapping[str, object] | None,
) -> object:
    """Return what is equal for guards that may share one policy; `None`: this one shares its own with nobody."""
    from resilience.variables import normal_form

    if stored or normal_form(name) in configuration.policy_names(kind.kind):
        return None
    settings: object = None
    if given is not None:
        settings = tuple(given), tuple(map(type, given.values())), tuple(given.values())  # 1 is not True
    try:
        hash(settings)
    except TypeError:  # a list of classes, which may change
        return None
    return configuration, kind, settings


def _settings_model(kind: str) -> type[PolicySettings]:
    from resilience import plugins

    return plugins.policy_class(kind).settings_model()  # type: ignore[no-any-return]


_all: Alive = Alive()
_current: Runtime | None = None
_install = Lock()


def _after_fork_in_child() -> None:
    global _install  # noqa: PLW0603 - another thread of the parent may have held it
    _install = Lock()
    for runtime, _ in _all:
        runtime._after_fork_in_child()  # noqa: SLF001 - this module's own


def _settle_all() -> None:
    for runtime, _ in _all:
        runtime._settle()  # noqa: SLF001 - this module's own


def _settle_at_exit() -> None:
    """See to it that what is owed is committed at the end of this process.

    `multiprocessing` ends its children without what was registered with `atexit` in their parent, up to 3.12 without
    `atexit` at all.
    """
    atexit.unregister(_settle_all)
    atexit.register(_settle_all)
    process, util = (sys.modules.get(f"multiprocessing.{name}") for name in ("process", "util"))
    if process is not None and util is not None and process.parent_process() is not None:
        util.Finalize(None, _settle_all, exitpriority=0)


_settles_before_fork = False


def _settle_at_fork(storage: object) -> None:
    """See to it that what is gathered is committed before this process forks.

    Hooks before a fork run in reverse: those of modules that are imported by now, locks that they take among them, come
    after ours.  A module that is imported in the middle of it has its hooks for the time after called without the one
    before; so what a commit imports is imported now, be it what the storage needs or an observer complains with.
    """
    import logging  # noqa: F401 # pyright: ignore[reportUnusedImport] - as said

    global _settles_before_fork
    getattr(storage, "prepare_for_fork", lambda: None)()
    with _install:
        first, _settles_before_fork = not _settles_before_fork, True
    if first and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_settle_all_before_fork)


def _settle_all_before_fork() -> None:
    for runtime, _ in _all:
        runtime._settle_before_fork()  # noqa: SLF001 - this module's own


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
