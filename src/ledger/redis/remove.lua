-- Removes one version of an order and gives its charges back. Holds no rule.
-- KEYS: order, due, log, then one key per return. ARGV: version, order number, then per return: amount.
local stored = redis.call('HMGET', KEYS[1], 'v', 'r')
if not stored[1] then return {'gone'} end
if stored[1] ~= ARGV[1] then return {'moved', stored[2]} end
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
