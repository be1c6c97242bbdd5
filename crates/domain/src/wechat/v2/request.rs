//! A payout's parameters: exactly the fields that WeChat documents for the product, without `nonce_str` and `sign`
//! (`docs/wechat-pay.md`).
//!
//! The claim records them and every attempt sends them, so everything about them is decided here, once.

use std::net::IpAddr;

use crate::contract::error::ApiError;
use crate::contract::reason::{FieldRule, Reason};
use crate::contract::send::{CLIENT_IP, MINI_PROGRAM_JSAPI, SendRequest};
use crate::fields::Fields;
use crate::ids::OpenId;
use crate::text::cut;
use crate::wechat::Product;

/// A merchant's texts for red packets.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// The sender's name that the user sees; an older revision's `sendName` wins.
    pub send_name: String,
    /// The wish that the user sees; an older revision's `wishing` wins.
    pub wishing: String,
    /// The scene, for amounts outside 1 to 200 yuan.
    pub scene_id: Option<String>,
}

/// WeChat's limits, in characters.
const SEND_NAME: usize = 32;
const WISHING: usize = 128;
const ACT_NAME: usize = 32;
const REMARK: usize = 256;
const DESC: usize = 100;
/// WeChat documents a red packet's `re_openid` as String(32), a transfer's `openid` as String(64).
const RED_PACKET_OPENID: usize = 32;

/// Composes the parameters. `client_ip` is the address that `[client_ip]` chose.
///
/// # Errors
/// The field at fault, by name: the order number or the openid is too long for a red packet, or the client address
/// is missing where the product needs one, is not IPv4 for a red packet, or has more than 32 characters for a
/// transfer.
pub fn parameters(
    product: Product,
    request: &SendRequest,
    texts: &Texts,
    openid: &OpenId,
    client_ip: Option<IpAddr>,
) -> Result<Fields<'static>, ApiError> {
    match product {
        Product::Redpack => {
            let mut fields = red_packet(request, texts, openid)?;
            // WeChat's String(15) holds no IPv6 address.
            match client_ip {
                Some(IpAddr::V4(address)) => fields.set("client_ip", address.to_string()),
                Some(IpAddr::V6(_)) => {
                    return Err(ApiError::field(CLIENT_IP, FieldRule::Ipv4Address));
                }
                None => return Err(ApiError::missing(CLIENT_IP)),
            }
            Ok(fields)
        }
        Product::MiniProgramRedpack => {
            let mut fields = red_packet(request, texts, openid)?;
            fields.set("notify_way", MINI_PROGRAM_JSAPI);
            Ok(fields)
        }
        Product::Transfer => {
            let address = client_ip.ok_or_else(|| ApiError::missing(CLIENT_IP))?.to_string();
            if address.len() > 32 {
                return Err(ApiError::field(CLIENT_IP, FieldRule::ShortAddress));
            }
            let mut fields = Fields::with_capacity(10);
            fields.set("mch_appid", request.wx_app_id.as_str().to_owned());
            fields.set("mchid", request.mch_id.as_str().to_owned());
            fields.set("partner_trade_no", request.order_no.as_str().to_owned());
            fields.set("openid", openid.as_str().to_owned());
            fields.set("check_name", "NO_CHECK");
            fields.set("amount", request.amount.to_string());
            fields.set("desc", cut(&request.remark, DESC).to_owned());
            fields.set("spbill_create_ip", address);
            Ok(fields)
        }
    }
}

/// The fields that both kinds of red packets share.
fn red_packet(request: &SendRequest, texts: &Texts, openid: &OpenId) -> Result<Fields<'static>, ApiError> {
    if !request.order_no.fits_red_packet() {
        return Err(ApiError::field("mchBillno", FieldRule::RedPacketNumber));
    }
    if openid.as_str().len() > RED_PACKET_OPENID {
        return Err(Reason::LongOpenid.into());
    }
    let send_name = request.send_name.as_deref().unwrap_or(&texts.send_name);
    let wishing = request.wishing.as_deref().unwrap_or(&texts.wishing);
    let mut fields = Fields::with_capacity(15);
    fields.set("mch_billno", request.order_no.as_str().to_owned());
    fields.set("mch_id", request.mch_id.as_str().to_owned());
    fields.set("wxappid", request.wx_app_id.as_str().to_owned());
    fields.set("send_name", cut(send_name, SEND_NAME).to_owned());
    fields.set("re_openid", openid.as_str().to_owned());
    fields.set("total_amount", request.amount.to_string());
    fields.set("total_num", "1");
    fields.set("wishing", cut(wishing, WISHING).to_owned());
    fields.set("act_name", cut(&request.act_name, ACT_NAME).to_owned());
    fields.set("remark", cut(&request.remark, REMARK).to_owned());
    if let Some(scene) = &texts.scene_id {
        fields.set("scene_id", scene.clone());
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::err_code::ErrCode;
    use crate::order::fixtures::request;

    fn names(fields: &Fields<'_>) -> Vec<String> {
        fields.iter().map(|(name, _)| name.to_owned()).collect()
    }

    fn compose(product: Product, changes: &[(&str, &str)]) -> Result<Fields<'static>, ApiError> {
        let texts = Texts {
            send_name: "商户".into(),
            wishing: "恭喜".into(),
            scene_id: Some("PRODUCT_2".into()),
        };
        let openid = OpenId::parse("oX12abcdefghijk9f").unwrap();
        parameters(
            product,
            &request(changes),
            &texts,
            &openid,
            Some([203, 0, 113, 7].into()),
        )
    }

    #[test]
    fn exactly_the_documented_fields_are_sent() {
        let common = [
            "mch_billno",
            "mch_id",
            "wxappid",
            "send_name",
            "re_openid",
            "total_amount",
            "total_num",
            "wishing",
            "act_name",
            "remark",
            "scene_id",
        ];
        let red = compose(Product::Redpack, &[]).unwrap();
        assert_eq!(names(&red), [&common[..], &["client_ip"]].concat());
        let mini = compose(Product::MiniProgramRedpack, &[]).unwrap();
        assert_eq!(names(&mini), [&common[..], &["notify_way"]].concat());
        let transfer = compose(Product::Transfer, &[]).unwrap();
        assert_eq!(
            names(&transfer),
            [
                "mch_appid",
                "mchid",
                "partner_trade_no",
                "openid",
                "check_name",
                "amount",
                "desc",
                "spbill_create_ip"
            ]
        );
        assert_eq!(
            red.characters("re_openid"),
            Some("oX12abcdefghijk9f"),
            "never the user id"
        );
        assert_eq!(red.characters("client_ip"), Some("203.0.113.7"));
    }

    #[test]
    fn an_older_revisions_texts_win_over_the_merchants() {
        let fields = compose(Product::Redpack, &[("sendName", "别名"), ("wishing", "祝")]).unwrap();
        assert_eq!(
            (fields.characters("send_name"), fields.characters("wishing")),
            (Some("别名"), Some("祝"))
        );
    }

    #[test]
    fn what_does_not_fit_the_product_is_refused_by_name() {
        let long = "A".repeat(29);
        let fault = compose(Product::Redpack, &[("mchBillno", &long)]).unwrap_err();
        assert!(fault.text.starts_with("mchBillno 单号过长: "), "{fault}");
        assert!(compose(Product::Transfer, &[("mchBillno", &long)]).is_ok());
        let address = |text: &str| Some(text.parse().unwrap());
        let v6 = address("2001:db8::1");
        let openid = OpenId::parse("o").unwrap();
        let texts = Texts::default();
        for (product, address, ok) in [
            (Product::Redpack, v6, false),
            (Product::Redpack, None, false),
            (Product::MiniProgramRedpack, None, true),
            (Product::Transfer, v6, true),
            // String(32): 32 and 33 characters.
            (
                Product::Transfer,
                address("2001:db8:1111:2222:3333:4444:5:6"),
                true,
            ),
            (
                Product::Transfer,
                address("2001:db8:1111:2222:3333:4444:5:66"),
                false,
            ),
            (Product::Transfer, None, false),
        ] {
            assert_eq!(
                parameters(product, &request(&[]), &texts, &openid, address).is_ok(),
                ok,
                "{product:?} {address:?}"
            );
        }
        let longest = OpenId::parse(&"o".repeat(32)).unwrap();
        let v4 = address("203.0.113.7");
        assert!(parameters(Product::Redpack, &request(&[]), &texts, &longest, v4).is_ok());
        let long_openid = OpenId::parse(&"o".repeat(33)).unwrap();
        let fault = parameters(Product::Redpack, &request(&[]), &texts, &long_openid, v6).unwrap_err();
        assert_eq!(fault.code, ErrCode::OpenidError);
    }

    #[test]
    fn texts_are_cut_to_the_products_limit() {
        let remark = "备".repeat(256);
        let fields = compose(Product::Transfer, &[("remark", &remark)]).unwrap();
        assert_eq!(
            fields.characters("desc").map(|text| text.chars().count()),
            Some(100)
        );
        let fields = compose(
            Product::Redpack,
            &[("remark", &remark), ("sendName", &remark), ("wishing", &remark)],
        )
        .unwrap();
        let count = |name| fields.characters(name).map(|text| text.chars().count());
        assert_eq!(
            (count("remark"), count("send_name"), count("wishing")),
            (Some(256), Some(32), Some(128))
        );
    }
}
