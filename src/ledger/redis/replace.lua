-- Replaces one version of an order by its successor, with what is charged and given back. Holds no rule.
-- KEYS: order, due; and where the order is due again or a sum changes: log, what was charged again, then one key per charge,
--       then one per return.
-- ARGV: what changes, due ms or "", order number, how both parts of the record begin, how the changing one that is replaced
--       does, expiry ms or ""; with a log: the ledger's identity where it is compared or "", now ms, how many charges, then per
--       charge: amount, limit, its place, its expiry ms; then per return: amount.
local log = KEYS[3]
if log and ARGV[7] ~= '' and not redis.call('ZSCORE', log, ARGV[7]) then return {'lost', 'merchant'} end
local stored = redis.call('HMGET', KEYS[1], 'p', 'c')
if not (stored[1] or stored[2]) then return {'gone'} end
-- Both parts of a record begin with its format and its claim; behind them, in what changes, stands the version. What changes is
-- written beside its own claim's part only.
local is_ours = stored[1] and stored[2] and string.find(stored[1], ARGV[4], 1, true) == 1
local is_written = stored[2] == ARGV[1]
if not is_ours or not (is_written or string.find(stored[2], ARGV[5], 1, true) == 1) then
    return {'moved', stored[1], stored[2]}
end
-- Whether this may write at all is seen by a write that changes nothing; where only the record is written, by that.
if log then redis.call('ZADD', log, 'XX', '-inf', '#') end
if log and not is_written then
    local charges = tonumber(ARGV[9])
    local sums = {}
    for i = 1, charges do
        local at = 10 + (i - 1) * 4
        sums[i] = tonumber(redis.call('GET', KEYS[4 + i]) or '0') + tonumber(ARGV[at])
        if sums[i] > tonumber(ARGV[at + 1]) then return {'over', ARGV[at + 2]} end
    end
    -- So is whether the record may be written: a sum that was changed is not changed again where the record then is not.
    if #KEYS > 4 then redis.call('HSET', KEYS[1], 'c', stored[2]) end
    if charges > 0 then
        redis.call('ZADD', KEYS[4], ARGV[8], ARGV[3])
        redis.call('PEXPIRE', KEYS[4], ARGV[13])
    end
    for i = 1, charges do
        redis.call('SET', KEYS[4 + i], string.format('%.0f', sums[i]), 'PX', ARGV[10 + (i - 1) * 4 + 3])
    end
    for i = 1, #KEYS - 4 - charges do
        local key = KEYS[4 + charges + i]
        local sum = tonumber(redis.call('GET', key) or '0')
        local left = math.max(0, sum - tonumber(ARGV[9 + charges * 4 + i]))
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
if ARGV[6] == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[6]) end
return {'done'}
