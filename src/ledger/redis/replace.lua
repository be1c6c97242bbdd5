-- Replaces one version of an order by the next, with its charges and returns. Makes no decision.
-- KEYS: order, due; and if the order is due again or a sum changes: log, orders charged again, then one key per charge,
-- then one per return.
-- ARGV: changing part, due ms or "", order number, prefix of both parts of the record, prefix of the changing part to
-- replace, expiry ms or ""; with a log: ledger's identity to check or "", now ms, how many charges, then per charge:
-- amount, limit, its index, its expiry ms; then per return: amount.
local log = KEYS[3]
if log and ARGV[7] ~= '' and not redis.call('ZSCORE', log, ARGV[7]) then return {'lost', 'merchant'} end
local stored = redis.call('HMGET', KEYS[1], 'p', 'c')
if not (stored[1] or stored[2]) then return {'gone'} end
-- Both parts of a record begin with format and claim; in the changing part the version follows. Write a changing part
-- only beside the pinned part of its own claim.
local is_ours = stored[1] and stored[2] and string.find(stored[1], ARGV[4], 1, true) == 1
local is_written = stored[2] == ARGV[1]
if not is_ours or not (is_written or string.find(stored[2], ARGV[5], 1, true) == 1) then
    return {'moved', stored[1], stored[2]}
end
-- This write changes nothing, but shows whether Redis accepts writes. Without a log the HSET below is the first write.
if log then redis.call('ZADD', log, 'XX', '-inf', '#') end
if log and not is_written then
    local charges = tonumber(ARGV[9])
    local sums = {}
    for i = 1, charges do
        local at = 10 + (i - 1) * 4
        sums[i] = tonumber(redis.call('GET', KEYS[4 + i]) or '0') + tonumber(ARGV[at])
        if sums[i] > tonumber(ARGV[at + 1]) then return {'over', ARGV[at + 2]} end
    end
    -- The same for the record: otherwise a refused record would leave changed sums, and a repetition would change them
    -- again.
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
        -- The sum of a past day is gone already, and no sum becomes negative.
        if sum > 0 then redis.call('SET', key, string.format('%.0f', left), 'KEEPTTL') end
    end
end
-- A repetition after a lost acknowledgement, or after a stopped script, runs these again, also so that WAIT waits for
-- them.
redis.call('HSET', KEYS[1], 'c', ARGV[1])
if ARGV[2] == '' then
    redis.call('ZREM', KEYS[2], ARGV[3])
else
    redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])
end
if ARGV[6] == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[6]) end
return {'done'}
