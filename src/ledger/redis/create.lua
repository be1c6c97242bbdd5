-- Creates a ledger if there is none. KEYS: ledger. ARGV: its identity, its time in ms.
if redis.call('EXISTS', KEYS[1]) == 1 then return {'exists'} end
redis.call('HSET', KEYS[1], 'id', ARGV[1], 't', ARGV[2])
return {'done'}
