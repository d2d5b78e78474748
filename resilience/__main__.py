"""`python -m resilience`: the command line."""

from __future__ import annotations

import sys

from resilience.cli import main

sys.exit(main())
