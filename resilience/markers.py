"""The two marks that pluggy reads: ours on the specifications, a plugin's on its implementations."""

from __future__ import annotations

import pluggy

PROJECT = "resilience"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
