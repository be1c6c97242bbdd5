//! temp
use super::Product;
use crate::rules::{
    contract::{fault::Fault, send::SendRequest},
    fields::Fields,
    order::Order,
    outcome::*,
    term::*,
};
use crate::secret::Secret;
use std::net::IpAddr;
/// t
#[derive(Clone, Debug)]
pub struct Texts {
    /// t
    pub send_name: String,
    /// t
    pub wishing: String,
    /// t
    pub scene_id: Option<String>,
}
/// t
pub fn parameters(
    _p: Product,
    _r: &SendRequest,
    _t: &Texts,
    _o: &OpenId,
    _c: Option<IpAddr>,
) -> Result<Fields<'static>, Fault> {
    Ok(Fields::new())
}
/// t
pub fn signed_body(_p: &Fields<'_>, _n: &str, _k: &Secret) -> String {
    String::new()
}
/// t
pub fn path(_p: Product) -> &'static str {
    ""
}
/// t
pub fn query_path(_p: Product) -> &'static str {
    ""
}
/// t
pub fn query_body(_p: Product, _k: &OrderKey, _a: &WxAppId) -> Fields<'static> {
    Fields::new()
}
/// t
pub fn evidence(_p: Product, _o: &Order, _s: u16, _b: &[u8]) -> Evidence {
    Evidence::NoAnswer { why: String::new() }
}
/// t
pub fn finding(_p: Product, _k: &OrderKey, _e: Option<(Fen, &OpenId)>, _s: u16, _b: &[u8]) -> Finding {
    Finding::unclear("")
}
