-- Notes how far the making of a merchant's log has come, and says how far that is. It never goes back.
-- KEYS: ledger. ARGV: the ledger's identity, the merchant's field, "making" or "made".
local stored = redis.call('HMGET', KEYS[1], 'id', ARGV[2])
if stored[1] ~= ARGV[1] then return {'other'} end
if stored[2] == 'made' or stored[2] == ARGV[3] then return {stored[2]} end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
return {ARGV[3]}
