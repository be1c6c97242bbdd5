//! WeChat Pay v2 (`docs/wechat-pay.md`): what the sidecar sends, and what the responses prove.
//!
//! [`request`] composes exactly the documented fields of a payout (an extra one breaks the signature at WeChat),
//! [`answer`] reads what a payout's response proves, [`query`] asks for an order's status and reads the response.

mod answer;
mod query;
mod request;

pub use answer::evidence;
pub use query::{finding, query_body};
pub use request::{Texts, parameters};

use super::Product;
use super::sign::{SIGN, sign_md5};
use crate::fields::Fields;
use crate::secret::Secret;
use crate::xml;

/// The path of the call that pays.
#[must_use]
pub fn path(product: Product) -> &'static str {
    match product {
        Product::Redpack => "/mmpaymkttransfers/sendredpack",
        Product::MiniProgramRedpack => "/mmpaymkttransfers/sendminiprogramhb",
        Product::Transfer => "/mmpaymkttransfers/promotion/transfers",
    }
}

/// The path of the call that asks for the status.
#[must_use]
pub fn query_path(product: Product) -> &'static str {
    match product {
        Product::Redpack | Product::MiniProgramRedpack => "/mmpaymkttransfers/gethbinfo",
        Product::Transfer => "/mmpaymkttransfers/gettransferinfo",
    }
}

/// The body to post: the given fields that have a value (WeChat does not sign an empty one), `nonce_str`, and the
/// signature over all of them.
///
/// # Errors
/// [`xml::NotXml`] if a field holds what XML cannot carry; the contract refuses such texts before the claim.
pub fn signed_body(fields: &Fields<'_>, nonce: &str, api_key: &Secret) -> Result<String, xml::NotXml> {
    let mut body = fields.clone();
    body.drop_blank();
    body.set("nonce_str", nonce.to_owned());
    let signature = sign_md5(&body, api_key);
    body.set(SIGN, signature);
    xml::encode(&body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wechat::sign::verify_md5;
    use crate::xml::Nested;

    #[test]
    fn each_product_pays_and_is_asked_about_at_its_own_path() {
        for (product, pays, asks) in [
            (Product::Redpack, "sendredpack", "gethbinfo"),
            (Product::MiniProgramRedpack, "sendminiprogramhb", "gethbinfo"),
            (Product::Transfer, "promotion/transfers", "gettransferinfo"),
        ] {
            assert_eq!(path(product), format!("/mmpaymkttransfers/{pays}"));
            assert_eq!(query_path(product), format!("/mmpaymkttransfers/{asks}"));
        }
    }

    #[test]
    fn a_field_without_a_value_is_not_posted() {
        let mut fields = Fields::new();
        fields.set("mch_id", "19");
        fields.set("scene_id", "");
        let body = signed_body(&fields, "n", &Secret::new("k".into())).unwrap();
        let posted = xml::decode(&body, Nested::Refuse).unwrap();
        let names: Vec<_> = posted.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["mch_id", "nonce_str", "sign"]);
    }

    proptest::proptest! {
        #[test]
        fn what_is_posted_decodes_to_exactly_what_was_signed(texts in proptest::collection::vec("[\\]\\[<>&\r\n\t !-~中😀]+", 1..9)) {
            let key = Secret::new("k".into());
            let mut fields = Fields::new();
            for (n, text) in texts.iter().enumerate() {
                fields.push(format!("f{n}").into(), crate::fields::Value::Text(text.into())).unwrap();
            }
            let body = signed_body(&fields, "nonce", &key).unwrap();
            let mut posted = xml::decode(&body, Nested::Refuse).unwrap();
            let signature = posted.take(SIGN).unwrap();
            proptest::prop_assert!(verify_md5(&posted, &key, signature.characters()));
            fields.set("nonce_str", "nonce");
            proptest::prop_assert_eq!(posted, fields);
        }
    }
}
