"""Durations as people write them: ``30``, ``0.5``, ``30s``, ``500ms``, ``2m``, ``1h``, ``1d``.

Knows no pydantic, so that the command line reads ``--for 10m`` without it.
"""

from __future__ import annotations

LONGEST = 10 * 365 * 86400.0
"""Seconds that the longest duration has: ten years.  Whoever needs longer means for ever, and says that otherwise."""

FORMS = f"a duration is a number of seconds from 0 to {LONGEST:.0f}, such as 30, 0.5, 30s, 500ms, 2m, 1h or 1d"
"""What is allowed, for messages."""

# Unit, factor, divisor.  The longer suffix first: "ms" ends with "s" as well.  Milliseconds are divided by 1000, for
# 0.001 has no exact binary form and a quotient is rounded once.
_UNITS = (("ms", 1, 1000), ("s", 1, 1), ("m", 60, 1), ("h", 3600, 1), ("d", 86400, 1))

# Reading very long numbers takes time, and none of them is a duration.
_MOST_CHARACTERS = 40


def parse_duration(text: str) -> float:
    """Read a duration: a decimal number, then ``ms``, ``s``, ``m``, ``h``, ``d`` or nothing, which means seconds.

    Spaces around it and before the unit are passed over.  No sign, exponent, infinity or sum (``1h30m``).

    :returns: seconds, from 0 to `LONGEST`.
    :raises ValueError: it is none; the message says what is allowed and does not repeat the text.
    """
    number = text.strip()
    if not number:
        raise ValueError(f"it is empty; {FORMS}")
    factor = divisor = 1
    for unit, *ratio in _UNITS:
        if number.endswith(unit):
            number = number[: -len(unit)].rstrip()
            factor, divisor = ratio
            break
    digits = number.replace(".", "", 1)
    # float() alone would also take "1_0", "1e3", "nan", "-1" and digits of other scripts.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MOST_CHARACTERS):
        raise ValueError(FORMS)
    return check_duration(float(number) * factor / divisor)


def check_duration(seconds: float) -> float:
    """Return a duration that stands within its bounds.

    :raises ValueError: it is negative, infinite, not a number or longer than `LONGEST`.
    """
    # A comparison with NaN is false.
    if not 0 <= seconds <= LONGEST:
        raise ValueError(FORMS)
    return float(seconds)
