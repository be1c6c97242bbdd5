//! WeChat Pay v3 as WeChat documents it: transfer bills, their query and cancellation, and platform
//! certificates. The fake signs every response. `keys` holds the keys, `notify` sends notifications.

mod keys;
mod notify;

use std::collections::BTreeMap;

use axum::response::{AppendHeaders, IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use serde_json::{Value, json};

use super::books::{Books, Paid, Payment};
use super::call::Call;
use super::{Failure, World};

pub(crate) use self::keys::V3Keys;
pub use self::keys::{APIV3_KEY, BillKeys, PUBLIC_KEY_ID};
pub(super) use self::notify::notify;

/// A fault in the signature of a response or a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Spoilt {
    /// A valid signature of other bytes.
    Signature,
    /// An unknown serial.
    Serial,
    /// A valid signature that is ten minutes old.
    Stale,
    /// No signature.
    Absent,
    /// WeChat's own probe (`WECHATPAY/SIGNTEST/`), which is not a valid signature.
    Probe,
    /// A body that changed after signing.
    Body,
}

impl Spoilt {
    pub(super) fn of(word: &str) -> Result<Self, serde::de::value::Error> {
        Self::deserialize(word.into_deserializer())
    }
}

/// A documented parameter of a bill: its name, its length limit in characters, and whether it is required.
const PARAMETERS: &[(&str, usize, bool)] = &[
    ("appid", 32, true),
    ("out_bill_no", 32, true),
    ("transfer_scene_id", 36, true),
    ("openid", 64, true),
    ("user_name", 1024, false),
    ("transfer_amount", 10, true),
    ("transfer_remark", 32, true),
    ("notify_url", 256, false),
    ("user_recv_perception", 32, false),
    ("transfer_scene_report_infos", 1024, true),
    ("user_recv_style", 64, false),
];

/// The caller of a v3 call, and the fault in its request, if any.
pub(super) struct Asker {
    pub(super) mch_id: String,
    wants_serial: String,
    wrong: Option<(u16, &'static str, &'static str)>,
}

impl Asker {
    pub(super) fn of(head: &Parts, body: &[u8], world: &World) -> Self {
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let mut items = BTreeMap::new();
        let authorization = header("authorization").unwrap_or_default();
        if let Some(given) = authorization.strip_prefix("WECHATPAY2-SHA256-RSA2048 ") {
            for (name, value) in given.split(',').filter_map(|item| item.split_once('=')) {
                items.insert(name.trim().to_owned(), value.trim_matches('"').to_owned());
            }
        }
        let item = |name: &str| items.get(name).map_or("", String::as_str);
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut message = format!(
            "{}\n{path}\n{}\n{}\n",
            head.method,
            item("timestamp"),
            item("nonce_str")
        )
        .into_bytes();
        message.extend_from_slice(body);
        message.push(b'\n');
        let mch_id = item("mchid").to_owned();
        let is_signed = world
            .v3
            .verifies(&mch_id, item("serial_no"), &message, item("signature"));
        let age = item("timestamp")
            .parse::<i64>()
            .map_or(i64::MAX, |at| now().saturating_sub(at).saturating_abs());
        let is_json = |name: &str| header(name).is_some_and(|value| value.starts_with("application/json"));
        let wrong = if header("user-agent").is_none() || !is_json("accept") {
            Some((400, "INVALID_REQUEST", "Http头缺少Accept或User-Agent"))
        } else if head.method == Method::POST && !is_json("content-type") {
            Some((400, "PARAM_ERROR", "Content-Type"))
        } else if !is_signed || age > 300 || item("nonce_str").is_empty() {
            Some((401, "SIGN_ERROR", "签名错误"))
        } else {
            None
        };
        Self {
            mch_id,
            wants_serial: header("wechatpay-serial").unwrap_or_default().to_owned(),
            wrong,
        }
    }
}

pub(super) fn answer(
    call: &Call,
    asker: &Asker,
    world: &World,
    wrong_amount: bool,
    spoilt: Option<Spoilt>,
) -> Response {
    let (status, body) = match asker.wrong {
        Some((status, code, text)) => (status, error(code, text)),
        None => match call.name {
            "certificates" => certificates(world),
            "transfer-bills" => pay(call, asker, world, wrong_amount),
            "query-bill" => query(call, asker, world, wrong_amount),
            _ => cancel(call, asker, world),
        },
    };
    respond(asker, world, status, &body, spoilt)
}

/// A failure, with the HTTP status of its code.
pub(super) fn failure(asker: &Asker, world: &World, code: &str, spoilt: Option<Spoilt>) -> Response {
    let status = match code {
        "SIGN_ERROR" => 401,
        "NO_AUTH" | "NOT_ENOUGH" | "RULE_LIMIT" => 403,
        "NOT_FOUND" | "RESOURCE_NOT_EXISTS" => 404,
        "FREQUENCY_LIMITED" | "RATELIMIT_EXCEEDED" => 429,
        "SYSTEM_ERROR" => 500,
        "SERVICE_UNAVAILABLE" => 503,
        _ => 400,
    };
    respond(asker, world, status, &error(code, "injected"), spoilt)
}

fn error(code: &str, text: &str) -> Value {
    json!({ "code": code, "message": text })
}

/// Signs with the key that the request names in `Wechatpay-Serial`, else with the current platform certificate.
fn respond(asker: &Asker, world: &World, status: u16, body: &Value, spoilt: Option<Spoilt>) -> Response {
    let text = body.to_string();
    let headers = match sign(world, asker.wants_serial == PUBLIC_KEY_ID, &text, spoilt) {
        Ok(headers) => AppendHeaders(headers),
        Err(why) => return (StatusCode::INTERNAL_SERVER_ERROR, why.to_string()).into_response(),
    };
    let text = match spoilt {
        Some(Spoilt::Body) => text.replace('}', " }"),
        Some(_) | None => text,
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    (status, [(CONTENT_TYPE, "application/json")], headers, text).into_response()
}

/// Signs a text and returns the headers.
fn sign(
    world: &World,
    by_public_key: bool,
    text: &str,
    spoilt: Option<Spoilt>,
) -> Result<Vec<(&'static str, String)>, Failure> {
    if spoilt == Some(Spoilt::Absent) {
        return Ok(Vec::new());
    }
    let back = if spoilt == Some(Spoilt::Stale) { 600 } else { 0 };
    let timestamp = now().saturating_sub(back).to_string();
    let nonce = format!("{:032x}", rand::random::<u128>());
    let message = format!("{timestamp}\n{nonce}\n{text}\n");
    let signer = if by_public_key {
        world.v3.public()?
    } else {
        world.v3.platform()?
    };
    let (serial, signature) = (signer.serial.clone(), signer.sign(message.as_bytes()));
    let (serial, signature) = match spoilt {
        Some(Spoilt::Signature) => (serial, world.v3.public()?.sign(b"something else")),
        Some(Spoilt::Serial) => ("5F00000000000000000000000000000000000001".to_owned(), signature),
        Some(Spoilt::Probe) => (serial, format!("WECHATPAY/SIGNTEST/{signature}")),
        Some(Spoilt::Stale | Spoilt::Absent | Spoilt::Body) | None => (serial, signature),
    };
    Ok(vec![
        ("wechatpay-timestamp", timestamp),
        ("wechatpay-nonce", nonce),
        ("wechatpay-serial", serial),
        ("wechatpay-signature", signature),
        ("wechatpay-signature-type", "WECHATPAY2-SHA256-RSA2048".to_owned()),
        ("request-id", "stub".to_owned()),
    ])
}

fn certificates(world: &World) -> (u16, Value) {
    match world.v3.platform() {
        Ok(platform) => (
            200,
            json!({ "data": [{
                "serial_no": platform.serial,
                "effective_time": "2026-01-01T00:00:00+08:00",
                "expire_time": "2031-01-01T00:00:00+08:00",
                "encrypt_certificate": keys::seal(&platform.pem, "certificate"),
            }] }),
        ),
        Err(why) => (500, error("SYSTEM_ERROR", &why.to_string())),
    }
}

fn check(call: &Call) -> Result<i64, (&'static str, &'static str)> {
    let param = |text| Err(("PARAM_ERROR", text));
    if call.fields.is_empty() {
        return param("请求的JSON格式错误");
    }
    for name in call.fields.keys() {
        if !PARAMETERS.iter().any(|(known, _, _)| known == name) {
            return param("未知参数");
        }
    }
    for (name, most, required) in PARAMETERS {
        let value = call.field(name);
        if (*required && value.is_empty()) || value.chars().count() > *most {
            return param("参数错误");
        }
    }
    if call
        .fields
        .values()
        .any(|value| value.chars().any(|c| c.len_utf8() > 3))
    {
        return param("存在不支持的字符");
    }
    if !call.order_no.bytes().all(|b| b.is_ascii_alphanumeric()) || call.field("notify_url").contains('?') {
        return param("参数错误");
    }
    let Ok(amount) = call.field("transfer_amount").parse::<i64>() else {
        return param("金额错误");
    };
    if amount >= 200_000 && call.field("user_name").is_empty() {
        return param("需传入收款用户姓名");
    }
    let reports: Vec<Value> =
        serde_json::from_str(call.field("transfer_scene_report_infos")).unwrap_or_default();
    let kinds: Vec<&str> = reports
        .iter()
        .filter_map(|report| report.get("info_type")?.as_str())
        .collect();
    let contents = reports
        .iter()
        .filter_map(|report| report.get("info_content")?.as_str());
    if contents.clone().count() != kinds.len()
        || contents
            .map(|text| text.chars().count())
            .any(|length| length == 0 || length > 32)
        || (call.field("transfer_scene_id") == "1000" && kinds != ["活动名称", "奖励说明"])
    {
        return param("需传入转账场景报备信息");
    }
    if amount < 10 {
        return Err(("INVALID_REQUEST", "超过单笔转账上下限"));
    }
    Ok(amount)
}

fn pay(call: &Call, asker: &Asker, world: &World, wrong: bool) -> (u16, Value) {
    let amount = match check(call) {
        Ok(amount) => amount,
        Err((code, text)) => return (400, error(code, text)),
    };
    let payment = Payment {
        endpoint: call.name.to_owned(),
        mch_id: asker.mch_id.clone(),
        order_no: call.order_no.clone(),
        openid: call.field("openid").to_owned(),
        amount,
        number: String::new(),
        paid_at: String::new(),
        parameters: call.fields.clone(),
    };
    let mut books = world.books();
    let payment = match books.pay_once(payment) {
        Paid::Once(payment) => payment,
        Paid::Conflict => return (400, error("INVALID_REQUEST", "单号已存在但信息不一致")),
    };
    let state = state(&books, &call.order_no);
    drop(books);
    let mut bill = bill(&payment, &state);
    if wrong {
        bill.insert("out_bill_no", format!("{}X", payment.order_no).into());
    }
    if state == "WAIT_USER_CONFIRM" {
        bill.insert("package_info", format!("stub-package-{}", payment.number).into());
    }
    (200, json!(bill))
}

fn query(call: &Call, asker: &Asker, world: &World, wrong: bool) -> (u16, Value) {
    let books = world.books();
    let Some(payment) = books.find(&asker.mch_id, &call.order_no) else {
        return (404, error("NOT_FOUND", "记录不存在"));
    };
    let mut told = bill(payment, &state(&books, &call.order_no));
    describe(&mut told, payment, i64::from(wrong));
    (200, json!(told))
}

fn cancel(call: &Call, asker: &Asker, world: &World) -> (u16, Value) {
    let mut books = world.books();
    let Some(payment) = books.find(&asker.mch_id, &call.order_no).cloned() else {
        return (404, error("NOT_FOUND", "记录不存在"));
    };
    match &*state(&books, &call.order_no) {
        "ACCEPTED" | "PROCESSING" | "WAIT_USER_CONFIRM" => {
            books.set_status(&call.order_no, "CANCELLED");
            (200, json!(bill(&payment, "CANCELING")))
        }
        word @ ("CANCELING" | "CANCELLED") => (200, json!(bill(&payment, word))),
        _ => (400, error("INVALID_REQUEST", "当前状态不允许撤销")),
    }
}

/// The state of a bill. It waits for its user until `/_stub/status` sets another state.
fn state(books: &Books, order_no: &str) -> String {
    books.status(order_no).unwrap_or("WAIT_USER_CONFIRM").to_owned()
}

type Bill = BTreeMap<&'static str, Value>;

fn bill(payment: &Payment, state: &str) -> Bill {
    let mut bill = Bill::from([
        ("out_bill_no", payment.order_no.as_str().into()),
        ("transfer_bill_no", payment.number.as_str().into()),
        ("create_time", rfc3339(&payment.paid_at).into()),
        ("state", state.into()),
    ]);
    if state == "FAIL" {
        bill.insert("fail_reason", "OVERDUE_CLOSE".into());
    }
    bill
}

/// Adds what a query and a notification say besides the state.
fn describe(bill: &mut Bill, payment: &Payment, more: i64) {
    let parameter = |name: &str| payment.parameters.get(name).map_or("", String::as_str).into();
    bill.extend([
        ("mch_id", payment.mch_id.as_str().into()),
        ("appid", parameter("appid")),
        ("openid", payment.openid.as_str().into()),
        ("transfer_remark", parameter("transfer_remark")),
        ("update_time", rfc3339(&payment.paid_at).into()),
        ("transfer_amount", payment.amount.saturating_add(more).into()),
    ]);
}

fn rfc3339(beijing: &str) -> String {
    format!("{}+08:00", beijing.replace(' ', "T"))
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
