-- Begins a merchant's log with the ledger's identity. KEYS: log. ARGV: the identity.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return {'done'} end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'lost', 'merchant'} end
redis.call('ZADD', KEYS[1], '-inf', ARGV[1])
return {'done'}
