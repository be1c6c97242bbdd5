//! Queries about a v2 order: the fields to send, and what the response says (`docs/wechat-pay.md`, query window).

use super::answer::{read, renamed, text_of};
use crate::fields::Fields;
use crate::ids::{Fen, OpenId, OrderKey, WxAppId};
use crate::outcome::{Finding, Found, Refusal};
use crate::text::kept;
use crate::wechat::Product;

/// The query's fields, without `nonce_str` and `sign`.
#[must_use]
pub fn query_body(product: Product, key: &OrderKey, app: &WxAppId) -> Fields<'static> {
    let mut fields = Fields::with_capacity(6);
    // A query calls them `appid` and `mch_id`, whatever the paying call names them.
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

/// Reads a response. `expected`: the amount and openid on record, if the order is on record.
#[must_use]
pub fn finding(
    product: Product,
    key: &OrderKey,
    expected: Option<(Fen, &OpenId)>,
    status: u16,
    body: &[u8],
) -> Finding {
    if status != 200 {
        return Finding::unclear(&format!("WeChat Pay answered HTTP {status}"));
    }
    let answer = match read(body) {
        Ok(answer) => answer,
        Err(why) => return Finding::unclear(&why),
    };
    if let Some(why) = contradiction(product, &answer, key, expected) {
        return Finding::unclear(&why);
    }
    match (answer.characters("return_code"), answer.characters("result_code")) {
        (Some("SUCCESS"), Some("SUCCESS")) => {}
        (Some("SUCCESS"), Some("FAIL")) if answer.characters("err_code") == Some("NOT_FOUND") => {
            return Finding::no_such_order();
        }
        _ => {
            let code = answer.characters("err_code").unwrap_or("no err_code");
            return Finding::unclear(&format!("WeChat Pay answered {code}: {}", text_of(&answer)));
        }
    }
    // A response without a status may mean that there is no such order, but does not say so.
    let Some(word) = answer.characters("status") else {
        return Finding::unclear("WeChat Pay's answer has no status");
    };
    Finding {
        found: found(product, word, &answer),
        status: Some(kept(word)),
        report: report(product, &answer),
    }
}

/// What a status means. Whatever is not certain is still moving, also a word that we do not know.
fn found(product: Product, word: &str, answer: &Fields<'_>) -> Found {
    let not_paid = |code: &str, number_spent| {
        Found::NotPaid(Refusal {
            code: code.to_owned(),
            text: kept(answer.characters("reason").unwrap_or("发放失败")),
            number_spent,
        })
    };
    match (product, word) {
        (Product::Redpack | Product::MiniProgramRedpack, "SENT" | "RECEIVED" | "RFUND_ING" | "REFUND") => {
            Found::Accepted {
                fields: renamed(answer, &[("detail_id", "sendListid")]),
            }
        }
        // As with the code SEND_FAILED, a new payment needs a new number.
        (Product::Redpack | Product::MiniProgramRedpack, "FAILED") => not_paid("SEND_FAILED", true),
        (Product::Transfer, "SUCCESS") => Found::Accepted {
            fields: renamed(
                answer,
                &[("detail_id", "paymentNo"), ("payment_time", "paymentTime")],
            ),
        },
        (Product::Transfer, "FAILED") => not_paid("FAILED", false),
        _ => Found::Moving,
    }
}

/// What in a response cannot be about this order.
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
    // Only a transfer's response names the payee in a field of its own.
    if product == Product::Transfer && differs("openid", openid.as_str()) {
        return Some(says("openid"));
    }
    None
}

/// The fields of the status response, in the contract's names (`docs/api.md`).
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
    renamed(answer, names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{MchId, OrderNo};

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
            Found::NotPaid(refusal) if refusal.number_spent => "number_spent",
            Found::NotPaid(_) => "not paid",
            Found::Moving => "moving",
            Found::NoSuchOrder => "absent",
            Found::Unclear { .. } => "unclear",
        }
    }

    #[test]
    fn exactly_the_documented_fields_are_asked_with() {
        let key = OrderKey {
            mch_id: MchId::parse("19").unwrap(),
            order_no: OrderNo::parse("A1").unwrap(),
        };
        let app = WxAppId::parse("wx1").unwrap();
        for (product, fields) in [
            (
                Product::Redpack,
                r#"{"appid":"wx1","mch_id":"19","mch_billno":"A1","bill_type":"MCHT"}"#,
            ),
            (
                Product::MiniProgramRedpack,
                r#"{"appid":"wx1","mch_id":"19","mch_billno":"A1","bill_type":"MCHT"}"#,
            ),
            (
                Product::Transfer,
                r#"{"appid":"wx1","mch_id":"19","partner_trade_no":"A1"}"#,
            ),
        ] {
            let asked = query_body(product, &key, &app);
            assert_eq!(crate::json::encode(&asked), fields, "{product:?}");
        }
    }

    #[test]
    fn every_status_of_both_products() {
        let ok = "return_code=SUCCESS result_code=SUCCESS";
        for (product, word, means) in [
            (Product::Redpack, "SENDING", "moving"),
            (Product::Redpack, "SENT", "accepted"),
            (Product::Redpack, "FAILED", "number_spent"),
            (Product::Redpack, "RECEIVED", "accepted"),
            (Product::MiniProgramRedpack, "RFUND_ING", "accepted"),
            (Product::MiniProgramRedpack, "REFUND", "accepted"),
            (Product::Redpack, "SUCCESS", "moving"),
            (Product::Transfer, "SUCCESS", "accepted"),
            (Product::Transfer, "FAILED", "not paid"),
            (Product::Transfer, "PROCESSING", "moving"),
            (Product::Transfer, "SENT", "moving"),
            (Product::Transfer, "BRAND_NEW", "moving"),
        ] {
            let finding = ask(product, 200, &format!("{ok} status={word} reason=r"));
            assert_eq!(kind(&finding), means, "{product:?} {word}");
            assert_eq!(finding.status.as_deref(), Some(word));
            assert_eq!(finding.report.characters("reason"), Some("r"), "{word}");
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
    fn what_is_kept_of_an_answers_texts_is_bounded() {
        let long = "长".repeat(1000);
        let ok = "return_code=SUCCESS result_code=SUCCESS";
        for fields in [
            format!("{ok} status=FAILED reason={long}"),
            format!("{ok} status={long}"),
            format!("return_code=SUCCESS result_code=FAIL err_code={long} err_code_des={long}"),
            format!("{long}=1 {long}=2"),
        ] {
            let finding = ask(Product::Transfer, 200, &fields);
            let mut texts: Vec<String> = finding.status.into_iter().collect();
            match finding.found {
                Found::NotPaid(refusal) => texts.extend([refusal.code, refusal.text]),
                Found::Unclear { why } => texts.push(why),
                Found::Moving => {}
                other => panic!("{other:?}"),
            }
            for text in texts {
                assert!(text.chars().count() <= 256, "{text}");
            }
        }
    }

    #[test]
    fn times_are_told_in_the_contracts_form() {
        let answer = |fields: &str| {
            format!("<xml><return_code>SUCCESS</return_code><result_code>SUCCESS</result_code>{fields}</xml>")
        };
        let key = OrderKey {
            mch_id: MchId::parse("19").unwrap(),
            order_no: OrderNo::parse("A1").unwrap(),
        };
        let transfer = answer(
            "<status>SUCCESS</status><transfer_time>2015-05-19 15：26：58</transfer_time><payment_time>2015-05-19 15：26：59</payment_time>",
        );
        let of_transfer = finding(Product::Transfer, &key, None, 200, transfer.as_bytes());
        assert_eq!(
            crate::json::encode(&of_transfer.report),
            r#"{"transferTime":"2015-05-19 15:26:58","paymentTime":"2015-05-19 15:26:59"}"#
        );
        let Found::Accepted { fields } = of_transfer.found else {
            panic!("{of_transfer:?}")
        };
        assert_eq!(fields.characters("paymentTime"), Some("2015-05-19 15:26:59"));
        let packet = answer(
            "<status>REFUND</status><send_time>2015-05-19 15：26：58</send_time><refund_time>2015-05-20 15：26：59</refund_time><remark>12：30</remark>",
        );
        let of_packet = finding(Product::Redpack, &key, None, 200, packet.as_bytes());
        assert_eq!(
            crate::json::encode(&of_packet.report),
            r#"{"sendTime":"2015-05-19 15:26:58","refundTime":"2015-05-20 15:26:59","remark":"12：30"}"#
        );
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
            crate::json::encode(&finding.report),
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
