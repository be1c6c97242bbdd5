-- Tries every command of the other scripts on keys of its own, and names the first that Redis refuses.
-- KEYS: a hash, a sorted set, a number.
local refused = false
local function tried(command, answer)
    if not refused and type(answer) == 'table' and answer['err'] then refused = {'refused', command, answer['err']} end
end
tried('HSET', redis.pcall('HSET', KEYS[1], 'p', '', 'c', ''))
tried('PERSIST', redis.pcall('PERSIST', KEYS[1]))
tried('PEXPIRE', redis.pcall('PEXPIRE', KEYS[1], 60000))
tried('HMGET', redis.pcall('HMGET', KEYS[1], 'p', 'c'))
tried('EXISTS', redis.pcall('EXISTS', KEYS[1]))
tried('ZADD', redis.pcall('ZADD', KEYS[2], '-inf', '#'))
tried('PEXPIRE', redis.pcall('PEXPIRE', KEYS[2], 60000))
tried('ZSCORE', redis.pcall('ZSCORE', KEYS[2], '#'))
tried('ZRANGEBYSCORE', redis.pcall('ZRANGEBYSCORE', KEYS[2], '-inf', '0', 'WITHSCORES', 'LIMIT', 0, 1))
tried('ZREM', redis.pcall('ZREM', KEYS[2], '#'))
tried('SET', redis.pcall('SET', KEYS[3], '0', 'PX', 60000))
tried('SET', redis.pcall('SET', KEYS[3], '0', 'KEEPTTL'))
tried('GET', redis.pcall('GET', KEYS[3]))
tried('INCRBY', redis.pcall('INCRBY', KEYS[3], 1))
tried('DEL', redis.pcall('DEL', KEYS[1]))
tried('DEL', redis.pcall('DEL', KEYS[2]))
tried('DEL', redis.pcall('DEL', KEYS[3]))
return refused or {'done'}
