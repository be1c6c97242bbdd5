//! What WeChat's response to a v2 payout proves (`docs/wechat-pay.md`, error codes). Queries are in `query`.

use crate::fields::Fields;
use crate::order::Order;
use crate::outcome::Evidence;
use crate::wechat::{Product, codes};
use crate::xml::{self, Nested};

/// Decides what a response proves. Anything but one of WeChat's documented responses about this very order proves
/// nothing.
#[must_use]
pub fn evidence(product: Product, order: &Order, status: u16, body: &[u8]) -> Evidence {
    match classify(product, order, status, body) {
        Ok(evidence) => evidence,
        Err(why) => Evidence::no_answer(&why),
    }
}

/// # Errors
/// Why the response proves nothing, if it does not.
fn classify(product: Product, order: &Order, status: u16, body: &[u8]) -> Result<Evidence, String> {
    if status != 200 {
        return Err(format!("WeChat Pay answered HTTP {status}"));
    }
    let answer = read(body)?;
    let code = answer.characters("err_code");
    if let Some(why) = another_order(product, &answer, order) {
        return Err(why);
    }
    match (answer.characters("return_code"), answer.characters("result_code")) {
        (Some("SUCCESS"), Some("SUCCESS")) => {
            if let Some(code) = code.filter(|code| is_failure(product, code)) {
                return Err(format!("WeChat Pay answered success beside err_code {code}"));
            }
            match contradiction(product, &answer, order) {
                None => Ok(Evidence::Accepted {
                    fields: outcome_fields(product, &answer),
                }),
                Some(why) => Err(why),
            }
        }
        (Some("SUCCESS"), Some("FAIL")) | (Some("FAIL"), None | Some("FAIL")) => match code {
            Some(code) => Ok(Evidence::declined(
                codes::class(product, code),
                code,
                text_of(&answer),
            )),
            // A failure without a code says nothing about the money.
            None => Err(format!(
                "WeChat Pay failed without err_code: {}",
                text_of(&answer)
            )),
        },
        (code, result) => Err(format!(
            "WeChat Pay answered return_code {code:?} and result_code {result:?}"
        )),
    }
}

/// Reads a response's fields and leaves nested ones out.
///
/// # Errors
/// Why the body cannot be read, if it is not XML in UTF-8.
pub(super) fn read(body: &[u8]) -> Result<Fields<'_>, String> {
    let text = std::str::from_utf8(body).map_err(|_| "WeChat Pay's answer is not UTF-8".to_owned())?;
    let text = text.trim_start_matches('\u{FEFF}');
    xml::decode(text, Nested::Skip).map_err(|why| format!("WeChat Pay's answer cannot be read: {why}"))
}

/// The text of a failure that is meant for people.
pub(super) fn text_of<'a>(answer: &'a Fields<'_>) -> &'a str {
    answer
        .characters("err_code_des")
        .or_else(|| answer.characters("return_msg"))
        .unwrap_or_default()
}

/// A time in the contract's form, `2015-05-19 15:26:59`: one of WeChat's own samples has full-width colons. Nothing
/// else changes, whether or not the text is a time.
pub(super) fn time_of(text: &str) -> String {
    text.replace('：', ":")
}

/// Why a response of any kind is about another order, if it says so: then it says nothing about this one.
fn another_order(product: Product, answer: &Fields<'_>, order: &Order) -> Option<String> {
    let (number, merchant) = match product {
        Product::Redpack | Product::MiniProgramRedpack => ("mch_billno", "mch_id"),
        Product::Transfer => ("partner_trade_no", "mchid"),
    };
    let ours = [
        (number, order.key.order_no.as_str()),
        (merchant, order.key.mch_id.as_str()),
    ];
    let differs =
        |(name, ours): &&(&str, &str)| answer.characters(name).is_some_and(|theirs| theirs != *ours);
    ours.iter()
        .find(differs)
        .map(|(name, _)| format!("WeChat Pay's answer carries another {name}: look at this order"))
}

/// Whether a code contradicts a success. Real successes carry `SUCCESS`, `0` and numbers in this field.
fn is_failure(product: Product, code: &str) -> bool {
    code == "PROCESSING" || codes::is_listed(product, code)
}

/// What in an acceptance cannot be about this order. This check comes after the response, so it never makes a
/// refusal: the money may be gone.
fn contradiction(product: Product, answer: &Fields<'_>, order: &Order) -> Option<String> {
    let amount = order.amount.to_string();
    let (order_no, mch_id) = (order.key.order_no.as_str(), order.key.mch_id.as_str());
    let echoes: &[(&str, &str)] = match product {
        Product::Redpack | Product::MiniProgramRedpack => &[
            ("mch_billno", order_no),
            ("mch_id", mch_id),
            ("wxappid", order.wx_app_id.as_str()),
            ("re_openid", order.openid.as_str()),
            ("total_amount", &amount),
        ],
        Product::Transfer => &[
            ("partner_trade_no", order_no),
            ("mchid", mch_id),
            ("mch_appid", order.wx_app_id.as_str()),
        ],
    };
    let differs =
        |(name, ours): &&(&str, &str)| answer.characters(name).is_some_and(|theirs| theirs != *ours);
    echoes
        .iter()
        .find(differs)
        .map(|(name, _)| format!("WeChat Pay's acceptance carries another {name}: look at this order"))
}

/// The fields of an acceptance, in the contract's names. An acceptance without a payment number is still one.
fn outcome_fields(product: Product, answer: &Fields<'_>) -> Fields<'static> {
    let names: &[(&str, &'static str)] = match product {
        Product::Redpack => &[("send_listid", "sendListid")],
        Product::MiniProgramRedpack => &[("send_listid", "sendListid"), ("package", "hbpackage")],
        Product::Transfer => &[("payment_no", "paymentNo"), ("payment_time", "paymentTime")],
    };
    renamed(answer, names)
}

/// The fields of a response that have a value, in the contract's names and with times in the contract's form.
pub(super) fn renamed(answer: &Fields<'_>, names: &[(&str, &'static str)]) -> Fields<'static> {
    let mut fields = Fields::with_capacity(names.len());
    for (theirs, ours) in names {
        if let Some(text) = answer.characters(theirs) {
            let is_time = theirs.ends_with("_time");
            fields.set(ours, if is_time { time_of(text) } else { text.to_owned() });
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Destination;
    use crate::order::fixtures::claimed;
    use crate::outcome::Class;

    fn outcome(product: Product, status: u16, body: &str) -> String {
        match evidence(
            product,
            &claimed(Destination::Wechat(product)),
            status,
            body.as_bytes(),
        ) {
            Evidence::Accepted { fields } => format!("accepted {}", crate::json::encode(&fields)),
            Evidence::Declined { class, code, text } => format!("{class:?} {code} {text}"),
            Evidence::NoAnswer { .. } => "unknown".into(),
            Evidence::NeverSent { .. } | Evidence::Opened { .. } => "something else".into(),
        }
    }

    fn xml(fields: &str) -> String {
        let fields: String = fields
            .split(' ')
            .filter_map(|field| field.split_once('='))
            .map(|(name, text)| format!("<{name}><![CDATA[{text}]]></{name}>"))
            .collect();
        format!("<xml>{fields}</xml>")
    }

    #[test]
    fn acceptances_carry_the_contracts_fields() {
        let ok = "return_code=SUCCESS result_code=SUCCESS";
        assert_eq!(
            outcome(
                Product::Redpack,
                200,
                &xml(&format!(
                    "{ok} mch_billno=A1 total_amount=100 re_openid=oX12abcdefghijk9f send_listid=9"
                ))
            ),
            r#"accepted {"sendListid":"9"}"#
        );
        assert_eq!(
            outcome(
                Product::MiniProgramRedpack,
                200,
                &xml(&format!("{ok} send_listid=9 package=sendid=1&ver=8"))
            ),
            r#"accepted {"sendListid":"9","hbpackage":"sendid=1&ver=8"}"#
        );
        assert_eq!(
            outcome(
                Product::Transfer,
                200,
                &xml(&format!("{ok} partner_trade_no=A1 payment_no=7 payment_time=t"))
            ),
            r#"accepted {"paymentNo":"7","paymentTime":"t"}"#
        );
        assert_eq!(outcome(Product::Redpack, 200, &xml(ok)), "accepted {}");
    }

    /// One official sample has a full-width colon in the time; the contract's form has none.
    #[test]
    fn a_payments_time_is_told_in_the_contracts_form() {
        for (said, told) in [
            ("2015-05-19 15:26:59", "2015-05-19 15:26:59"),
            ("2015-05-19 15：26：59", "2015-05-19 15:26:59"),
            ("2015-05-19 15:26：59", "2015-05-19 15:26:59"),
            ("soon", "soon"),
        ] {
            let body = format!(
                "<xml><return_code>SUCCESS</return_code><result_code>SUCCESS</result_code><payment_time>{said}</payment_time></xml>"
            );
            assert_eq!(
                outcome(Product::Transfer, 200, &body),
                format!("accepted {{\"paymentTime\":\"{told}\"}}")
            );
        }
    }

    #[test]
    fn what_is_kept_of_an_answers_texts_is_bounded() {
        let long = "长".repeat(1000);
        for fields in [
            format!("return_code=SUCCESS result_code=FAIL err_code=NOTENOUGH err_code_des={long}"),
            format!("return_code=SUCCESS result_code=FAIL err_code={long} err_code_des={long}"),
            format!("return_code=FAIL return_msg={long}"),
            format!("return_code={long} result_code={long}"),
            format!("return_code=SUCCESS result_code=FAIL err_code=NOTENOUGH mch_billno={long}"),
            format!("{long}=1 {long}=2"),
        ] {
            let order = claimed(Destination::Wechat(Product::Redpack));
            let texts = match evidence(Product::Redpack, &order, 200, xml(&fields).as_bytes()) {
                Evidence::Declined { code, text, .. } => vec![code, text],
                Evidence::NoAnswer { why } => vec![why],
                other => panic!("{other:?}"),
            };
            for text in texts {
                assert!(text.chars().count() <= 256, "{text}");
            }
        }
    }

    #[test]
    fn an_acceptance_of_something_else_proves_nothing() {
        let ok = "return_code=SUCCESS result_code=SUCCESS";
        for echo in [
            "mch_billno=A2",
            "total_amount=101",
            "re_openid=oOther",
            "mch_id=20",
            "wxappid=wx2",
        ] {
            assert_eq!(
                outcome(Product::Redpack, 200, &xml(&format!("{ok} {echo}"))),
                "unknown",
                "{echo}"
            );
        }
        assert_eq!(
            outcome(Product::Transfer, 200, &xml(&format!("{ok} partner_trade_no=A2"))),
            "unknown"
        );
    }

    #[test]
    fn failures_are_classed_by_code_and_silence_is_unknown() {
        let fail = |fields: &str| outcome(Product::Redpack, 200, &xml(fields));
        assert_eq!(
            fail("return_code=SUCCESS result_code=FAIL err_code=NOTENOUGH err_code_des=余额不足"),
            format!("{:?} NOTENOUGH 余额不足", Class::Refused)
        );
        assert_eq!(
            fail("return_code=FAIL err_code=SIGN_ERROR return_msg=签名错误"),
            "RejectedUnprocessed SIGN_ERROR 签名错误"
        );
        for silent in [
            "return_code=FAIL return_msg=x",
            "return_code=SUCCESS result_code=FAIL",
            "return_code=SUCCESS",
            "result_code=SUCCESS",
            "return_code=OK result_code=SUCCESS",
            "a=b",
        ] {
            assert_eq!(fail(silent), "unknown", "{silent}");
        }
        assert_eq!(
            fail("return_code=SUCCESS result_code=FAIL err_code=BRAND_NEW"),
            "Unknown BRAND_NEW "
        );
    }

    #[test]
    fn an_answer_that_contradicts_itself_or_names_another_order_is_unknown() {
        for fields in [
            "return_code=FAIL result_code=SUCCESS err_code=NOTENOUGH",
            "return_code=SUCCESS result_code=SUCCESS err_code=NOTENOUGH",
            "return_code=SUCCESS result_code=SUCCESS err_code=SYSTEMERROR",
            "return_code=SUCCESS result_code=FAIL err_code=NOTENOUGH mch_billno=A2",
            "return_code=SUCCESS result_code=FAIL err_code=NOTENOUGH mch_id=20",
        ] {
            assert_eq!(
                outcome(Product::Redpack, 200, &xml(fields)),
                "unknown",
                "{fields}"
            );
        }
        for code in ["SUCCESS", "0", "268458547"] {
            let fields = format!("return_code=SUCCESS result_code=SUCCESS err_code={code}");
            assert_eq!(
                outcome(Product::Redpack, 200, &xml(&fields)),
                "accepted {}",
                "{code}"
            );
        }
        let own = "return_code=SUCCESS result_code=FAIL err_code=NOTENOUGH mch_billno=A1 mch_id=19";
        assert_eq!(outcome(Product::Redpack, 200, &xml(own)), "Refused NOTENOUGH ");
    }

    #[test]
    fn what_is_no_answer_of_wechats_is_unknown() {
        let ok = xml("return_code=SUCCESS result_code=SUCCESS");
        for status in [
            100, 201, 204, 301, 302, 307, 400, 401, 403, 404, 413, 429, 500, 502, 503,
        ] {
            assert_eq!(outcome(Product::Redpack, status, &ok), "unknown", "{status}");
        }
        for body in [
            "",
            "<html><body>502</body></html>",
            "{}",
            "<xml><return_code>SUCCESS</return_code>",
            "<xml><package>a&b</package></xml>",
            "<!DOCTYPE x><xml/>",
        ] {
            assert_eq!(outcome(Product::Redpack, 200, body), "unknown", "{body}");
        }
        let not_utf8 = evidence(
            Product::Redpack,
            &claimed(crate::order::fixtures::at_handler()),
            200,
            b"<xml>\xff</xml>",
        );
        assert!(matches!(not_utf8, Evidence::NoAnswer { .. }));
    }
}
