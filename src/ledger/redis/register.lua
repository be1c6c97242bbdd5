-- Records whether a merchant's log is being made or is made, never backwards, and returns the state.
-- KEYS: ledger. ARGV: ledger's identity, merchant's field, "making" or "made".
local stored = redis.call('HMGET', KEYS[1], 'id', ARGV[2])
if stored[1] ~= ARGV[1] then return {'other'} end
if stored[2] == 'made' or stored[2] == ARGV[3] then return {stored[2]} end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
return {ARGV[3]}
