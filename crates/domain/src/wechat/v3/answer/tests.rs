//! What responses, queries, withdrawals and notifications prove: every state, every code, and everything that is
//! not an answer.

use super::*;
use crate::order::Destination;
use crate::order::fixtures::claimed;

const GOOD: Result<Signature, String> = Ok(Signature::Verified);

fn order() -> Order {
    claimed(Destination::TransferBill)
}

fn bill(state: &str) -> String {
    format!(
        r#"{{"out_bill_no":"A1","transfer_bill_no":"1330","create_time":"2015-05-20T13:29:35.120+08:00","state":"{state}"}}"#
    )
}

fn outcome(status: u16, signature: &Result<Signature, String>, body: &str) -> String {
    match evidence(&order(), status, signature, body.as_bytes()) {
        Evidence::Opened { fields, status } => format!("{status} {}", json::encode(&fields)),
        Evidence::Declined { class, code, .. } => format!("{class:?} {code}"),
        Evidence::NoAnswer { .. } => "unknown".into(),
        other => format!("{other:?}"),
    }
}

#[test]
fn every_state_of_an_answer() {
    let opened =
        |state: &str| format!(r#"{state} {{"paymentNo":"1330","paymentTime":"2015-05-20 13:29:35"}}"#);
    for (state, means) in [
        ("ACCEPTED", "unknown".to_owned()),
        ("PROCESSING", "unknown".to_owned()),
        ("WAIT_USER_CONFIRM", opened("WAIT_USER_CONFIRM")),
        ("TRANSFERING", opened("TRANSFERING")),
        ("SUCCESS", opened("SUCCESS")),
        ("FAIL", "NumberSpent FAIL".to_owned()),
        ("CANCELING", "unknown".to_owned()),
        ("CANCELLED", "NumberSpent CANCELLED".to_owned()),
        ("BRAND_NEW", "unknown".to_owned()),
        ("", "unknown".to_owned()),
    ] {
        assert_eq!(outcome(200, &GOOD, &bill(state)), means, "{state}");
    }
    let package = bill("WAIT_USER_CONFIRM").replace('}', r#","package_info":"affff=="}"#);
    assert!(outcome(200, &GOOD, &package).contains(r#""hbpackage":"affff==""#));
    let reason = bill("FAIL").replace('}', r#","fail_reason":"ACCOUNT_FROZEN"}"#);
    assert_eq!(outcome(200, &GOOD, &reason), "NumberSpent ACCOUNT_FROZEN");
}

/// A record keeps a refusal's code and text; neither may be as long as a response.
#[test]
fn a_long_reason_is_cut_wherever_it_comes_from() {
    let long = "R".repeat(300);
    let body = bill("FAIL").replace('}', &format!(r#","fail_reason":"{long}"}}"#));
    let kept = "R".repeat(crate::text::UPSTREAM_CHARS);
    assert_eq!(
        outcome(200, &GOOD, &body),
        format!("NumberSpent {kept}"),
        "an attempt's answer"
    );
    let Found::NotPaid(refusal) = finding(&order().key, None, 200, &GOOD, body.as_bytes()).found else {
        panic!("not paid");
    };
    assert_eq!(refusal.code, kept, "a query's answer");
    assert_eq!(refusal.text, "转账未成功: 微信转账单的最终状态为 FAIL");
}

#[test]
fn an_answer_whose_signature_is_wrong_is_unknown_whatever_it_says() {
    let wrong: Result<Signature, String> = Err("wrong".into());
    for (status, body) in [
        (200, bill("SUCCESS")),
        (200, bill("WAIT_USER_CONFIRM")),
        (200, bill("FAIL")),
        (403, r#"{"code":"NOT_ENOUGH","message":"资金不足"}"#.to_owned()),
        (400, r#"{"code":"PARAM_ERROR"}"#.to_owned()),
        (404, r#"{"code":"NOT_FOUND"}"#.to_owned()),
    ] {
        assert_eq!(outcome(status, &wrong, &body), "unknown", "{status} {body}");
        let key = order().key.clone();
        let found = finding(&key, None, status, &wrong, body.as_bytes()).found;
        assert!(matches!(found, Found::Unclear { .. }), "{status} {body}");
        assert!(matches!(
            withdrawal(&key, status, &wrong, body.as_bytes()),
            Withdrawal::Unclear(_)
        ));
    }
}

#[test]
fn without_a_signature_a_refusal_is_believed_and_a_bill_is_not() {
    let absent = Ok(Signature::Absent);
    for state in ["SUCCESS", "WAIT_USER_CONFIRM", "FAIL", "CANCELLED"] {
        assert_eq!(outcome(200, &absent, &bill(state)), "unknown", "{state}");
    }
    assert_eq!(
        outcome(403, &absent, r#"{"code":"NOT_ENOUGH","message":"资金不足"}"#),
        "Refused NOT_ENOUGH"
    );
}

#[test]
fn every_code_of_the_document_and_the_unlisted() {
    for (status, code, means) in [
        (400, "PARAM_ERROR", Class::RejectedUnprocessed),
        (400, "INVALID_REQUEST", Class::Conflict),
        (401, "SIGN_ERROR", Class::RejectedUnprocessed),
        (403, "NO_AUTH", Class::RejectedUnprocessed),
        (403, "NOT_ENOUGH", Class::Refused),
        (403, "RULE_LIMIT", Class::Unknown),
        (404, "NOT_FOUND", Class::Unknown),
        (429, "FREQUENCY_LIMITED", Class::RejectedUnprocessed),
        (429, "FREQUENCY_LIMIT_EXCEED", Class::RejectedUnprocessed),
        (429, "RATELIMIT_EXCEEDED", Class::RejectedUnprocessed),
        (400, "SYSTEM_ERROR", Class::Unknown),
        (400, "BRAND_NEW", Class::Unknown),
    ] {
        let body = format!(r#"{{"code":"{code}","message":"m"}}"#);
        assert_eq!(outcome(status, &GOOD, &body), format!("{means:?} {code}"));
        // A broken server does not know what it has done.
        assert_eq!(outcome(500, &GOOD, &body), "unknown", "{code}");
    }
}

#[test]
fn what_is_no_answer_of_wechats_is_unknown() {
    let ok = bill("SUCCESS");
    for status in [100, 201, 202, 204, 301, 302, 307, 500, 502, 503] {
        assert_eq!(outcome(status, &GOOD, &ok), "unknown", "{status}");
    }
    for (status, body) in [
        (200, ""),
        (200, "<html>502</html>"),
        (200, "[]"),
        (200, "null"),
        (200, r#"{"out_bill_no":"A1","state":"SUCCESS""#),
        (200, r#"{"out_bill_no":"A1","state":"SUCCESS","state":"FAIL"}"#),
        (403, "<html>forbidden</html>"),
        (403, r#"{"message":"no code"}"#),
        (403, r#"{"code":null}"#),
    ] {
        assert_eq!(outcome(status, &GOOD, body), "unknown", "{status} {body}");
    }
    assert!(matches!(
        evidence(&order(), 200, &GOOD, b"\xff"),
        Evidence::NoAnswer { .. }
    ));
}

#[test]
fn another_order_amount_or_payee_is_no_answer_about_this_one() {
    for other in [
        r#""out_bill_no":"A2""#,
        r#""mch_id":"20""#,
        r#""mchid":"20""#,
        r#""transfer_amount":101"#,
        r#""openid":"oOther""#,
    ] {
        for state in ["SUCCESS", "FAIL"] {
            let body = if other.contains("out_bill_no") {
                bill(state).replace(r#""out_bill_no":"A1""#, other)
            } else {
                bill(state).replace('}', &format!(",{other}}}"))
            };
            assert_eq!(outcome(200, &GOOD, &body), "unknown", "{body}");
            let order = order();
            let found = finding(
                &order.key,
                Some((order.amount, &order.openid)),
                200,
                &GOOD,
                body.as_bytes(),
            );
            assert!(matches!(found.found, Found::Unclear { .. }), "{body}");
        }
    }
    let silent = r#"{"state":"SUCCESS"}"#;
    assert_eq!(outcome(200, &GOOD, silent), "unknown", "whose bill is it?");
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
fn every_state_of_a_query_and_of_the_contract() {
    for (state, means, status) in [
        ("ACCEPTED", "moving", "PROCESSING"),
        ("PROCESSING", "moving", "PROCESSING"),
        ("WAIT_USER_CONFIRM", "moving", "PROCESSING"),
        ("TRANSFERING", "accepted", "PROCESSING"),
        ("SUCCESS", "accepted", "SUCCESS"),
        ("FAIL", "number_spent", "FAILED"),
        ("CANCELING", "moving", "PROCESSING"),
        ("CANCELLED", "number_spent", "FAILED"),
    ] {
        let found = finding(&order().key, None, 200, &GOOD, bill(state).as_bytes());
        assert_eq!(kind(&found), means, "{state}");
        assert_eq!(found.status.as_deref(), Some(state));
        assert_eq!(found.report.characters("status"), Some(status), "{state}");
        let reason = (state != status).then_some(state);
        assert_eq!(found.report.characters("reason"), reason, "{state}");
    }
}

#[test]
fn only_not_found_in_so_many_words_is_absence() {
    let absent = r#"{"code":"NOT_FOUND","message":"记录不存在"}"#;
    let ask = |status, body: &str| finding(&order().key, None, status, &GOOD, body.as_bytes());
    assert_eq!(kind(&ask(404, absent)), "absent");
    for (status, body) in [
        (200, absent),
        (400, absent),
        (500, absent),
        (404, r#"{"code":"RESOURCE_NOT_EXISTS"}"#),
        (404, "<html>"),
        (404, ""),
        (429, r#"{"code":"FREQUENCY_LIMITED"}"#),
    ] {
        assert_eq!(kind(&ask(status, body)), "unclear", "{status} {body}");
    }
}

#[test]
fn a_report_speaks_the_contracts_names() {
    let body = r#"{"mch_id":"19","out_bill_no":"A1","transfer_bill_no":"1330","appid":"wx1","state":"SUCCESS","transfer_amount":100,"transfer_remark":"谢谢","openid":"oX12abcdefghijk9f","create_time":"2015-05-20T13:29:35+08:00","update_time":"2015-05-20T05:30:35Z"}"#;
    let order = order();
    let found = finding(
        &order.key,
        Some((order.amount, &order.openid)),
        200,
        &GOOD,
        body.as_bytes(),
    );
    assert_eq!(
        json::encode(&found.report),
        r#"{"status":"SUCCESS","partnerTradeNo":"A1","appid":"wx1","openid":"oX12abcdefghijk9f","paymentAmount":"100","desc":"谢谢","transferTime":"2015-05-20 13:29:35","paymentTime":"2015-05-20 13:30:35"}"#
    );
}

#[test]
fn a_withdrawal_is_taken_refused_or_unclear() {
    let key = order().key.clone();
    let ask = |status, body: &str| withdrawal(&key, status, &GOOD, body.as_bytes());
    for (state, means) in [
        ("CANCELING", "moving"),
        ("CANCELLED", "number_spent"),
        ("SUCCESS", "accepted"),
    ] {
        match ask(200, &bill(state)) {
            Withdrawal::Taken(finding) => assert_eq!(kind(&finding), means),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(
        ask(400, r#"{"code":"INVALID_REQUEST","message":"m"}"#),
        Withdrawal::Refused { .. }
    ));
    for (status, body) in [(500, r#"{"code":"SYSTEM_ERROR"}"#), (200, "{}"), (204, "")] {
        assert!(
            matches!(ask(status, body), Withdrawal::Unclear(_)),
            "{status} {body}"
        );
    }
}

#[test]
fn a_notification_names_its_order_and_is_held_against_the_record() {
    let text = r#"{"out_bill_no":"A1","transfer_bill_no":"1330","state":"SUCCESS","mchid":"19","transfer_amount":100,"openid":"oX12abcdefghijk9f"}"#;
    let order = order();
    let read = |text: &str| Notification::read(text).unwrap();
    assert_eq!(read(text).key, order.key);
    assert_eq!(read(&text.replace("mchid", "mch_id")).key, order.key);
    assert_eq!(kind(&read(text).finding(&order)), "accepted");
    for (from, to) in [
        ("\"A1\"", "\"A2\""),
        ("\"19\"", "\"20\""),
        ("100", "101"),
        ("oX12", "oY12"),
        ("SUCCESS", "PAID"),
    ] {
        let other = text.replace(from, to);
        assert_eq!(kind(&read(&other).finding(&order)), "unclear", "{other}");
    }
    for bad in [
        "",
        "{}",
        r#"{"mchid":"19"}"#,
        r#"{"out_bill_no":"A1"}"#,
        r#"{"mchid":"x","out_bill_no":"A1"}"#,
    ] {
        assert!(Notification::read(bad).is_err(), "{bad}");
    }
}

proptest::proptest! {
    #[test]
    fn nothing_panics_and_nothing_unsigned_pays(status in 100u16..600, body in ".*") {
        let unsigned = evidence(&order(), status, &Ok(Signature::Absent), body.as_bytes());
        let opened = matches!(unsigned, Evidence::Opened { .. });
        proptest::prop_assert!(!opened);
        let _ = Notification::read(&body).is_ok();
    }
}
