-- Replaces one version of an order by its successor, with what is charged and given back. Holds no rule.
-- KEYS: order, due, log, then one key per charge, then one per return.
-- ARGV: record, due ms or "", order number, version that is replaced, its successor, expiry ms or "", how many charges,
--       then per charge: amount, limit, its place, its expiry ms; then per return: amount.
local stored = redis.call('HMGET', KEYS[1], 'v', 'r')
if not stored[1] then return {'gone'} end
if stored[2] == ARGV[1] then
    -- Written again after its acknowledgement was lost: once more, for those who wait for replicas.
    redis.call('HSET', KEYS[1], 'r', ARGV[1])
    return {'done'}
end
if stored[1] ~= ARGV[4] then return {'moved', stored[2]} end
local charges = tonumber(ARGV[7])
for i = 1, charges do
    local at = 8 + (i - 1) * 4
    local sum = tonumber(redis.call('GET', KEYS[3 + i]) or '0')
    if sum + tonumber(ARGV[at]) > tonumber(ARGV[at + 1]) then return {'over', ARGV[at + 2]} end
end
for i = 1, charges do
    local at = 8 + (i - 1) * 4
    redis.call('INCRBY', KEYS[3 + i], ARGV[at])
    redis.call('PEXPIRE', KEYS[3 + i], ARGV[at + 3])
end
for i = 1, #KEYS - 3 - charges do
    local key = KEYS[3 + charges + i]
    local amount = tonumber(ARGV[7 + charges * 4 + i])
    local sum = tonumber(redis.call('GET', key) or '0')
    -- A sum of a day gone by is gone too, and none falls below nothing.
    if sum > 0 then redis.call('DECRBY', key, math.min(sum, amount)) end
end
redis.call('HSET', KEYS[1], 'v', ARGV[5], 'r', ARGV[1])
if ARGV[6] == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[6]) end
if ARGV[2] == '' then redis.call('ZREM', KEYS[2], ARGV[3]) else redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3]) end
return {'done'}
