-- Explains a missing record: it never existed, is past its retention, or was lost. Writes nothing.
-- KEYS: order, log. ARGV: ledger's identity, order number, ms from which on every order in the log must have a record.
local stored = redis.call('HMGET', KEYS[1], 'p', 'c')
if stored[1] or stored[2] then return {'exists', stored[1], stored[2]} end
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
    if redis.call('EXISTS', KEYS[2]) == 1 then return {'lost', 'merchant'} end
    return {'strange'}
end
local logged = redis.call('ZSCORE', KEYS[2], ARGV[2])
if logged and tonumber(logged) >= tonumber(ARGV[3]) then return {'lost', 'order'} end
return {'none'}
