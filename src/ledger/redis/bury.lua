-- Notes that a ledger was lost, unless there is one. KEYS: ledger. ARGV: the lost ledger's identity.
if redis.call('HEXISTS', KEYS[1], 'id') == 0 then redis.call('HSETNX', KEYS[1], 'lost', ARGV[1]) end
return {'done'}
