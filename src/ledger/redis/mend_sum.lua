-- Sets a sum if it is still unchanged. KEYS: sum. ARGV: old value, new value, its expiry ms.
if (redis.call('GET', KEYS[1]) or '0') ~= ARGV[1] then return {'moved'} end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return {'done'}
