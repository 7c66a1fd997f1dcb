# SPDX-License-Identifier: Apache-2.0
"""What is in Redis, and the scripts that read and change it.

All keys of a deployment share a hash tag, so that they are on one node of a
cluster and one script may use several of them:

    zmq:{DEPLOYMENT}:ROLE:EXCHANGE:TOPIC:SERVER  hash: record -> LEASE@when it was registered
    zmq:{DEPLOYMENT}:aside:ROLE:…:SERVER         sorted set: record -> set aside until
    zmq:{DEPLOYMENT}:leases                      sorted set: lease -> when it ends
    zmq:{DEPLOYMENT}:lease:LEASE                 set: the keys in which the lease has records
    zmq:{DEPLOYMENT}:since                       since when this server has been told everything

A process has one lease, and to refresh all of its records is to prolong that.
A record that was withdrawn is in `aside` for a while, which tells it from one that was
forgotten, or whose lease has ended: its process may only not have reached this server.
Times are the server's, in seconds since the epoch.

Who comes next collects what the dead have left; should nobody come, Redis does,
since all keys expire.  Their time, KEEP times that of the lease, is renewed
when half of it is over, not with each refresh, which is to cost the same for
one topic and for thousands.  Some scripts use keys that they learn from `lease:LEASE`, and
which cannot be named before; they have the same hash tag.
"""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["LOOKUP", "REFRESH", "REGISTER", "SET_ASIDE", "SURVEY", "UNREGISTER", "Script"]

GONE: Final = 20
"""Seconds for which it is remembered that a record was withdrawn."""
KEEP: Final = 20
"""After how many times the life of a lease that nobody refreshed its keys are gone."""

_COMMON: Final = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local function text(seconds) return string.format('%.6f', seconds) end
local function lease_of(value) return string.match(value, '^(.-)@') end
local deadlines = {}
local function deadline_of(lease)
  if deadlines[lease] == nil then
    local score = redis.call('ZSCORE', KEYS[1], lease)
    deadlines[lease] = score == 'inf' and math.huge or tonumber(score or 0)
  end
  return deadlines[lease]
end
local function put_aside(aside, record, pause)
  redis.call('ZREMRANGEBYSCORE', aside, '-inf', text(now))
  redis.call('ZADD', aside, text(now + pause), record)
  local last = redis.call('ZRANGE', aside, -1, -1, 'WITHSCORES')[2]
  redis.call('PEXPIREAT', aside, math.ceil(tonumber(last) * 1000))
end
-- `left` is what PTTL said before the key was written to: -1 if it is to stay for ever.
local function keep(key, left, life)
  if life == '' then redis.call('PERSIST', key)
  elseif left ~= -1 and left < life * KEEP * 1000 then
    redis.call('PEXPIRE', key, math.ceil(life * KEEP * 1000))
  end
end
local function left_of(key) return redis.call('PTTL', key) end
-- Whoever may not publish (ACL) is found with the next look at the latest.
local function tell(keys) for key in pairs(keys) do redis.pcall('PUBLISH', key, '') end end
local function drop_lease(prefix, lease)
  local owned = prefix .. 'lease:' .. lease
  for _, key in ipairs(redis.call('SMEMBERS', owned)) do
    local fields = redis.pcall('HGETALL', key)
    for i = 1, #fields, 2 do
      if lease_of(fields[i + 1]) == lease then redis.call('HDEL', key, fields[i]) end
    end
  end
  redis.call('DEL', owned)
  redis.call('ZREM', KEYS[1], lease)
end
local function end_if_empty(prefix, lease)
  local owned = prefix .. 'lease:' .. lease
  for _, key in ipairs(redis.call('SMEMBERS', owned)) do
    local fields = redis.pcall('HGETALL', key)
    for i = 2, #fields, 2 do if lease_of(fields[i]) == lease then return end end
  end
  redis.call('DEL', owned)
  redis.call('ZREM', KEYS[1], lease)
end
-- What others removed of a lease: told to its process when that refreshes it.
local lost = string.sub(KEYS[1], 1, -7) .. 'lost'
local function report_loss(lease)
  local owned = string.sub(KEYS[1], 1, -7) .. 'lease:' .. (lease or '')
  if redis.call('PTTL', owned) ~= -2 then redis.call('SADD', owned, lost) end
end
local function collect()
  local prefix = string.sub(KEYS[1], 1, -7)
  local ended = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now), 'LIMIT', 0, 10)
  for _, lease in ipairs(ended) do drop_lease(prefix, lease) end
end
-- A Redis that is full refuses a script whose first write takes memory, and takes one whose
-- first write takes none.
local function begin_writing() redis.call('ZREM', KEYS[1], '') end
local function unless_wrong_type(problem)
  if not string.find(problem, 'WRONGTYPE') then error(problem) end
  return problem
end
local function standings(key, aside)
  local fields = redis.pcall('HGETALL', key)
  if fields.err then return {unless_wrong_type(fields.err)} end
  local until_ = {}
  local marks = redis.pcall('ZRANGE', aside, 0, -1, 'WITHSCORES')
  for i = 1, #marks, 2 do until_[marks[i]] = tonumber(marks[i + 1]) end
  local live, gone, garbage = {}, {}, {}
  for i = 1, #fields, 2 do
    local record, value = fields[i], fields[i + 1]
    local lease, at = string.match(value, '^(.-)@(.+)$')
    local deadline = lease and deadline_of(lease)
    if not lease then garbage[#garbage + 1] = record
    elseif deadline > now then
      local ttl = deadline == math.huge and '' or text(deadline - now)
      live[#live + 1] = {record, at, ttl, text(math.max(0, (until_[record] or 0) - now))}
    end
    until_[record] = nil
  end
  for record, deadline in pairs(until_) do
    if deadline > now then gone[#gone + 1] = record end
  end
  return {live, gone, garbage}
end
"""


class Script:
    """A script that the server keeps once it has seen it, and is called by its hash then."""

    def __init__(self, text: str) -> None:
        self.text = f"local GONE, KEEP = {GONE}, {KEEP}\n{_COMMON}{text}"
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


REGISTER: Final = Script("""
-- KEYS: leases, since, lease:LEASE, and for each key itself and its aside.
-- ARGV: LEASE, seconds to live or nothing for ever, whether it could not be told for a while,
--       and for each record the place of its key in KEYS, and itself.
-- Returns the keys that hold something else than a hash.
begin_writing()
local lease = ARGV[1]
local lives = deadline_of(lease) > now
local life = tonumber(ARGV[2]) or ''
local left = {left_of(KEYS[1]), left_of(KEYS[2]), left_of(KEYS[3])}
redis.call('ZADD', KEYS[1], life == '' and '+inf' or text(now + life), lease)
if ARGV[3] == '1' then redis.call('SET', KEYS[2], text(now), 'KEEPTTL')
else redis.call('SETNX', KEYS[2], text(now)) end
keep(KEYS[1], left[1], life)
keep(KEYS[2], left[2], life)
local changed, broken = {}, {}
for i = 4, #ARGV, 2 do
  local place, record = tonumber(ARGV[i]), ARGV[i + 1]
  local key = KEYS[place]
  local value = redis.pcall('HGET', key, record)
  if type(value) == 'table' then
    unless_wrong_type(value.err)
    broken[#broken + 1] = key
  else
    local key_left = left_of(key)
    local marked = redis.pcall('ZREM', KEYS[place + 1], record)
    if not (lives and value and lease_of(value) == lease and marked == 0) then
      redis.call('HSET', key, record, lease .. '@' .. text(now))
      redis.call('SADD', KEYS[3], key)
      changed[key] = true
    end
    keep(key, key_left, life)
  end
end
-- Not prolonged by itself, so that no key of the lease goes before it.
if left[3] == -2 then keep(KEYS[3], left[3], life) end
collect()
tell(changed)
return broken
""")

REFRESH: Final = Script("""
-- KEYS: leases, since, lease:LEASE.  ARGV: LEASE, seconds to live or nothing.
-- Returns whether there is that lease, with all its records.
begin_writing()
local left = left_of(KEYS[3])
local lives = deadline_of(ARGV[1]) > now and left ~= -2 and redis.call('SREM', KEYS[3], lost) == 0
local life = tonumber(ARGV[2])
if lives and life then
  redis.call('ZADD', KEYS[1], text(now + life), ARGV[1])
  if left < life * KEEP * 500 then
    for _, key in ipairs(redis.call('SMEMBERS', KEYS[3])) do keep(key, left_of(key), life) end
    for _, key in ipairs(KEYS) do keep(key, left_of(key), life) end
  end
end
collect()
return lives and 1 or 0
""")

UNREGISTER: Final = Script("""
-- KEYS: leases, and for each key itself and its aside.
-- ARGV: whose records (the beginning of a lease; nothing: anybody's), how many leases are to be
--       ended if they have no records left, these, and for each record the place of its key
--       in KEYS, and itself.
begin_writing()
local owner, leases = ARGV[1], tonumber(ARGV[2])
local changed = {}
for i = 3 + leases, #ARGV, 2 do
  local place, record = tonumber(ARGV[i]), ARGV[i + 1]
  local value = redis.pcall('HGET', KEYS[place], record)
  local there = type(value) == 'string'
  -- False: it has been collected, or forgotten; but others may still know it.
  if value == false or there and string.sub(value, 1, #owner) == owner then
    redis.call('HDEL', KEYS[place], record)
    put_aside(KEYS[place + 1], record, GONE)
    changed[KEYS[place]] = true
    if there and owner == '' then report_loss(lease_of(value)) end
  end
end
for i = 3, 2 + leases do end_if_empty(string.sub(KEYS[1], 1, -7), ARGV[i]) end
tell(changed)
return redis.status_reply('OK')
""")

LOOKUP: Final = Script("""
-- KEYS: leases, since, and for each key itself and its aside.
-- Returns the seconds since everything was told, or nothing, and for each key
-- {{record, when registered, time to live, set aside for}…}, {gone…}, {garbage…}; or an error.
local since = redis.pcall('GET', KEYS[2])
local age = type(since) == 'string' and tonumber(since)
local found = {age and text(now - age) or ''}
for i = 3, #KEYS, 2 do found[#found + 1] = standings(KEYS[i], KEYS[i + 1]) end
return found
""")

SET_ASIDE: Final = Script("""
-- KEYS: leases, and for each key itself and its aside.
-- ARGV: for each record the place of its key in KEYS, itself, and the seconds; 0: back.
begin_writing()
local changed = {}
for i = 1, #ARGV, 3 do
  local key, aside = KEYS[tonumber(ARGV[i])], KEYS[tonumber(ARGV[i]) + 1]
  local record, pause = ARGV[i + 1], tonumber(ARGV[i + 2])
  if redis.call('HEXISTS', key, record) == 1 then
    local before = tonumber(redis.call('ZSCORE', aside, record) or 0)
    if pause == 0 then redis.call('ZREM', aside, record)
    elseif before < now + pause then
      put_aside(aside, record, pause)
    end
    if (before > now) ~= (pause > 0) then changed[key] = true end
  end
end
tell(changed)
return redis.status_reply('OK')
""")

SURVEY: Final = Script("""
-- KEYS: leases, since.  Returns for each key its name, and what LOOKUP returns for it.
local prefix = string.sub(KEYS[1], 1, -7)
local seen, found = {}, {}
for _, lease in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  for _, key in ipairs(redis.call('SMEMBERS', prefix .. 'lease:' .. lease)) do
    if not seen[key] then
      seen[key] = true
      local aside = prefix .. 'aside:' .. string.sub(key, #prefix + 1)
      found[#found + 1] = {key, standings(key, aside)}
    end
  end
end
return found
""")
