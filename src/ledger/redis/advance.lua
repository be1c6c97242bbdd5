-- Advances the ledger's time, never backwards. KEYS: ledger. ARGV: ledger's identity, ms.
local stored = redis.call('HMGET', KEYS[1], 'id', 't')
if stored[1] ~= ARGV[1] then return {'other'} end
if tonumber(stored[2] or '0') < tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], 't', ARGV[2]) end
return {'done'}
