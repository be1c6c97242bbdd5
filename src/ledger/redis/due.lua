-- Hands out due orders and hides them from the next caller.
-- KEYS: due, count handed out in this second. ARGV: now ms, hidden until ms, how many, limit per second or "".
local most = tonumber(ARGV[3])
if ARGV[4] ~= '' then
    local taken = tonumber(redis.call('GET', KEYS[2]) or '0')
    most = math.min(most, tonumber(ARGV[4]) - taken)
    if most <= 0 then return {} end
end
local members = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, most)
if ARGV[4] ~= '' and #members > 0 then
    if redis.call('SET', KEYS[2], #members / 2, 'NX', 'PX', 1000) == false then
        redis.call('INCRBY', KEYS[2], #members / 2)
    end
end
for i = 1, #members, 2 do redis.call('ZADD', KEYS[1], ARGV[2], members[i]) end
return members
