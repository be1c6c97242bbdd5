//! A bill's parameters: exactly the documented fields (`docs/wechat-pay.md`). The claim records them and every
//! attempt sends them.

use crate::contract::error::ApiError;
use crate::contract::reason::FieldRule;
use crate::contract::send::SendRequest;
use crate::fields::{Fields, Value};
use crate::ids::OpenId;

/// WeChat's limits, in characters.
const TRANSFER_REMARK: usize = 32;
/// The limit of a report's `info_content`, in characters; [`INFO_TYPE`] limits its `info_type`.
pub const INFO_CONTENT: usize = 32;
/// The limit of a report's `info_type`, in characters.
pub const INFO_TYPE: usize = 15;

/// The least `transfer_amount` in fen, and the amount from which WeChat asks for the payee's name (`user_name`),
/// which the contract does not carry. What a merchant's scene allows lies between the two.
const LEAST: i64 = 10;
const NEEDS_NAME: i64 = 200_000;

/// What a merchant's bills say in addition to the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// The transfer scene.
    pub id: String,
    /// What the user is told that the money is for.
    pub perception: Option<String>,
    /// What the scene requires to be reported: `info_type`, and a text in which `{actName}` and `{remark}` are
    /// filled in.
    pub reports: Vec<(String, String)>,
    /// Where WeChat Pay sends notifications.
    pub notify_url: Option<String>,
}

/// Composes the parameters.
///
/// # Errors
/// The field at fault, by name: the amount is below 10 fen or needs the payee's name, or v3 takes no character of
/// `remark` or of a report. WeChat Pay would answer these with a code that leaves the order in doubt.
pub fn parameters(
    request: &SendRequest,
    scene: &Scene,
    openid: &OpenId,
) -> Result<Fields<'static>, ApiError> {
    if request.amount.get() < LEAST {
        return Err(ApiError::field("amount", FieldRule::LeastFen(LEAST)));
    }
    if request.amount.get() >= NEEDS_NAME {
        return Err(ApiError::field("amount", FieldRule::BelowFen(NEEDS_NAME)));
    }
    let mut fields = Fields::with_capacity(9);
    fields.set("appid", request.wx_app_id.as_str().to_owned());
    fields.set("out_bill_no", request.order_no.as_str().to_owned());
    fields.set("transfer_scene_id", scene.id.clone());
    fields.set("openid", openid.as_str().to_owned());
    fields.set_number("transfer_amount", request.amount.get());
    fields.set(
        "transfer_remark",
        shown("remark", &request.remark, TRANSFER_REMARK)?,
    );
    if let Some(url) = &scene.notify_url {
        fields.set("notify_url", url.clone());
    }
    if let Some(perception) = &scene.perception {
        fields.set("user_recv_perception", perception.clone());
    }
    let reports: Vec<serde_json::Value> = scene
        .reports
        .iter()
        .map(|(kind, template)| {
            let text = fill(template, request);
            let content = shown("actName 或 remark", &text, INFO_CONTENT)?;
            Ok(serde_json::json!({ "info_type": kind, "info_content": content }))
        })
        .collect::<Result<_, ApiError>>()?;
    let reports = serde_json::Value::Array(reports).to_string();
    // Cannot fail: the name is not there yet.
    let _added = fields
        .push("transfer_scene_report_infos".into(), Value::Raw(reports.into()))
        .is_ok();
    Ok(fields)
}

/// Fills a template in one pass, so that a `{remark}` inside an `actName` stays as it is.
fn fill(template: &str, request: &SendRequest) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        if let Some(left) = after.strip_prefix("actName}") {
            text.push_str(&request.act_name);
            rest = left;
        } else if let Some(left) = after.strip_prefix("remark}") {
            text.push_str(&request.remark);
            rest = left;
        } else {
            text.push('{');
            rest = after;
        }
    }
    text.push_str(rest);
    text
}

/// A text in the form that v3 takes: without characters beyond the basic plane, cut to `max` characters. Equal
/// texts give equal results, since WeChat compares a repeat parameter for parameter.
fn shown(name: &'static str, text: &str, max: usize) -> Result<String, ApiError> {
    let kept: String = text.chars().filter(|c| is_basic(*c)).take(max).collect();
    if kept.trim().is_empty() {
        return Err(ApiError::field(name, FieldRule::BasicCharacters));
    }
    Ok(kept)
}

/// Whether v3 takes a character: one to three bytes in UTF-8 (`docs/wechat-pay.md`).
#[must_use]
pub fn is_basic(c: char) -> bool {
    c.len_utf8() <= 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;
    use crate::order::fixtures::request;

    fn scene() -> Scene {
        Scene {
            id: "1000".into(),
            perception: Some("现金奖励".into()),
            reports: vec![
                ("活动名称".into(), "{actName}".into()),
                ("奖励说明".into(), "奖: {remark} {x}".into()),
            ],
            notify_url: Some("https://pay.example.com/n".into()),
        }
    }

    fn compose(changes: &[(&str, &str)], scene: &Scene) -> Result<Fields<'static>, ApiError> {
        parameters(&request(changes), scene, &OpenId::parse("oX12").unwrap())
    }

    #[test]
    fn exactly_the_documented_fields() {
        let fields = compose(&[("remark", "谢谢"), ("actName", "新年\"{remark}\"")], &scene()).unwrap();
        assert_eq!(
            json::encode(&fields),
            r#"{"appid":"wx1","out_bill_no":"A1","transfer_scene_id":"1000","openid":"oX12","transfer_amount":100,"transfer_remark":"谢谢","notify_url":"https://pay.example.com/n","user_recv_perception":"现金奖励","transfer_scene_report_infos":[{"info_content":"新年\"{remark}\"","info_type":"活动名称"},{"info_content":"奖: 谢谢 {x}","info_type":"奖励说明"}]}"#
        );
        let least = Scene {
            perception: None,
            notify_url: None,
            ..scene()
        };
        let names: Vec<String> = compose(&[], &least)
            .unwrap()
            .iter()
            .map(|(name, _)| name.to_owned())
            .collect();
        assert_eq!(
            names,
            [
                "appid",
                "out_bill_no",
                "transfer_scene_id",
                "openid",
                "transfer_amount",
                "transfer_remark",
                "transfer_scene_report_infos"
            ]
        );
    }

    #[test]
    fn texts_lose_what_v3_does_not_take_and_are_cut() {
        let long = "🎉备".repeat(40);
        let fields = compose(&[("remark", &long)], &scene()).unwrap();
        assert_eq!(fields.characters("transfer_remark"), Some(&*"备".repeat(32)));
        assert!(!json::encode(&fields).contains('🎉'));
        let fault = compose(&[("remark", "🎉")], &scene()).unwrap_err();
        assert!(fault.text.contains("remark"), "{fault}");
        let fault = compose(&[("actName", "🎉")], &scene()).unwrap_err();
        assert!(fault.text.contains("actName"), "{fault}");
    }

    #[test]
    fn amounts_that_v3_never_takes_are_not_sent() {
        for (amount, taken) in [
            ("9", false),
            ("10", true),
            ("199999", true),
            ("200000", false),
            ("2147483647", false),
        ] {
            let composed = compose(&[("amount", amount)], &scene());
            assert_eq!(composed.is_ok(), taken, "{amount}");
        }
    }

    #[test]
    fn the_same_request_is_always_composed_alike() {
        let twice = [compose(&[], &scene()).unwrap(), compose(&[], &scene()).unwrap()];
        assert_eq!(json::encode(&twice[0]), json::encode(&twice[1]));
        let read: Fields<'static> = serde_json::from_str(&json::encode(&twice[0])).unwrap();
        assert_eq!(json::encode(&read), json::encode(&twice[0]), "after the ledger");
    }
}
