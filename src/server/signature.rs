//! `sign_key`: checks the request's own signature, `sign`, over all its fields including `nonceStr`, made like a WeChat
//! v2 signature.
//!
//! The check needs the whole body, so `contract_api.rs` runs it; it is not a layer.
//!
//! WeChat v2 signs one text, `a=1&b=2&key=…`, which shows neither where a value ends nor its type. So two requests with
//! the same signed text must be the same request (`docs/decisions/0012-unambiguous-signed-text.md`):
//! * Names and the nonce are `[A-Za-z0-9_]+`, and no value contains `&name=`. Then a field begins at each `&name=` in
//!   the text, and the text can be split in one way only.
//! * A field without a value is not signed, so [`check`] removes it.
//! * `5` and `"5"` have the same signature. The contract accepts both or only one of them for a field, and never gives
//!   them different meanings. In a field that the contract does not know, but a handler may, both become text.
//! * The case of the letters in `sign` has no meaning.

use payout_domain::contract::error::ApiError;
use payout_domain::contract::reason::{Reason, SignFault};
use payout_domain::contract::send::FIELDS;
use payout_domain::fields::{Fields, Value};
use payout_domain::secret::Secret;
use payout_domain::wechat::sign::{SIGN, verify_md5};

const NONCE: &str = "nonceStr";

/// Checks the signature, and leaves only what it covers: removes the signature, its nonce, fields without a value, and
/// the types of fields that the contract does not know.
///
/// # Errors
/// `SIGN_ERROR` if the signature or the nonce is missing, the signature is wrong, or the signed text could be read as
/// other fields. The text names the field.
pub(crate) fn check(fields: &mut Fields<'_>, key: &Secret) -> Result<(), ApiError> {
    let fault = |fault: SignFault| ApiError::from(Reason::Sign(fault));
    let sign = fields
        .characters(SIGN)
        .map(str::to_owned)
        .ok_or_else(|| fault(SignFault::NoSign))?;
    if fields.characters(NONCE).is_none() {
        return Err(fault(SignFault::NoNonce));
    }
    can_be_read_in_one_way(fields).map_err(fault)?;
    if !verify_md5(fields, key, &sign) {
        return Err(fault(SignFault::Wrong));
    }
    fields.take(SIGN);
    fields.take(NONCE);
    fields.drop_blank();
    fields.each(|name, value| {
        if let (Value::Raw(token), false) = (&mut *value, FIELDS.contains(&name)) {
            *value = Value::Text(std::mem::take(token));
        }
    });
    Ok(())
}

/// Checks that the signed text stands for these fields only.
fn can_be_read_in_one_way(fields: &Fields<'_>) -> Result<(), SignFault> {
    for (name, value) in fields.iter() {
        if !is_name(name) {
            return Err(SignFault::Name(name.to_owned()));
        }
        if name == NONCE && !is_name(value.characters()) {
            return Err(SignFault::Nonce);
        }
        if name != SIGN && holds_a_field(value.characters()) {
            return Err(SignFault::Value(name.to_owned()));
        }
    }
    Ok(())
}

/// Whether a value contains what starts a field in the signed text.
fn holds_a_field(value: &str) -> bool {
    let after_signs = value.split('&').skip(1);
    after_signs
        .filter_map(|text| text.split_once('='))
        .any(|(name, _)| is_name(name))
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use payout_domain::contract::err_code::ErrCode;
    use payout_domain::wechat::sign::sign_md5;

    #[test]
    fn only_the_right_signature_over_all_fields_passes() {
        let key = Secret::new("k".into());
        let signed = || {
            let mut fields = Fields::new();
            fields.set("mchBillno", "A1");
            fields.set_number("amount", 100);
            fields.set("nonceStr", "n");
            let sign = sign_md5(&fields, &key);
            fields.set("sign", sign);
            fields
        };
        let mut good = signed();
        assert!(check(&mut good, &key).is_ok());
        assert_eq!(good.len(), 2, "the signature goes no further");
        let mut changed = signed();
        changed.set_number("amount", 101);
        let mut unsigned = signed();
        unsigned.take("sign");
        let mut no_nonce = Fields::new();
        no_nonce.set("sign", sign_md5(&Fields::new(), &key));
        for mut bad in [changed, unsigned, no_nonce, Fields::new()] {
            assert_eq!(check(&mut bad, &key).unwrap_err().code, ErrCode::SignError);
        }
        assert!(check(&mut signed(), &Secret::new("other".into())).is_err());
    }

    fn signed(pairs: &[(&str, &str)], key: &Secret) -> Fields<'static> {
        let mut fields = Fields::new();
        for (name, value) in pairs {
            fields
                .push((*name).to_owned().into(), Value::Text((*value).to_owned().into()))
                .unwrap();
        }
        let sign = sign_md5(&fields, key);
        fields.set(SIGN, sign);
        fields
    }

    #[test]
    fn a_field_that_could_be_read_as_another_is_refused_by_name() {
        let key = Secret::new("k".into());
        let told = |name: &'static str, value: &'static str| {
            let mut fields = signed(&[("nonceStr", "n"), ("amount", "1"), (name, value)], &key);
            check(&mut fields, &key).map_err(|fault| fault.to_string())
        };
        let split =
            |name: &str| format!("签名错误: {name} 的值不能含有形如 \"&名称=\" 的内容, 否则签名原文会有歧义");
        for value in ["A&amount=99999&amountX=", "&key=", "&_=", "a&&b=", "a&b=c"] {
            assert_eq!(told("actName", value), Err(split("actName")), "{value}");
        }
        for value in [
            "a=b",
            "a & b",
            "a&b",
            "&",
            "=",
            "a& b=c",
            "R&D=",
            "a&=b",
            "&活动=1",
            "红包 & 礼品",
        ] {
            let good = value != "R&D=";
            assert_eq!(told("actName", value).is_ok(), good, "{value}");
        }
        for name in ["a=b", "a&b", "", "act name", "名", "a-b"] {
            let text = format!("签名错误: {name} 名称不正确, 只能含字母、数字和 _");
            assert_eq!(told(name, "1"), Err(text));
        }
        for nonce in ["n&remark=x", "n n", "n=", "红"] {
            let mut fields = signed(&[("nonceStr", nonce)], &key);
            let fault = check(&mut fields, &key).unwrap_err();
            assert_eq!(
                fault.to_string(),
                "签名错误: nonceStr 不正确, 只能含字母、数字和 _"
            );
        }
    }

    /// The request that passes holds no more than what was signed.
    #[test]
    fn types_and_empty_fields_are_not_signed_and_do_not_go_on() {
        let key = Secret::new("k".into());
        let sign = sign_md5(
            &signed(&[("nonceStr", "n"), ("amount", "5"), ("zone", "false")], &key),
            &key,
        );
        let passed = |text: &str| {
            let text = text.replace("SIGN", &sign);
            let mut fields = payout_domain::json::decode(&text).unwrap();
            check(&mut fields, &key).unwrap();
            payout_domain::json::encode(&fields)
        };
        let one = passed(r#"{"nonceStr":"n","amount":5,"zone":"false","sign":"SIGN"}"#);
        assert_eq!(one, r#"{"amount":5,"zone":"false"}"#);
        let other =
            passed(r#"{"nonceStr":"n","amount":5,"zone":false,"remark":"","other":null,"sign":"SIGN"}"#);
        assert_eq!(other, one);
    }

    /// Every way to split a text into fields.
    fn readings(text: &str) -> Vec<Vec<(String, String)>> {
        let ends: Vec<usize> = text.match_indices('&').map(|(at, _)| at).collect();
        let mut all = Vec::new();
        for chosen in 0..1_u32 << ends.len() {
            let mut parts = vec![String::new()];
            for (at, c) in text.char_indices() {
                let end = ends.iter().position(|end| *end == at);
                if end.is_some_and(|end| chosen & (1 << end) != 0) {
                    parts.push(String::new());
                } else {
                    parts.last_mut().unwrap().push(c);
                }
            }
            // Where a name ends is open too, as long as the splitter does not know what a name is.
            let splits = |part: &String| -> Vec<(String, String)> {
                let halves = part.match_indices('=').map(|(at, _)| part.split_at(at));
                halves
                    .map(|(name, rest)| (name.to_owned(), rest.replacen('=', "", 1)))
                    .collect()
            };
            let mut lists = vec![Vec::new()];
            for part in &parts {
                let pairs = splits(part);
                lists = lists
                    .iter()
                    .flat_map(|list: &Vec<_>| {
                        pairs
                            .iter()
                            .map(|pair| [list.clone(), vec![pair.clone()]].concat())
                    })
                    .collect();
            }
            all.extend(lists);
        }
        all
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

        /// Of all requests that one signature fits, the check accepts at most one.
        #[test]
        fn a_signed_text_is_one_request(text in "[ab]=[ab&=]{0,9}&[ab=&]{0,6}(&nonceStr=[ab&=]{1,3})?") {
            let key = Secret::new("k".into());
            let mut signature = None;
            let mut taken = Vec::new();
            for reading in readings(&text) {
                // Skip what would not be signed as this text: a repeated name, names out of order, and fields without a
                // value.
                let is_sorted = reading.windows(2).all(|pair| pair[0].0.as_bytes() < pair[1].0.as_bytes());
                if !is_sorted || reading.iter().any(|(_, value)| value.is_empty()) {
                    continue;
                }
                let pairs: Vec<(&str, &str)> = reading.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                let mut fields = signed(&pairs, &key);
                let sign = fields.characters(SIGN).unwrap().to_owned();
                proptest::prop_assert_eq!(signature.get_or_insert(sign.clone()), &sign, "{:?}", reading);
                if can_be_read_in_one_way(&fields).is_ok() {
                    fields.take(SIGN);
                    taken.push(fields);
                }
            }
            proptest::prop_assert!(taken.len() <= 1, "{:?}", taken);
        }
    }
}
