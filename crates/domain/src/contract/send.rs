//! The request to pay, `POST /pay/sendApiRedPack` (`docs/api.md`): its fields, their limits, and how it is read.

use std::net::IpAddr;

use crate::contract::error::ApiError;
use crate::contract::field_reader::FieldReader;
use crate::contract::reason::FieldRule;
use crate::fields::Fields;
use crate::ids::{Fen, Malformed, MchId, OrderKey, OrderNo, TradeRecordId, UserId, WxAppId};
use crate::secret::Secret;

/// The contract's field `clientIp`.
pub const CLIENT_IP: &str = "clientIp";
/// The value of `notifyWay` that asks for a mini-program red packet.
pub const MINI_PROGRAM_JSAPI: &str = "MINI_PROGRAM_JSAPI";

/// Every field that the contract knows, with older names and credentials (`docs/api.md`).
pub const FIELDS: [&str; 17] = [
    "wxAppId",
    "mchId",
    "mchBillno",
    "openid",
    "amount",
    "totalAmount",
    CLIENT_IP,
    "actName",
    "remark",
    "tradeRecordId",
    "sendName",
    "wishing",
    "notifyWay",
    "environment",
    "privateKey",
    "certKey",
    "apiSecretKey",
];

/// The most characters of `actName` (`docs/api.md`).
const ACT_NAME_CHARS: usize = 32;
/// The most characters of `remark` (`docs/api.md`).
const REMARK_CHARS: usize = 256;
/// The most characters of an older revision's texts. Each product cuts them to its own limit later.
const OLDER_TEXT_CHARS: usize = 256;

/// A request to pay, checked against every limit of the contract that does not depend on the merchant.
#[derive(Debug)]
pub struct SendRequest {
    /// The app that the openid belongs to.
    pub wx_app_id: WxAppId,
    /// The merchant that pays.
    pub mch_id: MchId,
    /// `mchBillno`.
    pub order_no: OrderNo,
    /// The field `openid`: the customer's user id.
    pub user_id: UserId,
    /// `amount`, or `totalAmount` in an older revision.
    pub amount: Fen,
    /// `clientIp` as the platform sent it; `[client_ip]` decides which address the upstream gets.
    pub client_ip: Option<String>,
    /// `actName`, 1 to 32 characters.
    pub act_name: String,
    /// `remark`, 1 to 256 characters.
    pub remark: String,
    /// `tradeRecordId`.
    pub trade_record_id: TradeRecordId,
    /// `sendName` of an older revision; it wins over the merchant's.
    pub send_name: Option<String>,
    /// `wishing` of an older revision; it wins over the merchant's.
    pub wishing: Option<String>,
    /// `notifyWay`.
    pub notify_way: Option<String>,
    /// `environment`: the sidecar passes it on to a handler and never interprets it.
    pub environment: Option<String>,
    /// Credentials in the request.
    pub credentials: RequestCredentials,
    /// The fields that the contract does not know, for a handler.
    pub others: Fields<'static>,
}

/// A merchant's credentials in a request. The sidecar uses them only if the merchant's configuration allows it.
#[derive(Clone, Debug, Default)]
pub struct RequestCredentials {
    /// `privateKey`: the key of the client certificate.
    pub private_key: Option<Secret>,
    /// `certKey`: the client certificate.
    pub cert_key: Option<Secret>,
    /// `apiSecretKey`: the v2 API key.
    pub api_secret_key: Option<Secret>,
}

impl RequestCredentials {
    /// Whether the request carries none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.private_key.is_none() && self.cert_key.is_none() && self.api_secret_key.is_none()
    }

    pub(super) fn read(fields: &mut FieldReader<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            private_key: fields.text("privateKey")?.map(Secret::new),
            cert_key: fields.text("certKey")?.map(Secret::new),
            api_secret_key: fields.text("apiSecretKey")?.map(Secret::new),
        })
    }
}

impl SendRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// `PARAM_ERROR` with the field's name if a required field is missing, a value has the wrong type or breaks its
    /// limit, or `amount` and `totalAmount` differ.
    pub fn read(fields: Fields<'_>) -> Result<Self, ApiError> {
        let mut fields = FieldReader(fields);
        Ok(Self {
            wx_app_id: fields.parsed("wxAppId", WxAppId::parse)?,
            mch_id: fields.parsed("mchId", MchId::parse)?,
            order_no: fields.parsed("mchBillno", OrderNo::parse)?,
            user_id: fields.parsed("openid", UserId::parse)?,
            amount: read_amount(&mut fields)?,
            client_ip: fields.text(CLIENT_IP)?,
            act_name: fields
                .words("actName", ACT_NAME_CHARS)?
                .ok_or_else(|| ApiError::missing("actName"))?,
            remark: fields
                .words("remark", REMARK_CHARS)?
                .ok_or_else(|| ApiError::missing("remark"))?,
            trade_record_id: read_record_id(&mut fields)?,
            send_name: fields.words("sendName", OLDER_TEXT_CHARS)?,
            wishing: fields.words("wishing", OLDER_TEXT_CHARS)?,
            notify_way: fields.text("notifyWay")?,
            environment: fields.text("environment")?,
            credentials: RequestCredentials::read(&mut fields)?,
            others: fields.0.into_owned(),
        })
    }

    /// Identifies the order.
    #[must_use]
    pub fn key(&self) -> OrderKey {
        OrderKey {
            mch_id: self.mch_id.clone(),
            order_no: self.order_no.clone(),
        }
    }

    /// `clientIp` as an address. An IPv4 address written as IPv6 (`::ffff:203.0.113.7`) becomes the IPv4 address,
    /// because red packets accept no other.
    ///
    /// # Errors
    /// `PARAM_ERROR` with the field's name if the field is there and is not an IP address.
    pub fn client_address(&self) -> Result<Option<IpAddr>, ApiError> {
        let Some(text) = &self.client_ip else {
            return Ok(None);
        };
        let address: IpAddr = text
            .parse()
            .map_err(|_| ApiError::field(CLIENT_IP, FieldRule::IpAddress))?;
        Ok(Some(address.to_canonical()))
    }

    /// Whether the caller asks for a mini-program red packet.
    #[must_use]
    pub fn wants_mini_program(&self) -> bool {
        self.notify_way.as_deref() == Some(MINI_PROGRAM_JSAPI)
    }
}

/// Reads the amount under either name. Two different values are an error: nothing says which one counts.
fn read_amount(fields: &mut FieldReader<'_>) -> Result<Fen, ApiError> {
    let fen = |name: &'static str, given: Option<i64>| {
        given
            .map(|fen| Fen::new(fen).map_err(|rule| ApiError::field(name, FieldRule::Type(rule))))
            .transpose()
    };
    let amount = fields.integer("amount", FieldRule::Type(Malformed::Fen))?;
    let older = fields.integer("totalAmount", FieldRule::Type(Malformed::Fen))?;
    match (fen("amount", amount)?, fen("totalAmount", older)?) {
        (Some(amount), Some(older)) if amount != older => {
            Err(ApiError::field("amount", FieldRule::SameAmount))
        }
        (Some(amount), _) | (None, Some(amount)) => Ok(amount),
        (None, None) => Err(ApiError::missing("amount")),
    }
}

pub(super) fn read_record_id(fields: &mut FieldReader<'_>) -> Result<TradeRecordId, ApiError> {
    let id = fields.integer("tradeRecordId", FieldRule::Integer)?;
    id.map(TradeRecordId)
        .ok_or_else(|| ApiError::missing("tradeRecordId"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    const GOOD: &[(&str, &str)] = &[
        ("wxAppId", "\"wx8888888888888888\""),
        ("mchId", "\"1900000109\""),
        ("mchBillno", "\"A1\""),
        ("openid", "\"user-1\""),
        ("amount", "100"),
        ("clientIp", "\"10.0.0.1\""),
        ("actName", "\"活动\""),
        ("remark", "\"备注\""),
        ("tradeRecordId", "7"),
    ];

    /// The good request with some fields replaced (an empty token leaves the field out) and others added.
    fn read(changes: &[(&str, &str)]) -> Result<SendRequest, String> {
        let mut entries: Vec<(&str, &str)> = GOOD.to_vec();
        for &(name, token) in changes {
            entries.retain(|(n, _)| *n != name);
            if !token.is_empty() {
                entries.push((name, token));
            }
        }
        let body: Vec<String> = entries
            .iter()
            .map(|(name, token)| format!("\"{name}\":{token}"))
            .collect();
        let text = format!("{{{}}}", body.join(","));
        let fields = json::decode(&text).map_err(|error| error.chinese())?;
        SendRequest::read(fields).map_err(|fault| fault.text.into_owned())
    }

    #[test]
    fn a_request_without_credentials_or_wishes_says_so() {
        let plain = read(&[]).unwrap();
        assert!(plain.credentials.is_empty() && !plain.wants_mini_program());
        for name in ["privateKey", "certKey", "apiSecretKey"] {
            assert!(
                !read(&[(name, "\"k\"")]).unwrap().credentials.is_empty(),
                "{name}"
            );
        }
        assert!(
            read(&[("notifyWay", "\"MINI_PROGRAM_JSAPI\"")])
                .unwrap()
                .wants_mini_program()
        );
        assert!(!read(&[("notifyWay", "\"OTHER\"")]).unwrap().wants_mini_program());
    }

    #[test]
    fn a_good_request_is_read_whole() {
        let request = read(&[("zone", "{\"a\":1}"), ("apiSecretKey", "\"k\"")]).unwrap();
        assert_eq!(request.amount.get(), 100);
        assert_eq!(request.user_id.as_str(), "user-1");
        assert_eq!(request.others.len(), 1);
        assert!(
            request
                .credentials
                .api_secret_key
                .is_some_and(|key| key.matches("k"))
        );
    }

    #[test]
    fn every_field_that_the_contract_knows_is_read() {
        let all: Vec<_> = FIELDS
            .iter()
            .map(|name| match GOOD.iter().find(|(good, _)| good == name) {
                Some(good) => *good,
                None if *name == "totalAmount" => (*name, "100"),
                None => (*name, "\"x\""),
            })
            .collect();
        assert!(read(&all).unwrap().others.is_empty());
    }

    #[test]
    fn each_required_field_is_missed_by_name() {
        for name in [
            "wxAppId",
            "mchId",
            "mchBillno",
            "openid",
            "amount",
            "actName",
            "remark",
            "tradeRecordId",
        ] {
            for blank in ["", "\"\"", "null"] {
                assert_eq!(
                    read(&[(name, blank)]).unwrap_err(),
                    format!("{name} 缺失或为空: 此字段必填")
                );
            }
        }
        assert!(read(&[("clientIp", "")]).is_ok());
    }

    #[test]
    fn amounts_are_integers_and_nothing_else() {
        for good in ["1", "\"1\"", "2147483647", "\"2147483647\"", "\"0001\""] {
            assert!(read(&[("amount", good)]).is_ok(), "{good}");
        }
        for bad in [
            "1.0",
            "1e2",
            "\"1.0\"",
            "\"1e2\"",
            "\"+1\"",
            "\" 1 \"",
            "\"1 \"",
            "\"-1\"",
            "-1",
            "0",
            "\"0\"",
            "2147483648",
            "\"2147483648\"",
            "99999999999999999999",
            "\"１\"",
            "\"0x1\"",
            "true",
            "[1]",
            "{}",
            "\"\\u00001\"",
            "\"1,000\"",
        ] {
            assert_eq!(
                read(&[("amount", bad)]).unwrap_err(),
                "amount 金额不正确: 须为 1 至 2147483647 的整数(分)",
                "{bad}"
            );
        }
    }

    #[test]
    fn the_older_name_of_the_amount_is_taken_where_it_agrees() {
        assert_eq!(
            read(&[("amount", ""), ("totalAmount", "5")])
                .unwrap()
                .amount
                .get(),
            5
        );
        assert!(read(&[("amount", "5"), ("totalAmount", "\"5\"")]).is_ok());
        assert!(
            read(&[("amount", "5"), ("totalAmount", "6")])
                .unwrap_err()
                .starts_with("amount 与 totalAmount 不一致: ")
        );
        assert!(
            read(&[("amount", "5"), ("totalAmount", "\"x\"")])
                .unwrap_err()
                .starts_with("totalAmount 金额不正确: ")
        );
    }

    #[test]
    fn limits_and_types_of_the_other_fields() {
        for (name, token, ok) in [
            ("wxAppId", "\"wx_-9\"", true),
            ("wxAppId", "\"a b\"", false),
            ("wxAppId", "\"a:b\"", false),
            ("wxAppId", "\"a{b}\"", false),
            ("wxAppId", "5", false),
            ("mchId", "\"19x\"", false),
            ("mchId", "1900000109", false),
            ("mchBillno", "\"a-1\"", false),
            ("mchBillno", "\"123456789012345678901234567890123\"", false),
            ("openid", "\"a\\u0007\"", false),
            ("openid", "7", false),
            ("actName", "\"12345678901234567890123456789012\"", true),
            (
                "actName",
                "\"一二三四五六七八九十一二三四五六七八九十一二三四五六七八九十一二\"",
                true,
            ),
            ("actName", "\"123456789012345678901234567890123\"", false),
            ("actName", "7", false),
            ("remark", "\"a\\u0000b\"", false),
            ("remark", "\"a\\r\\n\\tb😀\"", true),
            ("tradeRecordId", "9223372036854775807", true),
            ("tradeRecordId", "\"9223372036854775807\"", true),
            ("tradeRecordId", "-5", true),
            ("tradeRecordId", "9223372036854775808", false),
            ("tradeRecordId", "1.5", false),
            ("tradeRecordId", "\"a\"", false),
            ("sendName", "7", false),
            ("wishing", "[]", false),
            ("notifyWay", "true", false),
            ("environment", "{}", false),
            ("apiSecretKey", "1", false),
        ] {
            let read = read(&[(name, token)]);
            assert_eq!(read.is_ok(), ok, "{name}={token}: {read:?}");
            if let Err(text) = read {
                assert!(text.starts_with(&format!("{name} ")), "{text}");
            }
        }
        assert!(read(&[("remark", &format!("\"{}\"", "备".repeat(256)))]).is_ok());
        assert!(read(&[("remark", &format!("\"{}\"", "备".repeat(257)))]).is_err());
        assert!(read(&[("openid", &format!("\"{}\"", "用".repeat(129)))]).is_err());
    }

    #[test]
    fn an_ipv4_address_written_as_ipv6_is_the_ipv4_address() {
        for (token, address) in [
            ("", Some(None)),
            ("\"203.0.113.7\"", Some(Some("203.0.113.7"))),
            ("\"::ffff:203.0.113.7\"", Some(Some("203.0.113.7"))),
            ("\"::FFFF:cb00:7107\"", Some(Some("203.0.113.7"))),
            ("\"2001:db8::1\"", Some(Some("2001:db8::1"))),
            ("\"203.0.113.7:80\"", None),
            ("\"localhost\"", None),
        ] {
            let read = read(&[("clientIp", token)]).unwrap().client_address();
            match address {
                Some(address) => assert_eq!(read.unwrap().map(|ip| ip.to_string()).as_deref(), address),
                None => assert!(read.unwrap_err().text.contains("clientIp"), "{token}"),
            }
        }
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let request = read(&[
            ("privateKey", "\"marked\""),
            ("certKey", "\"marked\""),
            ("apiSecretKey", "\"marked\""),
        ]);
        assert!(!format!("{request:?}").contains("marked"));
    }
}
