-- Records a new order with its charges, or returns the existing record, or reports that it was lost. Makes no decision.
-- KEYS: order, due, log, then one key per charge.
-- ARGV: pinned part, changing part, due ms or "", order number, created ms, expiry ms or "", ledger's identity, ms from
-- which on every order in the log must have a record, then per charge: amount, limit, its index, its expiry ms.
-- This ZADD checks that the log has the ledger's identity and changes nothing, but as a write it also shows whether
-- Redis accepts writes. If not, the script still reports an existing record. '0' is a string, because Redis would
-- format a number digit by digit, which is slower.
local score = redis.pcall('ZADD', KEYS[3], 'XX', 'INCR', '0', ARGV[7])
local forbidden = type(score) == 'table' and score.err and score
if forbidden then score = redis.call('ZSCORE', KEYS[3], ARGV[7]) end
if not score then return {'lost', 'merchant'} end
local stored = redis.call('HMGET', KEYS[1], 'p', 'c')
local is_there = stored[1] or stored[2]
local logged = redis.call('ZSCORE', KEYS[3], ARGV[4])
if is_there and (stored[1] ~= ARGV[1] or stored[2] ~= ARGV[2]) then return {'exists', stored[1], stored[2]} end
if is_there and logged then
    -- The same claim again after its acknowledgement was lost. Write a part of it once more, so that WAIT on this
    -- connection waits for it.
    redis.call('HSET', KEYS[1], 'c', ARGV[2])
    return {'done'}
end
if not is_there and logged and tonumber(logged) >= tonumber(ARGV[8]) then return {'lost', 'order'} end
local sums = {}
for i = 4, #KEYS do
    local at = 9 + (i - 4) * 4
    sums[i] = tonumber(redis.call('GET', KEYS[i]) or '0') + tonumber(ARGV[at])
    if sums[i] > tonumber(ARGV[at + 1]) then return {'over', ARGV[at + 2]} end
end
if forbidden then return forbidden end
-- The log comes last: an order that is in it has everything else.
redis.call('HSET', KEYS[1], 'p', ARGV[1], 'c', ARGV[2])
if ARGV[3] ~= '' then redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4]) end
if ARGV[6] ~= '' then redis.call('PEXPIRE', KEYS[1], ARGV[6]) end
for i = 4, #KEYS do
    redis.call('SET', KEYS[i], string.format('%.0f', sums[i]), 'PX', ARGV[9 + (i - 4) * 4 + 3])
end
redis.call('ZADD', KEYS[3], ARGV[5], ARGV[4])
return {'done'}
