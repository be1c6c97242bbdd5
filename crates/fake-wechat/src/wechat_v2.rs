//! WeChat Pay v2 as WeChat documents it: red packets, transfers, and their queries.

use axum::response::Response;

use super::World;
use super::books::{Paid, Payment};
use super::call::{Call, Peer};
use super::signature::sign;
use super::wire::Map;

/// A documented field: its name, its length limit in characters, and whether it is required.
type Field = (&'static str, usize, bool);

const SIGNED: &[Field] = &[("nonce_str", 32, true), ("sign", 32, true)];
const PACKET: &[Field] = &[
    ("mch_billno", 28, true),
    ("mch_id", 32, true),
    ("wxappid", 32, true),
    ("send_name", 32, true),
    ("re_openid", 32, true),
    ("total_amount", 10, true),
    ("total_num", 1, true),
    ("wishing", 128, true),
    ("act_name", 32, true),
    ("remark", 256, true),
    ("scene_id", 32, false),
];
const SENDREDPACK: &[Field] = &[("client_ip", 15, true), ("risk_info", 128, false)];
const SENDMINIPROGRAMHB: &[Field] = &[("notify_way", 32, true)];
const TRANSFERS: &[Field] = &[
    ("mch_appid", 128, true),
    ("mchid", 32, true),
    ("partner_trade_no", 32, true),
    ("openid", 64, true),
    ("check_name", 16, true),
    ("amount", 10, true),
    ("desc", 100, true),
    ("spbill_create_ip", 32, true),
    ("re_user_name", 64, false),
    ("device_info", 32, false),
];
const GETHBINFO: &[Field] = &[
    ("mch_billno", 28, true),
    ("mch_id", 32, true),
    ("appid", 32, true),
    ("bill_type", 32, true),
];
const GETTRANSFERINFO: &[Field] = &[
    ("partner_trade_no", 32, true),
    ("mch_id", 32, true),
    ("appid", 128, true),
];

fn documented(name: &str) -> impl Iterator<Item = &'static Field> + Clone {
    let own = match name {
        "sendredpack" => [PACKET, SENDREDPACK],
        "sendminiprogramhb" => [PACKET, SENDMINIPROGRAMHB],
        "transfers" => [TRANSFERS, &[]],
        "gethbinfo" => [GETHBINFO, &[]],
        _ => [GETTRANSFERINFO, &[]],
    };
    SIGNED.iter().chain(own.into_iter().flatten())
}

/// A failure, with the order number that WeChat usually echoes.
pub(super) fn failure(call: &Call, code: &str, text: &str) -> Response {
    call.respond(&[
        ("return_code", "SUCCESS"),
        ("return_msg", text),
        ("result_code", "FAIL"),
        ("err_code", code),
        ("err_code_des", text),
        if call.name == "transfers" {
            ("partner_trade_no", &call.order_no)
        } else {
            ("mch_billno", &call.order_no)
        },
    ])
}

pub(super) fn answer(call: &Call, world: &World, wrong_amount: bool) -> Response {
    if let Err((code, text)) = check(call, world) {
        return failure(call, code, text);
    }
    match call.name {
        "gethbinfo" | "gettransferinfo" => query(call, world, wrong_amount),
        _ => pay(call, world, wrong_amount),
    }
}

/// Checks certificate, signature and fields, in the order of a real gateway.
fn check(call: &Call, world: &World) -> Result<(), (&'static str, &'static str)> {
    if call.fields.is_empty() {
        return Err(("XML_ERROR", "请求的xml格式错误"));
    }
    let mch_id = if call.name == "transfers" {
        call.field("mchid")
    } else {
        call.field("mch_id")
    };
    if matches!(&call.peer, Peer::Tls(name) if name.as_deref() != Some(mch_id)) {
        return Err(("CA_ERROR", "商户API证书校验出错"));
    }
    let fields = documented(call.name);
    // WeChat signs only the fields that it knows. If the caller signed another one, the signatures differ.
    let known: Map = call
        .fields
        .iter()
        .filter(|(name, _)| fields.clone().any(|(known, _, _)| known == name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if sign(&known, world.key_of(mch_id)) != call.field("sign") {
        return Err(("SIGN_ERROR", "签名错误"));
    }
    for (name, most, required) in fields {
        let value = call.field(name);
        if (*required && value.is_empty()) || value.chars().count() > *most {
            return Err(("PARAM_ERROR", "参数错误"));
        }
    }
    let is_number = !call.order_no.is_empty() && call.order_no.bytes().all(|b| b.is_ascii_alphanumeric());
    let address_ok =
        call.name != "sendredpack" || call.field("client_ip").parse::<std::net::Ipv4Addr>().is_ok();
    let constants_ok = match call.name {
        "sendredpack" => call.field("total_num") == "1",
        "sendminiprogramhb" => {
            call.field("total_num") == "1" && call.field("notify_way") == "MINI_PROGRAM_JSAPI"
        }
        "transfers" => matches!(call.field("check_name"), "NO_CHECK" | "FORCE_CHECK"),
        "gethbinfo" => call.field("bill_type") == "MCHT",
        _ => true,
    };
    if is_number && address_ok && constants_ok {
        Ok(())
    } else {
        Err(("PARAM_ERROR", "参数错误"))
    }
}

fn pay(call: &Call, world: &World, wrong_amount: bool) -> Response {
    let transfer = call.name == "transfers";
    let amount_field = if transfer { "amount" } else { "total_amount" };
    let Ok(amount) = call.field(amount_field).parse::<i64>() else {
        return failure(call, "PARAM_ERROR", "金额错误");
    };
    if transfer && amount < 30 {
        return failure(call, "AMOUNT_LIMIT", "金额超限");
    }
    if !transfer && !(100..=20_000).contains(&amount) && call.field("scene_id").is_empty() {
        return failure(call, "MONEY_LIMIT", "红包金额发放限制");
    }
    let parameters = call
        .fields
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "nonce_str" | "sign"));
    let payment = Payment {
        endpoint: call.name.to_owned(),
        mch_id: call.field(if transfer { "mchid" } else { "mch_id" }).to_owned(),
        order_no: call.order_no.clone(),
        openid: call
            .field(if transfer { "openid" } else { "re_openid" })
            .to_owned(),
        amount,
        number: String::new(),
        paid_at: String::new(),
        parameters: parameters
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    };
    let payment = match world.books().pay_once(payment) {
        Paid::Once(payment) => payment,
        Paid::Conflict => return failure(call, "FATAL_ERROR", "此单号已存在, 参数与首次请求不一致"),
    };
    let amount = payment.told_amount(wrong_amount);
    let mut fields = vec![
        ("return_code", "SUCCESS"),
        ("return_msg", ""),
        ("result_code", "SUCCESS"),
    ];
    let package = format!(
        "sendid={}&ver=8&sign=stub&mchid={}",
        payment.number, payment.mch_id
    );
    if transfer {
        fields.extend([
            ("mch_appid", call.field("mch_appid")),
            ("mchid", &payment.mch_id),
            ("nonce_str", call.field("nonce_str")),
            ("partner_trade_no", &payment.order_no),
            ("payment_no", &payment.number),
            ("payment_time", &payment.paid_at),
        ]);
    } else {
        fields.extend([
            ("mch_billno", payment.order_no.as_str()),
            ("mch_id", &payment.mch_id),
            ("wxappid", call.field("wxappid")),
            ("re_openid", &payment.openid),
            ("total_amount", &amount),
            ("send_listid", &payment.number),
        ]);
    }
    if call.name == "sendminiprogramhb" {
        fields.push(("package", &package));
    }
    call.respond(&fields)
}

fn query(call: &Call, world: &World, wrong_amount: bool) -> Response {
    let books = world.books();
    let Some(payment) = books.find(call.field("mch_id"), &call.order_no) else {
        return failure(call, "NOT_FOUND", "指定单号数据不存在");
    };
    let amount = payment.told_amount(wrong_amount);
    let parameter = |name: &str| payment.parameters.get(name).map_or("", String::as_str);
    let head = [
        ("return_code", "SUCCESS"),
        ("return_msg", "OK"),
        ("result_code", "SUCCESS"),
    ];
    if call.name == "gettransferinfo" {
        let status = books.status(&call.order_no).unwrap_or("SUCCESS");
        return call.respond(
            &[
                &head[..],
                &[
                    ("partner_trade_no", &payment.order_no),
                    ("appid", parameter("mch_appid")),
                    ("mch_id", &payment.mch_id),
                    ("detail_id", &payment.number),
                    ("status", status),
                    ("openid", &payment.openid),
                    ("payment_amount", &amount),
                    ("transfer_time", &payment.paid_at),
                    ("payment_time", &payment.paid_at),
                    ("desc", parameter("desc")),
                ],
            ]
            .concat(),
        );
    }
    let status = books.status(&call.order_no).unwrap_or("SENT");
    call.respond(
        &[
            &head[..],
            &[
                ("mch_billno", &payment.order_no),
                ("mch_id", &payment.mch_id),
                ("detail_id", &payment.number),
                ("status", status),
                ("send_type", "API"),
                ("hb_type", "NORMAL"),
                ("total_num", "1"),
                ("total_amount", &amount),
                ("send_time", &payment.paid_at),
                ("wishing", parameter("wishing")),
                ("remark", parameter("remark")),
                ("act_name", parameter("act_name")),
            ],
        ]
        .concat(),
    )
}
