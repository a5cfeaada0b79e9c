"""The scripts that run in Redis. Each is atomic there, and doing it twice is doing it once.

``KEYS`` are those of one answer: ``meta``, a hash that says what is known of it; ``lease``, the
token of its producer; ``log``, the stream of this generation. Entry ``n`` has the ID ``n-0``, so
the length of a log is the number of its last entry, and a log takes none twice.

Without free memory, Redis refuses writes that need some, unless the script has written something
already. So what makes an answer longer is a script's first write, and is refused. An end or a stop
comes behind another write, and passes.

A command that the user may not use ends a script in the middle. So no key is made before it is sure
that it can be given an expiry.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final


class Script:
    """A script and the name that Redis knows it by.

    Args:
        text: The script, in Lua.
    """

    def __init__(self, text: str) -> None:
        self.text: Final = text.strip().encode()
        self.sha: Final = sha1(self.text, usedforsecurity=False).hexdigest().encode()


ELECT: Final = Script("""
-- KEYS meta, lease; ARGV token, milliseconds of a lease and of an answer's life.
-- Returns whether the token has the lease now, and the generation.
local token, lease_time, ttl = ARGV[1], ARGV[2], ARGV[3]
local holder = redis.call('GET', KEYS[2])
local known = redis.call('HMGET', KEYS[1], 'generation', 'state', 'token')
local generation = tonumber(known[1] or '0')
if holder == token and known[3] == token then
  return {1, generation}
end
if holder or (known[2] and known[2] ~= 'running') then
  return {0, generation}
end
-- Later generations are larger, also after an earlier one was forgotten.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
generation = math.max(generation + 1, now)
redis.call('SET', KEYS[2], token, 'PX', lease_time)
redis.call('PEXPIRE', KEYS[1], ttl) -- of an earlier one; refused before there is a new one
redis.call('HSET', KEYS[1], 'generation', string.format('%.0f', generation), 'token', token,
  'state', 'running', 'started', string.format('%.0f', now), 'events', '0')
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('HDEL', KEYS[1], 'stop', 'ended')
return {1, generation}
""")

APPEND: Final = Script("""
-- KEYS meta, lease, log; ARGV token, milliseconds of a lease and of an answer's life, number,
-- events, data. Number 0 appends nothing.
-- Returns the length of the log, -1 if the lease is gone; and whether a stop is wanted.
local token, lease_time, ttl, number = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local known = redis.call('HMGET', KEYS[1], 'token', 'stop')
if redis.call('GET', KEYS[2]) ~= token or known[1] ~= token then
  return {-1, 0}
end
local length = redis.call('XLEN', KEYS[3])
if number == length + 1 then
  redis.call('XADD', KEYS[3], number .. '-0', 'd', ARGV[6])
  redis.call('HSET', KEYS[1], 'events', ARGV[5])
  length = number
end
redis.call('PEXPIRE', KEYS[2], lease_time)
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('PEXPIRE', KEYS[3], ttl)
return {length, known[2] and 1 or 0}
""")

FINISH: Final = Script("""
-- KEYS and ARGV as above, and the state. Returns the same.
local token, lease_time, ttl, number = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local known = redis.call('HMGET', KEYS[1], 'token', 'state')
local length = redis.call('XLEN', KEYS[3])
if known[1] == token and known[2] ~= 'running' then
  return {length, 0}
end
if redis.call('GET', KEYS[2]) ~= token or known[1] ~= token then
  return {-1, 0}
end
redis.call('PEXPIRE', KEYS[2], lease_time)
if number == length + 1 then
  redis.call('XADD', KEYS[3], number .. '-0', 'd', ARGV[6])
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'state', ARGV[7], 'events', ARGV[5],
    'ended', string.format('%.0f', time[1] * 1000000 + time[2]))
  redis.call('DEL', KEYS[2])
  length = number
end
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('PEXPIRE', KEYS[3], ttl)
return {length, 0}
""")

RELEASE: Final = Script("""
-- KEYS lease; ARGV token.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
return 1
""")

STATUS: Final = Script("""
-- KEYS meta, lease.
-- Returns generation, state, microseconds of the start and the end since 1970, events,
-- milliseconds of the lease; 0 for what there is not.
local known = redis.call('HMGET', KEYS[1], 'generation', 'state', 'started', 'ended', 'events')
local left = redis.call('PTTL', KEYS[2])
local state = known[2]
if state == 'running' and left < 0 then
  state = 'lost'
end
return {tonumber(known[1] or '0'), state or '', tonumber(known[3] or '0'),
  tonumber(known[4] or '0'), tonumber(known[5] or '0'), left}
""")

STOP: Final = Script("""
-- KEYS meta, lease. Returns whether there is a producer.
if redis.call('EXISTS', KEYS[1], KEYS[2]) < 2 then
  return 0
end
redis.call('PEXPIRE', KEYS[1], math.max(redis.call('PTTL', KEYS[1]), 1))
redis.call('HSET', KEYS[1], 'stop', '1')
return 1
""")

EXPIRE: Final = Script("""
-- KEYS meta, lease, log; ARGV generation, milliseconds. Returns whether it was still there.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then
  return 0
end
if tonumber(ARGV[2]) > 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  redis.call('PEXPIRE', KEYS[3], ARGV[2])
else
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
end
return 1
""")
