-- Puts the ledger's identity into a merchant's log, replaces any other, and removes orders that a person has given up.
-- KEYS: due, log. ARGV: identity, then order numbers.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '-inf')) do
    if string.sub(member, 1, 1) == '#' and member ~= ARGV[1] then redis.call('ZREM', KEYS[2], member) end
end
redis.call('ZADD', KEYS[2], '-inf', ARGV[1])
for i = 2, #ARGV do
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('ZREM', KEYS[1], ARGV[i])
end
return {'done'}
