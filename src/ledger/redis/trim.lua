-- Removes an order from the log if its record is past its retention. KEYS: order, log.
-- ARGV: order number, ms from which on every order in the log must have a record.
local logged = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not logged or tonumber(logged) >= tonumber(ARGV[2]) then return {'kept'} end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'kept'} end
redis.call('ZREM', KEYS[2], ARGV[1])
return {'done'}
