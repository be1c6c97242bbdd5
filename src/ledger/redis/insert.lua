-- Records a new order with its charges, or says what is there already, or that it was forgotten. Holds no rule.
-- KEYS: order, due, log, then one key per charge.
-- ARGV: what the claim pins, what changes, due ms or "", order number, created ms, expiry ms or "", the ledger's identity, the
--       ms from which on the record of whatever is in the log must be there, then per charge: amount, limit, its place, its
--       expiry ms.
-- Whether the log is the ledger's is asked by a write that changes nothing, so that this is told at once whether it may write
-- at all. Where it may not, what is there is told all the same. The 0 is a text, since Redis prints a number digit by digit.
local score = redis.pcall('ZADD', KEYS[3], 'XX', 'INCR', '0', ARGV[7])
local forbidden = type(score) == 'table' and score.err and score
if forbidden then score = redis.call('ZSCORE', KEYS[3], ARGV[7]) end
if not score then return {'lost', 'merchant'} end
local stored = redis.call('HMGET', KEYS[1], 'p', 'c')
local is_there = stored[1] or stored[2]
local logged = redis.call('ZSCORE', KEYS[3], ARGV[4])
if is_there and (stored[1] ~= ARGV[1] or stored[2] ~= ARGV[2]) then return {'exists', stored[1], stored[2]} end
if is_there and logged then
    -- The very same claim, written again after its acknowledgement was lost. Something of it is written once more, so that
    -- waiting for replicas on this connection waits for it.
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
