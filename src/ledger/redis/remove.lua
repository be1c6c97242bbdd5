-- Removes one version of an order and returns its charges. Makes no decision.
-- KEYS: order, due, log, then one key per return.
-- ARGV: prefix of both parts of the record, prefix of the changing part, order number, then per return: amount.
local stored = redis.call('HMGET', KEYS[1], 'p', 'c')
if not (stored[1] or stored[2]) then return {'gone'} end
-- Both parts of a record begin with format and claim; in the changing part the version follows. A record that lacks a
-- part, or whose parts are of two claims, stays for a person to examine.
local is_ours = stored[1] and stored[2] and string.find(stored[1], ARGV[1], 1, true) == 1
if not is_ours or string.find(stored[2], ARGV[2], 1, true) ~= 1 then
    return {'moved', stored[1], stored[2]}
end
-- Only the log, which an insert writes last, proves that the order was charged.
local logged = redis.call('ZREM', KEYS[3], ARGV[3])
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[3])
if logged == 1 then
    for i = 4, #KEYS do
        local sum = tonumber(redis.call('GET', KEYS[i]) or '0')
        local left = math.max(0, sum - tonumber(ARGV[i]))
        if sum > 0 then redis.call('SET', KEYS[i], string.format('%.0f', left), 'KEEPTTL') end
    end
end
return {'done'}
