"""What the server does in one step, in which nobody can come between: four scripts in Lua.

Each takes one key (and the one beside it), so that a cluster runs it, and tells the server's time.  Other processes are
told of a commit before it is made, in the same step: if the right to tell them is missing, nothing is written.

A record that has been committed more than `FEW` times, with never a pause of `CALM` in between, *moves*: of its commits
one in `UNTOLD` is told (see `resilience.freshness`).  `told` is the server's time of the last one that was, in
microseconds, and `calm` the number of the last commit that came after such a pause.  Whoever looks after one lets the
record rest: the next commit is told again, also if the server's clock is set back before it.
"""

from __future__ import annotations

from hashlib import sha1
from typing import TYPE_CHECKING

from resilience.freshness import CALM, FEW
from resilience.storage import UNTOLD

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Argument = bytes | str | int


def packed(commands: Iterable[Sequence[Argument]]) -> bytes:
    """Return commands as they are sent.  redis-py packs anything, which takes as long as all else that a save does."""
    parts: list[bytes] = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for argument in command:
            given = argument if isinstance(argument, bytes) else str(argument).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(given), given))
    return b"".join(parts)


class Script:
    """A script, and the two commands that run it.

    :param text: in Lua; its first key is the record.
    """

    def __init__(self, text: str) -> None:
        self._text = text.encode()
        self._sha = sha1(self._text, usedforsecurity=False).hexdigest()

    def by_name(self, keys: tuple[bytes, ...], arguments: Iterable[Argument]) -> tuple[Argument, ...]:
        """Return the command that costs the least: the server knows the text by its digest."""
        return ("EVALSHA", self._sha, len(keys), *keys, *arguments)

    def in_full(self, keys: tuple[bytes, ...], arguments: Iterable[Argument]) -> tuple[Argument, ...]:
        """Return the command for a server that does not know the text yet, and does afterwards."""
        return ("EVAL", self._text, len(keys), *keys, *arguments)


_MOVES = f"""
local function after(told)
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local passed = now - (tonumber(told or '') or 0)
  return now, passed >= 0 and passed < {UNTOLD * 1e6:.0f}, passed < 0 or passed >= {CALM * 1e6:.0f}
end
local function moves(number, calm)
  number, calm = tonumber(number or ''), tonumber(calm or '')
  return number and calm and number - calm >= {FEW}
end
"""

_FOUND = f"""{_MOVES}
local function found()
  local time, kind, record = redis.call('TIME'), redis.call('TYPE', KEYS[1]).ok, {{false, false, false, false}}
  local is_moving = false
  if kind == 'hash' then
    record = redis.call('HMGET', KEYS[1], 'incarnation', 'number', 'sum', 'payload', 'told', 'calm')
    if moves(record[2], record[6]) then
      local _, _, is_calm = after(record[5])
      -- Where nothing may be written, it moves on.
      is_moving = not (is_calm and type(redis.pcall('HSET', KEYS[1], 'calm', record[2])) == 'number')
    end
  end
  return {{time[1], time[2], kind, record[1], record[2], record[3], record[4], is_moving and 1 or 0}}
end
"""

LOAD = Script(f"""{_FOUND}
return found()
""")
"""Reply: seconds and microseconds of the server's time, the type of what is stored (`none`: nothing is), and the four
fields of a record, and whether it moves: 1 or 0."""

SAVE = Script(f"""{_FOUND}
local stored = redis.call('HMGET', KEYS[1], 'incarnation', 'number', 'told', 'calm')
if (stored[1] or '') ~= ARGV[1] or (stored[2] or '') ~= ARGV[2] then
  return found()
end
local time = redis.call('TIME')
local told, calm = stored[3], stored[4]
local now, is_told, is_calm = after(told)
if not (is_told and moves(stored[2], calm)) then
  redis.call('PUBLISH', ARGV[7], ARGV[8])
  told = string.format('%.0f', now)
end
if is_calm or not calm then
  calm = ARGV[4]
end
redis.call('HSET', KEYS[1], 'incarnation', ARGV[3], 'number', ARGV[4], 'sum', ARGV[5], 'payload', ARGV[6],
  'told', told, 'calm', calm)
if ARGV[9] == '' then
  redis.call('PERSIST', KEYS[1])
else
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', math.max(ARGV[9], now + ARGV[10])))
end
return {{time[1], time[2], moves(ARGV[4], calm) and 1 or 0}}
""")
"""Arguments: expected incarnation and number (empty: none is stored), the new ones, checksum, payload, channel, what
to tell, when it expires in milliseconds by the caller's clock (empty: never), and how many milliseconds that is from
now.  It is kept until the later of the two: a machine whose clock is wrong must not let a record go early.

Reply: the server's time, and whether the record moves now.  If another version is stored, what `LOAD` replies: the next
try needs no load."""

DELETE = Script(f"""{_FOUND}
if ARGV[1] ~= '' then
  local stored = redis.call('HMGET', KEYS[1], 'incarnation', 'number')
  if stored[1] and (stored[1] ~= ARGV[1] or stored[2] ~= ARGV[2]) then
    return found()
  end
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return redis.call('DEL', KEYS[1])
""")
"""Arguments: expected incarnation and number (empty: whatever is stored), channel, what to tell.

Reply: how many were deleted; if another version was stored, what `LOAD` replies."""

SET_ASIDE = Script("""
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' or (ARGV[5] == 'yes' and kind ~= ARGV[6]) then
  return 0
end
if ARGV[5] == 'yes' and kind == 'hash' then
  local record = redis.call('HMGET', KEYS[1], 'incarnation', 'number', 'sum', 'payload')
  for place = 1, 4 do
    if (record[place] or '') ~= ARGV[6 + place] then
      return 0
    end
  end
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
redis.call('RENAME', KEYS[1], KEYS[2])
if kind == 'hash' then
  redis.call('HSET', KEYS[2], 'reason', ARGV[1])
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
""")
"""Keys: the record, and the name that its copy gets.  Arguments: the reason, for how many milliseconds the copy is
kept, channel, what to tell, whether only what was seen is meant (`yes`), and what that was: its type and four fields.

Reply: 1 if it was set aside, 0 if there was nothing, or something else than was seen."""
