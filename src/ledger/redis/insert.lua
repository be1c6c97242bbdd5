-- Records a new order with its charges, or says what is there already, or that it was forgotten. Holds no rule.
-- KEYS: order, due, log, then one key per charge.
-- ARGV: record, due ms or "", order number, created ms, expiry ms or "", version, the ledger's identity, the ms from which on
--       the record of whatever is in the log must be there, then per charge: amount, limit, its place, its expiry ms.
if not redis.call('ZSCORE', KEYS[3], ARGV[7]) then return {'lost', 'merchant'} end
local stored = redis.call('HGET', KEYS[1], 'r')
local logged = redis.call('ZSCORE', KEYS[3], ARGV[3])
if stored and stored ~= ARGV[1] then return {'exists', stored} end
if stored and logged then
    -- The very same claim, written again after its acknowledgement was lost. It is written once more, so that waiting for
    -- replicas on this connection waits for it.
    redis.call('HSET', KEYS[1], 'r', ARGV[1])
    return {'done'}
end
if not stored and logged and tonumber(logged) >= tonumber(ARGV[8]) then return {'lost', 'order'} end
local sums = {}
for i = 4, #KEYS do
    local at = 9 + (i - 4) * 4
    sums[i] = tonumber(redis.call('GET', KEYS[i]) or '0') + tonumber(ARGV[at])
    if sums[i] > tonumber(ARGV[at + 1]) then return {'over', ARGV[at + 2]} end
end
-- Whether this may write at all is seen by a write that changes nothing. The log comes last: an order that is in it has
-- everything else.
redis.call('ZADD', KEYS[3], 'XX', '-inf', ARGV[7])
redis.call('HSET', KEYS[1], 'v', ARGV[6], 'r', ARGV[1])
if ARGV[2] ~= '' then redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3]) end
if ARGV[5] ~= '' then redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
for i = 4, #KEYS do
    redis.call('SET', KEYS[i], string.format('%.0f', sums[i]), 'PX', ARGV[9 + (i - 4) * 4 + 3])
end
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[3])
return {'done'}
