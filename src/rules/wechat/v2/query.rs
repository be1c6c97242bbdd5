//! Asking how an order stands, and what the answer says. Document: wechat-pay.md, sections 2 (rules 7 and 8), 6 and 8.

use super::answer::{read, text_of};
use crate::rules::fields::Fields;
use crate::rules::outcome::{Finding, Found, Refusal};
use crate::rules::term::{Fen, OpenId, OrderKey, WxAppId};
use crate::rules::wechat::Product;

/// The question's fields, without `nonce_str` and `sign`.
#[must_use]
pub fn query_body(product: Product, key: &OrderKey, app: &WxAppId) -> Fields<'static> {
    let mut fields = Fields::with_capacity(6);
    // Here it is `appid` and `mch_id`, whatever the paying call names them.
    fields.set("appid", app.as_str().to_owned());
    fields.set("mch_id", key.mch_id.as_str().to_owned());
    match product {
        Product::Redpack | Product::MiniProgramRedpack => {
            fields.set("mch_billno", key.order_no.as_str().to_owned());
            fields.set("bill_type", "MCHT");
        }
        Product::Transfer => fields.set("partner_trade_no", key.order_no.as_str().to_owned()),
    }
    fields
}

/// Reads an answer. `expected`: the amount and openid on record, where the order is.
#[must_use]
pub fn finding(
    product: Product,
    key: &OrderKey,
    expected: Option<(Fen, &OpenId)>,
    status: u16,
    body: &[u8],
) -> Finding {
    if status != 200 {
        return Finding::unclear(format!("WeChat Pay answered HTTP {status}"));
    }
    let answer = match read(body) {
        Ok(answer) => answer,
        Err(why) => return Finding::unclear(why),
    };
    if let Some(why) = contradiction(product, &answer, key, expected) {
        return Finding::unclear(why);
    }
    match (answer.characters("return_code"), answer.characters("result_code")) {
        (Some("SUCCESS"), Some("SUCCESS")) => {}
        (Some("SUCCESS"), Some("FAIL")) if answer.characters("err_code") == Some("NOT_FOUND") => {
            return Finding::no_such_order();
        }
        _ => {
            let code = answer.characters("err_code").unwrap_or("no err_code");
            return Finding::unclear(format!("WeChat Pay answered {code}: {}", text_of(&answer)));
        }
    }
    // An answer without a status may mean that there is no such order, and does not say so.
    let Some(word) = answer.characters("status").map(str::to_owned) else {
        return Finding::unclear("WeChat Pay's answer has no status");
    };
    match found(product, &word, &answer) {
        Some(found) => Finding {
            found,
            status: Some(word),
            report: report(product, &answer),
        },
        None => Finding::unclear(format!("WeChat Pay answered the unknown status {word}")),
    }
}

/// What a status means. Source: wechat-pay.md, sections 6 and 8, and section 2, rule 7.
fn found(product: Product, word: &str, answer: &Fields<'_>) -> Option<Found> {
    let reason = || answer.characters("reason").unwrap_or("发放失败").to_owned();
    match (product, word) {
        (Product::Redpack | Product::MiniProgramRedpack, "SENT" | "RECEIVED" | "RFUND_ING" | "REFUND") => {
            let mut fields = Fields::new();
            if let Some(number) = answer.characters("detail_id") {
                fields.set("sendListid", number.to_owned());
            }
            Some(Found::Accepted { fields })
        }
        // A new payment needs a new number (section 4, SEND_FAILED).
        (Product::Redpack | Product::MiniProgramRedpack, "FAILED") => Some(Found::NotPaid(Refusal {
            code: "SEND_FAILED".to_owned(),
            text: reason(),
            burnt: true,
        })),
        (Product::Redpack | Product::MiniProgramRedpack, "SENDING") | (Product::Transfer, "PROCESSING") => {
            Some(Found::Moving)
        }
        (Product::Transfer, "SUCCESS") => {
            let mut fields = Fields::new();
            if let Some(number) = answer.characters("detail_id") {
                fields.set("paymentNo", number.to_owned());
            }
            if let Some(time) = answer.characters("payment_time") {
                fields.set("paymentTime", time.to_owned());
            }
            Some(Found::Accepted { fields })
        }
        (Product::Transfer, "FAILED") => Some(Found::NotPaid(Refusal {
            code: "FAILED".to_owned(),
            text: reason(),
            burnt: false,
        })),
        _ => None,
    }
}

/// What in an answer cannot be about this order.
fn contradiction(
    product: Product,
    answer: &Fields<'_>,
    key: &OrderKey,
    expected: Option<(Fen, &OpenId)>,
) -> Option<String> {
    let (number, amount) = match product {
        Product::Redpack | Product::MiniProgramRedpack => ("mch_billno", "total_amount"),
        Product::Transfer => ("partner_trade_no", "payment_amount"),
    };
    let differs = |name: &str, ours: &str| answer.characters(name).is_some_and(|theirs| theirs != ours);
    let says = |name: &str| format!("WeChat Pay knows this order with another {name}: look at it");
    if differs(number, key.order_no.as_str()) {
        return Some(says(number));
    }
    if differs("mch_id", key.mch_id.as_str()) {
        return Some(says("mch_id"));
    }
    let (fen, openid) = expected?;
    if differs(amount, &fen.to_string()) {
        return Some(says(amount));
    }
    // Only a transfer's answer names the payee beside the order itself.
    if product == Product::Transfer && differs("openid", openid.as_str()) {
        return Some(says("openid"));
    }
    None
}

/// The status answer's fields in the contract's names (specification, section 2.4).
fn report(product: Product, answer: &Fields<'_>) -> Fields<'static> {
    let names: &[(&str, &'static str)] = match product {
        Product::Redpack | Product::MiniProgramRedpack => &[
            ("detail_id", "detailId"),
            ("send_type", "sendType"),
            ("hb_type", "hbType"),
            ("total_num", "totalNum"),
            ("total_amount", "totalAmount"),
            ("reason", "reason"),
            ("send_time", "sendTime"),
            ("refund_time", "refundTime"),
            ("refund_amount", "refundAmount"),
            ("wishing", "wishing"),
            ("remark", "remark"),
            ("act_name", "actName"),
        ],
        Product::Transfer => &[
            ("partner_trade_no", "partnerTradeNo"),
            ("appid", "appid"),
            ("openid", "openid"),
            ("payment_amount", "paymentAmount"),
            ("transfer_time", "transferTime"),
            ("payment_time", "paymentTime"),
            ("desc", "desc"),
            ("reason", "reason"),
        ],
    };
    let mut fields = Fields::with_capacity(names.len());
    for (theirs, ours) in names {
        if let Some(text) = answer.characters(theirs) {
            fields.set(ours, text.to_owned());
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::term::{MchId, OrderNo};

    fn ask(product: Product, status: u16, fields: &str) -> Finding {
        let key = OrderKey {
            mch_id: MchId::parse("19").unwrap(),
            order_no: OrderNo::parse("A1").unwrap(),
        };
        let openid = OpenId::parse("oX").unwrap();
        let fields: String = fields
            .split(' ')
            .filter_map(|f| f.split_once('='))
            .map(|(n, t)| format!("<{n}>{t}</{n}>"))
            .collect();
        finding(
            product,
            &key,
            Some((Fen::new(100).unwrap(), &openid)),
            status,
            format!("<xml>{fields}</xml>").as_bytes(),
        )
    }

    fn kind(finding: &Finding) -> &'static str {
        match &finding.found {
            Found::Accepted { .. } => "accepted",
            Found::NotPaid(refusal) if refusal.burnt => "burnt",
            Found::NotPaid(_) => "not paid",
            Found::Moving => "moving",
            Found::NoSuchOrder => "absent",
            Found::Unclear { .. } => "unclear",
        }
    }

    #[test]
    fn every_status_of_both_products() {
        let ok = "return_code=SUCCESS result_code=SUCCESS";
        for (product, word, means) in [
            (Product::Redpack, "SENDING", "moving"),
            (Product::Redpack, "SENT", "accepted"),
            (Product::Redpack, "FAILED", "burnt"),
            (Product::Redpack, "RECEIVED", "accepted"),
            (Product::MiniProgramRedpack, "RFUND_ING", "accepted"),
            (Product::MiniProgramRedpack, "REFUND", "accepted"),
            (Product::Redpack, "SUCCESS", "unclear"),
            (Product::Transfer, "SUCCESS", "accepted"),
            (Product::Transfer, "FAILED", "not paid"),
            (Product::Transfer, "PROCESSING", "moving"),
            (Product::Transfer, "SENT", "unclear"),
        ] {
            let finding = ask(product, 200, &format!("{ok} status={word} reason=r"));
            assert_eq!(kind(&finding), means, "{product:?} {word}");
            assert_eq!(finding.status.as_deref(), (means != "unclear").then_some(word));
        }
    }

    #[test]
    fn only_not_found_in_so_many_words_is_absence() {
        let absent = "return_code=SUCCESS result_code=FAIL err_code=NOT_FOUND";
        assert_eq!(kind(&ask(Product::Redpack, 200, absent)), "absent");
        for (status, answer) in [
            (404, absent),
            (500, absent),
            (
                200,
                "return_code=SUCCESS result_code=FAIL err_code=NOT_FOUND mch_billno=A2",
            ),
            (
                200,
                "return_code=SUCCESS result_code=FAIL err_code=NOT_FOUND mch_id=20",
            ),
            (200, "return_code=FAIL err_code=NOT_FOUND"),
            (200, "return_code=SUCCESS result_code=FAIL err_code=SYSTEMERROR"),
            (200, "return_code=SUCCESS result_code=FAIL"),
            (200, "return_code=SUCCESS result_code=SUCCESS"),
            (200, ""),
        ] {
            assert_eq!(
                kind(&ask(Product::Redpack, status, answer)),
                "unclear",
                "{status} {answer}"
            );
        }
    }

    #[test]
    fn another_order_amount_or_payee_is_no_answer_about_this_one() {
        let ok = "return_code=SUCCESS result_code=SUCCESS";
        for (product, answer) in [
            (Product::Redpack, "status=SENT mch_billno=A2"),
            (Product::Redpack, "status=SENT total_amount=101"),
            (Product::Transfer, "status=SUCCESS partner_trade_no=A2"),
            (Product::Transfer, "status=SUCCESS payment_amount=101"),
            (Product::Transfer, "status=SUCCESS openid=oY"),
            (Product::Transfer, "status=FAILED payment_amount=101"),
        ] {
            assert_eq!(
                kind(&ask(product, 200, &format!("{ok} {answer}"))),
                "unclear",
                "{answer}"
            );
        }
    }

    #[test]
    fn a_report_speaks_the_contracts_names() {
        let ok = "return_code=SUCCESS result_code=SUCCESS";
        let finding = ask(
            Product::Redpack,
            200,
            &format!("{ok} status=REFUND mch_billno=A1 detail_id=9 total_num=1 refund_amount=100"),
        );
        assert_eq!(
            crate::rules::json::encode(&finding.report),
            r#"{"detailId":"9","totalNum":"1","refundAmount":"100"}"#
        );
        assert_eq!(
            finding.found,
            Found::Accepted {
                fields: {
                    let mut f = Fields::new();
                    f.set("sendListid", "9");
                    f
                }
            }
        );
    }
}
