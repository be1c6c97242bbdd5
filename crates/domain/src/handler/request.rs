//! What the sidecar sends to a handler (`docs/handler.md`).

use std::net::IpAddr;

use crate::contract::error::ApiError;
use crate::contract::reason::{FieldRule, Reason};
use crate::contract::send::{CLIENT_IP, FIELDS, RequestCredentials, SendRequest};
use crate::encoding::Encoding;
use crate::fields::Fields;
use crate::ids::{OpenId, OrderKey, TradeRecordId, WxAppId};
use crate::order::parameters::Parameters;

/// The normalised request: canonical names, the openid in place of the user id, the address that `[client_ip]`
/// chose, and unchanged the fields that the contract does not know.
///
/// # Errors
/// `PARAM_ERROR` with the field's name if there is no client address, a handler may read a field as one of the
/// contract's, or the encoding is XML and cannot carry a field; also if there are too many fields.
pub fn parameters(
    request: &SendRequest,
    openid: &OpenId,
    client_ip: Option<IpAddr>,
    encoding: Encoding,
) -> Result<Fields<'static>, ApiError> {
    let client_ip = client_ip.ok_or_else(|| ApiError::missing(CLIENT_IP))?;
    let mut fields = Fields::with_capacity(16);
    fields.set("wxAppId", request.wx_app_id.as_str().to_owned());
    fields.set("mchId", request.mch_id.as_str().to_owned());
    fields.set("mchBillno", request.order_no.as_str().to_owned());
    fields.set("openid", openid.as_str().to_owned());
    fields.set_number("amount", request.amount.get());
    fields.set(CLIENT_IP, client_ip.to_string());
    fields.set("actName", request.act_name.clone());
    fields.set("remark", request.remark.clone());
    fields.set_number("tradeRecordId", request.trade_record_id.0);
    for (name, text) in [
        ("sendName", &request.send_name),
        ("wishing", &request.wishing),
        ("notifyWay", &request.notify_way),
        ("environment", &request.environment),
    ] {
        if let Some(text) = text {
            fields.set(name, text.clone());
        }
    }
    for (name, value) in request.others.iter() {
        // The handler might use it instead of the recorded field: another amount, another openid.
        if let Some(field) = FIELDS.iter().find(|field| super::is_alike(name, field)) {
            return Err(ApiError::field(name.to_owned(), FieldRule::NotAlike(field)));
        }
        fields
            .push(name.to_owned().into(), value.clone())
            .map_err(Reason::Fields)?;
    }
    // Refuse now what cannot be written: after the claim it would be too late.
    encoding
        .can_carry(&fields)
        .map_err(|error| ApiError::field(error.field, FieldRule::XmlCarries))?;
    Ok(fields)
}

/// The request body to send. It adds the credentials last; the recorded parameters never hold them.
#[must_use]
pub fn body(parameters: &Parameters, credentials: &RequestCredentials, encoding: Encoding) -> String {
    if credentials.is_empty() {
        return match encoding {
            Encoding::Json => parameters.json().to_owned(),
            Encoding::Xml => encoding.encode(parameters).unwrap_or_default(),
        };
    }
    let mut fields = Fields::clone(parameters);
    for (name, secret) in [
        ("privateKey", &credentials.private_key),
        ("certKey", &credentials.cert_key),
        ("apiSecretKey", &credentials.api_secret_key),
    ] {
        if let Some(secret) = secret {
            fields.set(name, secret.expose().to_owned());
        }
    }
    encoding.encode(&fields).unwrap_or_default()
}

/// The fields of the status request.
#[must_use]
pub fn question(key: &OrderKey, app: &WxAppId, record_id: TradeRecordId) -> Fields<'static> {
    let mut fields = Fields::with_capacity(4);
    fields.set("wxAppId", app.as_str().to_owned());
    fields.set("mchId", key.mch_id.as_str().to_owned());
    fields.set("mchBillno", key.order_no.as_str().to_owned());
    fields.set_number("tradeRecordId", record_id.0);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;
    use crate::order::fixtures::request;
    use crate::secret::Secret;

    fn compose(changes: &[(&str, &str)], encoding: Encoding) -> Result<Fields<'static>, ApiError> {
        let openid = OpenId::parse("oX12abcdefghijk9f").unwrap();
        parameters(
            &request(changes),
            &openid,
            Some([203, 0, 113, 7].into()),
            encoding,
        )
    }

    #[test]
    fn a_handler_gets_the_openid_the_address_and_what_the_contract_does_not_know() {
        let least = compose(&[], Encoding::Json).unwrap();
        assert_eq!(
            json::encode(&least),
            r#"{"wxAppId":"wx1","mchId":"19","mchBillno":"A1","openid":"oX12abcdefghijk9f","amount":100,"clientIp":"203.0.113.7","actName":"a","remark":"r","tradeRecordId":7}"#
        );
        let older = [
            ("totalAmount", "100"),
            ("sendName", "s"),
            ("wishing", "w"),
            ("notifyWay", "n"),
            ("environment", "e"),
            ("zone", "z"),
            ("apiSecretKey", "hush"),
        ];
        let all = compose(&older, Encoding::Xml).unwrap();
        assert!(
            json::encode(&all).ends_with(
                r#""tradeRecordId":7,"sendName":"s","wishing":"w","notifyWay":"n","environment":"e","zone":"z"}"#
            ),
            "canonical names, no credentials: {all:?}"
        );
    }

    #[test]
    fn what_cannot_be_sent_is_refused_by_name() {
        let openid = OpenId::parse("o").unwrap();
        let without_address = parameters(&request(&[]), &openid, None, Encoding::Json).unwrap_err();
        assert!(without_address.text.contains("clientIp"), "{without_address}");
        let control = [("zone", "a\u{1}b")];
        assert!(compose(&control, Encoding::Json).is_ok());
        let fault = compose(&control, Encoding::Xml).unwrap_err();
        assert!(fault.text.starts_with("zone 无法写入 XML: "), "{fault}");
    }

    #[test]
    fn a_field_that_may_be_read_as_one_of_the_contracts_is_refused_by_name() {
        for (name, field) in [
            ("Amount", "amount"),
            ("AMOUNT", "amount"),
            ("TotalAmount", "totalAmount"),
            ("totalamount", "totalAmount"),
            ("openId", "openid"),
            ("OPENID", "openid"),
            ("MchBillNo", "mchBillno"),
            ("mchbillno", "mchBillno"),
            ("wxappid", "wxAppId"),
            ("mchid", "mchId"),
            ("ClientIP", "clientIp"),
            ("clıentİp", "clientIp"),
            ("actname", "actName"),
            ("remar\u{212a}", "remark"),
            ("TradeRecordID", "tradeRecordId"),
            ("\u{17f}endName", "sendName"),
            ("wi\u{17f}hing", "wishing"),
            ("NotifyWay", "notifyWay"),
            ("Environment", "environment"),
            ("PRIVATEKEY", "privateKey"),
            ("certkey", "certKey"),
            ("api\u{17f}ecret\u{212a}ey", "apiSecretKey"),
            ("mch_billno", "mchBillno"),
            ("_amount", "amount"),
            ("total-amount", "totalAmount"),
            ("OPEN_ID", "openid"),
        ] {
            for encoding in [Encoding::Json, Encoding::Xml] {
                let fault = compose(&[("zone", "z"), (name, "100")], encoding).unwrap_err();
                assert_eq!(
                    fault.to_string(),
                    format!("{name} 可能被当作 {field}: 请使用准确的名称 {field}, 且只传一次")
                );
            }
        }
        let long = ["amount", &"_".repeat(1000)].concat();
        for spaced in ["act name", &long] {
            let text = compose(&[(spaced, "1")], Encoding::Json).unwrap_err().text;
            assert!(text.chars().count() < 150, "{text}");
        }
        for other in [
            "amounts",
            "openid2",
            "re_openid",
            "_",
            "ämount",
            "账户",
            "sign",
            "nonceStr",
        ] {
            assert!(compose(&[(other, "1")], Encoding::Json).is_ok(), "{other}");
        }
    }

    /// Such fields as either encoding gives them. Reading the request still accepts them: towards WeChat they are
    /// ignored.
    #[test]
    fn such_a_field_is_no_mistake_of_the_request_itself() {
        let fields = [
            ("wxAppId", "wx1"),
            ("mchId", "19"),
            ("mchBillno", "A1"),
            ("openid", "user-1"),
            ("amount", "100"),
            ("actName", "a"),
            ("remark", "r"),
            ("tradeRecordId", "7"),
            ("\u{212a}", "1"),
            ("\u{17f}endName", "s"),
        ];
        let mut sent = Fields::new();
        for (name, text) in fields {
            sent.set(name, text);
        }
        for encoding in [Encoding::Json, Encoding::Xml] {
            let body = encoding.encode(&sent).unwrap();
            let request = SendRequest::read(encoding.decode(body.as_bytes()).unwrap()).unwrap();
            let openid = OpenId::parse("o").unwrap();
            let address = Some([203, 0, 113, 7].into());
            let fault = parameters(&request, &openid, address, encoding).unwrap_err();
            assert_eq!(
                fault.to_string(),
                "\u{17f}endName 可能被当作 sendName: 请使用准确的名称 sendName, 且只传一次"
            );
            assert_eq!(request.send_name, None);
        }
    }

    #[test]
    fn credentials_stand_in_the_body_only() {
        let parameters = Parameters::from(compose(&[], Encoding::Json).unwrap());
        let none = RequestCredentials::default();
        assert_eq!(
            body(&parameters, &none, Encoding::Json),
            json::encode(&parameters)
        );
        assert_eq!(
            body(&parameters, &none, Encoding::Xml),
            crate::xml::encode(&parameters).unwrap()
        );
        let secret = |text: &str| Some(Secret::new(text.to_owned()));
        let all = RequestCredentials {
            private_key: secret("p"),
            cert_key: secret("c"),
            api_secret_key: secret("a"),
        };
        assert!(
            body(&parameters, &all, Encoding::Json)
                .ends_with(r#""tradeRecordId":7,"privateKey":"p","certKey":"c","apiSecretKey":"a"}"#)
        );
        let one = RequestCredentials {
            cert_key: secret("c"),
            ..RequestCredentials::default()
        };
        assert!(body(&parameters, &one, Encoding::Json).ends_with(r#""tradeRecordId":7,"certKey":"c"}"#));
    }

    #[test]
    fn the_question_names_the_order() {
        let request = request(&[]);
        let fields = question(&request.key(), &request.wx_app_id, request.trade_record_id);
        assert_eq!(
            json::encode(&fields),
            r#"{"wxAppId":"wx1","mchId":"19","mchBillno":"A1","tradeRecordId":7}"#
        );
    }
}
