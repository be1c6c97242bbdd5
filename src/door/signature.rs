//! `sign_key`: the request's own signature, `sign` over all its fields with `nonceStr`, made as WeChat v2 makes one.
//!
//! It can only be looked at once the body is read, so it is the door's inner half, and no layer.

use crate::rules::contract::fault::{ErrCode, Fault};
use crate::rules::fields::Fields;
use crate::rules::wechat::sign::verify_md5;
use crate::secret::Secret;

/// Checks the signature and takes it and its nonce out of the request.
///
/// # Errors
/// When either is missing or the signature is wrong, then `SIGN_ERROR`.
pub fn check(fields: &mut Fields<'_>, key: &Secret) -> Result<(), Fault> {
    let fault = |text: &'static str| Fault::new(ErrCode::SignError, text);
    let sign = fields
        .characters("sign")
        .map(str::to_owned)
        .ok_or_else(|| fault("签名错误: sign is required"))?;
    if fields.characters("nonceStr").is_none() {
        return Err(fault("签名错误: nonceStr is required"));
    }
    if !verify_md5(fields, key, &sign) {
        return Err(fault("签名错误: sign does not fit the request's fields"));
    }
    fields.take("sign");
    fields.take("nonceStr");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::wechat::sign::sign_md5;

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
}
