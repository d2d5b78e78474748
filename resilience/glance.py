"""One look for one admission: what a process needs that asks once and ends, instead of an engine.

It is the road of the engine (`Engine._decide`) without what only a second call, a commit or a failure needs: load,
decode, step.  Where the step lets the call in and changes nothing, that is the answer.  All else is left to the engine,
which asks anew: a rejection, which is counted; a lease; whatever must be committed; every fault.
"""

from __future__ import annotations

from resilience.clock import wall
from resilience.plan import named, policy_of, settings_of, url_of
from resilience.policy import Admit
from resilience.storage import Key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from resilience.plan import Plan
    from resilience.policy import Policy
    from resilience.storage import Snapshot


def lets_in(plan: Plan, environ: Mapping[str, str], kind: type[Policy], name: str) -> bool:
    """Whether a call is let in, with nothing to be told to others; false if the engine has to say.

    Whoever reports will have no token, see `Admit`.
    """
    try:
        key = Key(kind.kind, name)
        snapshot = _load(plan, environ, key)
        policy = policy_of(plan, kind, name)
        if policy is None or snapshot.time is not None:  # a time that all share is the engine's to keep
            return False
        state = policy.initial() if snapshot.payload is None else policy.decode(snapshot.payload)
        stored = policy.stored_settings(state)
        if stored:
            policy = policy_of(plan, kind, name, stored)
            if policy is None:
                return False
        step = policy.step(state, Admit(wall(), 0, anonymous=True))
    except Exception:  # noqa: BLE001 - the engine meets it too, and says what is wrong
        return False
    return not step.keep and step.decision is None


def _load(plan: Plan, environ: Mapping[str, str], key: Key) -> Snapshot:
    """Load a record by the storage, or by what only reads where it has such a thing."""
    url = url_of(plan, environ)
    if url is None:
        raise ValueError("the URL of the storage has to be found out")
    kind = named(plan["reader"] or plan["storage"])
    storage = kind(url, settings_of(plan, kind))
    try:
        snapshot: Snapshot = storage.resilience_load(key, plan["timeout"])
    finally:
        getattr(storage, "close", lambda: None)()
    return snapshot
