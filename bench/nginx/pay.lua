-- The sidecar's job in nginx: check, look the openid up (kept for 60 s), claim in Redis, forward, record, answer.
local cjson = require "cjson.safe"
local redis = require "nginx.redis"
redis.add_commands("evalsha")

local LEDGER = @LEDGER@
local CLAIM = [[
if redis.call("EXISTS", KEYS[1]) == 1 then return redis.call("HGET", KEYS[1], "r") end
redis.call("HSET", KEYS[1], "v", ARGV[2], "r", ARGV[1])
redis.call("ZADD", KEYS[2], ARGV[3], ARGV[4])
redis.call("ZADD", KEYS[3], ARGV[5], ARGV[4])
return false]]
local RECORD = [[
if redis.call("HGET", KEYS[1], "v") ~= ARGV[2] then return redis.call("HGET", KEYS[1], "r") end
redis.call("HSET", KEYS[1], "v", ARGV[3], "r", ARGV[1])
redis.call("PEXPIRE", KEYS[1], ARGV[5])
redis.call("ZREM", KEYS[2], ARGV[4])
return false]]

-- The script's digest, loaded once.
local function digest(db, script)
    local known = ngx.shared.openids:get(script)
    if not known then
        known = db:script("load", script)
        ngx.shared.openids:set(script, known)
    end
    return known
end

local function answer(fields)
    ngx.header["Content-Type"] = "application/json;charset=UTF-8"
    local text = cjson.encode(fields)
    ngx.header["Content-Length"] = #text
    ngx.print(text)
end

local function refuse(code, text)
    return answer({ returnCode = "SUCCESS", resultCode = "FAIL", errCode = code, errCodeDes = text })
end

ngx.req.read_body()
local fields = cjson.decode(ngx.req.get_body_data() or "")
if not fields then return answer({ returnCode = "FAIL", returnMsg = "no JSON" }) end
for _, name in ipairs({ "wxAppId", "mchId", "mchBillno", "openid", "tradeRecordId" }) do
    if not fields[name] then return answer({ returnCode = "FAIL", returnMsg = name }) end
end
local amount = tonumber(fields.amount)
if not amount or amount < 1 or amount % 1 ~= 0 then return answer({ returnCode = "FAIL", returnMsg = "amount" }) end

local db = redis:new()
db:set_timeout(2000)
if not db:connect("127.0.0.1", @REDIS_PORT@) then return refuse("SYSTEMERROR", "redis") end

local user = fields.openid
local name = "openid:" .. fields.wxAppId .. ":" .. user
local openid = ngx.shared.openids:get(name)
if not openid then
    openid = db:get(name)
    if not openid or openid == ngx.null then return refuse("PARAM_ERROR", "openid") end
    ngx.shared.openids:set(name, openid, 60)
end

local at = ngx.now() * 1000
local tag = "payout:{" .. fields.mchId .. "}:"
local key, due, log = tag .. "order:" .. fields.mchBillno, tag .. "due", tag .. "log"
local record = {
    state = "pending", wxAppId = fields.wxAppId, user = user, openid = openid, amount = amount,
    actName = fields.actName, remark = fields.remark, clientIp = "203.0.113.7", createdAt = at,
}
if LEDGER then
    local claimed, wrong = db:evalsha(digest(db, CLAIM), 3, key, due, log, cjson.encode(record), "1", at + 30000, fields.mchBillno, at)
    if wrong then return refuse("SYSTEMERROR", wrong) end
    if claimed ~= ngx.null then return answer(cjson.decode(claimed).answer or { returnCode = "FAIL" }) end
end

fields.openid = openid
fields.clientIp = "203.0.113.7"
local got = ngx.location.capture("/upstream", { method = ngx.HTTP_POST, body = cjson.encode(fields) })
local paid = got.status == 200 and cjson.decode(got.body)
if not paid then return refuse("SYSTEMERROR", "upstream") end
local said = {
    returnCode = paid.returnCode, returnMsg = paid.returnMsg, resultCode = paid.resultCode, errCode = paid.errCode,
    mchBillno = fields.mchBillno, mchId = fields.mchId, wxAppId = fields.wxAppId, openid = user, amount = amount,
}
if LEDGER then
    record.state, record.answer = "succeeded", said
    db:evalsha(digest(db, RECORD), 2, key, due, cjson.encode(record), "1", "2", fields.mchBillno, 34560000000)
end
db:set_keepalive(60000, 256)
answer(said)
