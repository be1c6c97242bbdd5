-- Hands out what is due, and hides it from the next one who asks.
-- KEYS: due. ARGV: now ms, hidden until ms, how many.
local members = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
for i = 1, #members, 2 do redis.call('ZADD', KEYS[1], ARGV[2], members[i]) end
return members
