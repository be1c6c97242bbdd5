-- Records a new order with its charges, or says what is there already. Holds no rule: it compares and writes.
-- KEYS: order, due, log, then one key per charge.
-- ARGV: record, due ms or "", order number, created ms, expiry ms or "", version,
--       then per charge: amount, limit, its place, its expiry ms.
local stored = redis.call('HGET', KEYS[1], 'r')
if stored then
    -- The very same claim, written again after its acknowledgement was lost. It is written once more, so that waiting for
    -- replicas on this connection waits for it.
    if stored == ARGV[1] then
        redis.call('HSET', KEYS[1], 'r', ARGV[1])
        return {'done'}
    end
    return {'exists', stored}
end
for i = 4, #KEYS do
    local at = 7 + (i - 4) * 4
    local sum = tonumber(redis.call('GET', KEYS[i]) or '0')
    if sum + tonumber(ARGV[at]) > tonumber(ARGV[at + 1]) then return {'over', ARGV[at + 2]} end
end
for i = 4, #KEYS do
    local at = 7 + (i - 4) * 4
    redis.call('INCRBY', KEYS[i], ARGV[at])
    redis.call('PEXPIRE', KEYS[i], ARGV[at + 3])
end
redis.call('HSET', KEYS[1], 'v', ARGV[6], 'r', ARGV[1])
if ARGV[5] ~= '' then redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
if ARGV[2] ~= '' then redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3]) end
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[3])
return {'done'}
