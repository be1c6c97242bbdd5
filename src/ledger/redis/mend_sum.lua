-- Sets a sum, if it is still what it was. KEYS: sum. ARGV: what it was, what it is to be, its expiry ms.
if (redis.call('GET', KEYS[1]) or '0') ~= ARGV[1] then return {'moved'} end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return {'done'}
