-- Replaces one version of an order by its successor, with what is charged and given back. Holds no rule.
-- KEYS: order, due, log, what was charged again, then one key per charge, then one per return.
-- ARGV: what changes, due ms or "", order number, version that is replaced, expiry ms or "", the ledger's identity where it
--       is compared or "", now ms, how many charges, then per charge: amount, limit, its place, its expiry ms; then per
--       return: amount.
if ARGV[6] ~= '' and not redis.call('ZSCORE', KEYS[3], ARGV[6]) then return {'lost', 'merchant'} end
local stored = redis.call('HMGET', KEYS[1], 'p', 'c')
if not (stored[1] or stored[2]) then return {'gone'} end
-- Both parts of a record begin with its format and its claim; behind them, in what changes, stands the version. What changes is
-- written beside its own claim's part only.
local claim = string.match(ARGV[1], '^[^,]*,[^,]*,')
local begin = claim .. '"version":"' .. ARGV[4] .. '",'
local is_ours = stored[1] and stored[2] and string.sub(stored[1], 1, #claim) == claim
local is_written = stored[2] == ARGV[1]
if not is_ours or not (is_written or string.sub(stored[2], 1, #begin) == begin) then
    return {'moved', stored[1], stored[2]}
end
-- Whether this may write at all is seen by a write that changes nothing.
redis.call('ZADD', KEYS[3], 'XX', '-inf', '#')
if not is_written then
    local charges = tonumber(ARGV[8])
    local sums = {}
    for i = 1, charges do
        local at = 9 + (i - 1) * 4
        sums[i] = tonumber(redis.call('GET', KEYS[4 + i]) or '0') + tonumber(ARGV[at])
        if sums[i] > tonumber(ARGV[at + 1]) then return {'over', ARGV[at + 2]} end
    end
    -- So is whether the record may be written: a sum that was changed is not changed again where the record then is not.
    if #KEYS > 4 then redis.call('HSET', KEYS[1], 'c', stored[2]) end
    if charges > 0 then
        redis.call('ZADD', KEYS[4], ARGV[7], ARGV[3])
        redis.call('PEXPIRE', KEYS[4], ARGV[12])
    end
    for i = 1, charges do
        redis.call('SET', KEYS[4 + i], string.format('%.0f', sums[i]), 'PX', ARGV[9 + (i - 1) * 4 + 3])
    end
    for i = 1, #KEYS - 4 - charges do
        local key = KEYS[4 + charges + i]
        local sum = tonumber(redis.call('GET', key) or '0')
        local left = math.max(0, sum - tonumber(ARGV[8 + charges * 4 + i]))
        -- A sum of a day gone by is gone too, and none falls below nothing.
        if sum > 0 then redis.call('SET', key, string.format('%.0f', left), 'KEEPTTL') end
    end
end
-- What follows is done again where the acknowledgement was lost: for those who wait for replicas, and where it was stopped.
redis.call('HSET', KEYS[1], 'c', ARGV[1])
if ARGV[2] == '' then
    redis.call('ZREM', KEYS[2], ARGV[3])
else
    redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])
end
if ARGV[5] == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
return {'done'}
