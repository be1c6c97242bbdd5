//! Why a request is refused, as values: the code and the Chinese text for the caller both follow from the value. A
//! text names the field at fault as the contract writes it, says what is wrong and what to do.

use std::borrow::Cow;

use crate::contract::err_code::ErrCode;
use crate::encoding::{DecodeError, EncodingError};
use crate::fields::FieldsError;
use crate::ids::{Malformed, MchId};
use crate::text::named;

/// What a field must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldRule {
    /// There, and not blank.
    Required,
    /// A JSON string.
    Text,
    /// A value of one of the domain's types.
    Type(Malformed),
    /// An integer of 64 bits.
    Integer,
    /// At most so many characters.
    MaxChars(usize),
    /// Without characters that XML forbids.
    NoControls,
    /// An IP address.
    IpAddress,
    /// An IPv4 address, for red packets.
    Ipv4Address,
    /// An address of at most 32 characters, for v2 transfers.
    ShortAddress,
    /// An order number of at most 28 characters, for red packets.
    RedPacketNumber,
    /// The same amount as `totalAmount`.
    SameAmount,
    /// Not spelled like this field of the contract, since a handler may read it as that field.
    NotAlike(&'static str),
    /// With a name and a value that XML can carry, for a handler that gets XML.
    XmlCarries,
    /// At least so many fen, for v3 transfers.
    LeastFen(i64),
    /// Below so many fen, for v3 transfers: WeChat Pay asks for the user's name from there on.
    BelowFen(i64),
    /// With at least one character of Unicode's basic plane, for v3 transfers.
    BasicCharacters,
}

impl FieldRule {
    /// The rule as it follows the field's name.
    #[must_use]
    pub fn chinese(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Required => "缺失或为空: 此字段必填",
            Self::Text => "类型不正确: 须为字符串",
            Self::Type(malformed) => malformed.chinese(),
            Self::Integer => "不正确: 须为 64 位整数",
            Self::MaxChars(max) => return Cow::Owned(format!("过长: 最多 {max} 个字符")),
            Self::NoControls => "含有控制字符: 请删除 (制表符、换行、回车除外)",
            Self::IpAddress => "地址不正确: 须为 IP 地址, 不带端口",
            Self::Ipv4Address => "地址不正确: 红包须为 IPv4 地址",
            Self::ShortAddress => "地址过长: 付款到零钱最多 32 个字符",
            Self::RedPacketNumber => "单号过长: 红包最多 28 位字母或数字",
            Self::SameAmount => "与 totalAmount 不一致: 请只传其一, 或传相同的值",
            Self::NotAlike(field) => {
                return Cow::Owned(format!(
                    "可能被当作 {field}: 请使用准确的名称 {field}, 且只传一次"
                ));
            }
            Self::XmlCarries => "无法写入 XML: 请删除名称或值中 XML 不允许的字符",
            Self::LeastFen(least) => {
                return Cow::Owned(format!("金额过小: 商家转账(v3)须不少于 {least} 分"));
            }
            Self::BelowFen(bound) => {
                return Cow::Owned(format!(
                    "金额过大: 商家转账(v3)须小于 {bound} 分, 达到此金额时微信支付要求收款用户姓名"
                ));
            }
            Self::BasicCharacters => "没有可用的字符: 微信支付 v3 不接受表情等基本平面以外的字符",
        })
    }
}

/// Why the sidecar sent nothing, although the request is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The openid store is out of reach.
    Openids,
    /// The ledger is out of reach.
    Ledger,
    /// The upstream cannot be reached.
    Upstream,
    /// The ledger names a limit that the order does not have.
    Limit,
}

impl NotSent {
    fn chinese(self) -> &'static str {
        match self {
            Self::Openids => "用户ID存储无法访问",
            Self::Ledger => "台账无法访问",
            Self::Upstream => "上游无法连接",
            Self::Limit => "超过限额",
        }
    }
}

/// Which limit a payout would exceed; amounts in fen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OverLimit {
    /// `max_amount`: of one payout.
    Payout(i64),
    /// `per_user_per_day`.
    User(i64),
    /// `per_merchant_per_day` of this merchant.
    Merchant(MchId, i64),
    /// `payouts_per_user_per_day`: a number of payouts.
    Count(i64),
}

impl OverLimit {
    fn chinese(&self) -> String {
        match self {
            Self::Payout(max) => format!("超过单笔限额: amount 最多 {max} 分 (max_amount)"),
            Self::User(limit) => {
                format!("超过用户单日限额: 每个用户每天最多 {limit} 分 (per_user_per_day)")
            }
            Self::Merchant(mch_id, limit) => {
                format!("超过商户单日限额: mchId {mch_id} 每天最多 {limit} 分 (per_merchant_per_day)")
            }
            Self::Count(limit) => {
                format!("超过用户单日次数: 每个用户每天最多 {limit} 次 (payouts_per_user_per_day)")
            }
        }
    }
}

/// What is wrong with a request's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignFault {
    /// `sign` is missing.
    NoSign,
    /// `nonceStr` is missing.
    NoNonce,
    /// `sign` is not the signature of the request's fields.
    Wrong,
    /// A field has this name, which the signed text cannot carry in one way only.
    Name(String),
    /// `nonceStr` has characters that the signed text cannot carry in one way only.
    Nonce,
    /// The value of this field could be read as another field.
    Value(String),
}

impl SignFault {
    fn chinese(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::NoSign => "sign 缺失或为空, 此字段必填",
            Self::NoNonce => "nonceStr 缺失或为空, 此字段必填",
            Self::Wrong => "sign 与请求的字段不符, 请检查密钥和签名算法",
            Self::Name(name) => {
                return Cow::Owned(format!("{} 名称不正确, 只能含字母、数字和 _", named(name)));
            }
            Self::Nonce => "nonceStr 不正确, 只能含字母、数字和 _",
            Self::Value(name) => {
                return Cow::Owned(format!(
                    "{} 的值不能含有形如 \"&名称=\" 的内容, 否则签名原文会有歧义",
                    named(name)
                ));
            }
        })
    }
}

/// Why a request is not accepted, or why a payout did not succeed for one of the contract's own reasons.
#[derive(Debug)]
pub enum Reason {
    /// This field breaks this rule.
    Field(Cow<'static, str>, FieldRule),
    /// The body cannot be read.
    Body(DecodeError),
    /// The body's encoding is not the contract's.
    Encoding(EncodingError),
    /// Fields from elsewhere in the request do not fit in.
    Fields(FieldsError),
    /// This field of a repeat differs from the first request.
    Differs(&'static str),
    /// No merchant entry matches the request.
    NoMerchant,
    /// The user id is unknown under this app.
    NoOpenid,
    /// The user's openid is too long for a red packet.
    LongOpenid,
    /// The sidecar has sent nothing and recorded nothing; the caller may use the same number again.
    NotSent(NotSent),
    /// The order may have been paid.
    Unknown,
    /// Another request is paying this order right now.
    Processing,
    /// Neither the ledger nor the upstream knows the order.
    NotFound,
    /// Over a configured limit.
    OverLimit(OverLimit),
    /// The request's signature is wrong.
    Sign(SignFault),
}

impl Reason {
    /// The error code.
    #[must_use]
    pub fn code(&self) -> ErrCode {
        match self {
            Self::Field(..) | Self::Body(_) | Self::Encoding(_) | Self::Fields(_) | Self::Differs(_) => {
                ErrCode::ParamError
            }
            Self::NoMerchant => ErrCode::NoAuth,
            Self::NoOpenid | Self::LongOpenid => ErrCode::OpenidError,
            Self::NotSent(_) | Self::Unknown => ErrCode::SystemError,
            Self::Processing => ErrCode::Processing,
            Self::NotFound => ErrCode::NotFound,
            Self::OverLimit(OverLimit::Payout(_) | OverLimit::User(_) | OverLimit::Merchant(..)) => {
                ErrCode::AmountLimit
            }
            Self::OverLimit(OverLimit::Count(_)) => ErrCode::FreqLimit,
            Self::Sign(_) => ErrCode::SignError,
        }
    }

    /// The text for the caller.
    #[must_use]
    pub fn chinese(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Field(name, rule) => {
                return Cow::Owned(format!("{} {}", named(name), rule.chinese()));
            }
            Self::Body(error) => return Cow::Owned(error.chinese()),
            Self::Encoding(error) => return Cow::Owned(error.chinese()),
            Self::Fields(error) => return Cow::Owned(error.chinese()),
            Self::Differs(name) => {
                return Cow::Owned(format!(
                    "参数与首次请求不一致: {name} 须与该 mchBillno 首次请求时相同"
                ));
            }
            Self::NoMerchant => "商户未配置: 没有该 mchId 和 wxAppId 的配置, 请核对这两个字段",
            Self::NoOpenid => "用户未绑定微信: openid(用户ID)在该 wxAppId 下没有对应的微信 openid, 请先绑定",
            Self::LongOpenid => "openid 过长: 该用户对应的微信 openid 超过红包的 32 个字符",
            Self::NotSent(why) => {
                return Cow::Owned(format!(
                    "系统繁忙, 未发起付款, 请使用原单号重试: {}",
                    why.chinese()
                ));
            }
            Self::Unknown => "付款结果未知, 请使用原单号重试或查询: 更换 mchBillno 可能造成重复付款",
            Self::Processing => "付款处理中, 请稍后使用原单号重试或查询: 该 mchBillno 正在付款",
            Self::NotFound => "订单不存在: 台账和上游都没有该 mchBillno",
            Self::OverLimit(limit) => return Cow::Owned(limit.chinese()),
            Self::Sign(fault) => return Cow::Owned(format!("签名错误: {}", fault.chinese())),
        })
    }
}

#[cfg(test)]
mod tests;
