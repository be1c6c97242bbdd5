-- Takes an order out of the log whose record is past its retention. KEYS: order, log. ARGV: order number, the ms from which on
-- the record of whatever is in the log must be there.
local logged = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not logged or tonumber(logged) >= tonumber(ARGV[2]) then return {'kept'} end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'kept'} end
redis.call('ZREM', KEYS[2], ARGV[1])
return {'done'}
