-- Removes one version of an order and gives its charges back. Holds no rule.
-- KEYS: order, due, log, then one key per return. ARGV: version, order number, then per return: amount.
local stored = redis.call('HMGET', KEYS[1], 'v', 'p', 'c')
if not (stored[1] or stored[2] or stored[3]) then return {'gone'} end
-- Both parts of a record begin with its format and its claim, and behind them in one part stands the version. A record that is
-- not whole stays for a person to see.
local claim = stored[2] and string.match(stored[2], '^[^,]*,[^,]*,')
local is_whole = claim and stored[1] and stored[3]
    and string.find(stored[3], claim .. '"version":"' .. stored[1] .. '",', 1, true) == 1
if not is_whole or stored[1] ~= ARGV[1] then return {'moved', stored[1], stored[2], stored[3]} end
-- What is not in the log was stopped before it was charged.
local logged = redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[2])
if logged == 1 then
    for i = 4, #KEYS do
        local sum = tonumber(redis.call('GET', KEYS[i]) or '0')
        local left = math.max(0, sum - tonumber(ARGV[i - 1]))
        if sum > 0 then redis.call('SET', KEYS[i], string.format('%.0f', left), 'KEEPTTL') end
    end
end
return {'done'}
