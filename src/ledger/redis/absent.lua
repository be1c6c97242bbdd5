-- Says why an order has no record: there never was one, it is past its retention, or it was forgotten. Writes nothing.
-- KEYS: order, log. ARGV: the ledger's identity, order number, the ms from which on the record of whatever is in the log must
--       be there.
local stored = redis.call('HGET', KEYS[1], 'r')
if stored then return {'exists', stored} end
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
    if redis.call('EXISTS', KEYS[2]) == 1 then return {'lost', 'merchant'} end
    return {'strange'}
end
local logged = redis.call('ZSCORE', KEYS[2], ARGV[2])
if logged and tonumber(logged) >= tonumber(ARGV[3]) then return {'lost', 'order'} end
return {'none'}
