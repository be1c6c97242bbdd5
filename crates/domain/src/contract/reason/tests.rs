//! Every refusal that the contract can make, one by one: each says in Chinese what is wrong, by the field's name.
//!
//! Each list goes from a variant to the next one by a `match` without a wildcard: a new variant does not compile before
//! it has a place.

use std::iter::successors;

use super::*;
use crate::contract::error::{ApiError, Chinese};
use crate::encoding::Encoding;
use crate::json::{self, JsonError};
use crate::text::UPSTREAM_CHARS;
use crate::xml::{self, Markup, Nested, Position, XmlError};

const NAME: &str = "zone";

fn is_chinese(c: char) -> bool {
    ('\u{4E00}'..='\u{9FFF}').contains(&c)
}

/// Words that a Chinese text keeps: names of fields, of keys, of formats and of what WeChat calls so.
const KEPT_WORDS: [&str; 38] = [
    "zone",
    "amount",
    "totalAmount",
    "mchId",
    "wxAppId",
    "mchBillno",
    "openid",
    "sign",
    "nonceStr",
    "sendName",
    "max_amount",
    "per_user_per_day",
    "per_merchant_per_day",
    "payouts_per_user_per_day",
    "JSON",
    "XML",
    "UTF",
    "IP",
    "IPv",
    "DOCTYPE",
    "ID",
    "U",
    "B",
    "u",
    "v",
    "_",
    "lt",
    "gt",
    "amp",
    "apos",
    "quot",
    "Content",
    "Type",
    "application",
    "json",
    "xml",
    "text",
    "html",
];

/// Every text for a caller keeps this.
fn assert_told(text: &str) {
    let first = text.chars().next().unwrap();
    let begins_with_name = text.starts_with(&format!("{NAME} ")) || text.starts_with("openid ");
    assert!(is_chinese(first) || begins_with_name, "{text}");
    assert!(text.chars().filter(|c| is_chinese(*c)).count() >= 4, "{text}");
    let words = text.split(|c: char| !(c.is_ascii_alphabetic() || c == '_'));
    for word in words.filter(|word| !word.is_empty()) {
        assert!(KEPT_WORDS.contains(&word), "{word:?} in {text}");
    }
    assert!(text.chars().count() <= UPSTREAM_CHARS, "{text}");
}

fn malformed() -> impl Iterator<Item = Malformed> {
    successors(Some(Malformed::MchId), |rule| match rule {
        Malformed::MchId => Some(Malformed::WxAppId),
        Malformed::WxAppId => Some(Malformed::OrderNo),
        Malformed::OrderNo => Some(Malformed::UserId),
        Malformed::UserId => Some(Malformed::OpenId),
        Malformed::OpenId => Some(Malformed::HandlerId),
        Malformed::HandlerId => Some(Malformed::Fen),
        Malformed::Fen => None,
    })
}

fn field_rules() -> impl Iterator<Item = FieldRule> {
    successors(Some(FieldRule::Required), |rule| match rule {
        FieldRule::Required => Some(FieldRule::Text),
        FieldRule::Text => Some(FieldRule::Type(Malformed::MchId)),
        FieldRule::Type(_) => Some(FieldRule::Integer),
        FieldRule::Integer => Some(FieldRule::MaxChars(256)),
        FieldRule::MaxChars(_) => Some(FieldRule::NoControls),
        FieldRule::NoControls => Some(FieldRule::IpAddress),
        FieldRule::IpAddress => Some(FieldRule::Ipv4Address),
        FieldRule::Ipv4Address => Some(FieldRule::ShortAddress),
        FieldRule::ShortAddress => Some(FieldRule::RedPacketNumber),
        FieldRule::RedPacketNumber => Some(FieldRule::SameAmount),
        FieldRule::SameAmount => Some(FieldRule::NotAlike("sendName")),
        FieldRule::NotAlike(_) => Some(FieldRule::XmlCarries),
        FieldRule::XmlCarries => Some(FieldRule::LeastFen(10)),
        FieldRule::LeastFen(_) => Some(FieldRule::BelowFen(200_000)),
        FieldRule::BelowFen(_) => Some(FieldRule::BasicCharacters),
        FieldRule::BasicCharacters => None,
    })
    .chain(malformed().map(FieldRule::Type))
}

fn not_sent() -> impl Iterator<Item = NotSent> {
    successors(Some(NotSent::Openids), |why| match why {
        NotSent::Openids => Some(NotSent::Ledger),
        NotSent::Ledger => Some(NotSent::Upstream),
        NotSent::Upstream => Some(NotSent::Limit),
        NotSent::Limit => None,
    })
}

fn over_limit() -> impl Iterator<Item = OverLimit> {
    successors(Some(OverLimit::Payout(20_000)), |limit| match limit {
        OverLimit::Payout(_) => Some(OverLimit::User(i64::MAX)),
        OverLimit::User(_) => Some(OverLimit::Merchant(MchId::parse("19").unwrap(), i64::MAX)),
        OverLimit::Merchant(..) => Some(OverLimit::Count(i64::MAX)),
        OverLimit::Count(_) => None,
    })
}

fn sign_faults() -> impl Iterator<Item = SignFault> {
    successors(Some(SignFault::NoSign), |fault| match fault {
        SignFault::NoSign => Some(SignFault::NoNonce),
        SignFault::NoNonce => Some(SignFault::Wrong),
        SignFault::Wrong => Some(SignFault::Name(NAME.to_owned())),
        SignFault::Name(_) => Some(SignFault::Nonce),
        SignFault::Nonce => Some(SignFault::Value(NAME.to_owned())),
        SignFault::Value(_) => None,
    })
}

fn fields_errors() -> impl Iterator<Item = FieldsError> {
    successors(Some(FieldsError::Twice(NAME.to_owned())), |error| match error {
        FieldsError::Twice(_) => Some(FieldsError::TooMany),
        FieldsError::TooMany => None,
    })
}

fn json_errors() -> impl Iterator<Item = JsonError> {
    successors(Some(JsonError::Early), |error| match error {
        JsonError::Early => Some(JsonError::Fields(FieldsError::TooMany)),
        JsonError::Fields(_) => json::decode(r#"{"zone":"\ud800"}"#).err(),
        JsonError::Escape { .. } => json::decode("{}{}").err(),
        JsonError::Trailing(_) => json::decode("{1").err(),
        JsonError::Other(_) => None,
    })
    .chain(json::decode("[]").err())
    .chain(fields_errors().map(JsonError::Fields))
}

fn markup() -> impl Iterator<Item = Markup> {
    successors(Some(Markup::DocType), |markup| match markup {
        Markup::DocType => Some(Markup::Instruction),
        Markup::Instruction => Some(Markup::Declaration),
        Markup::Declaration => Some(Markup::Text),
        Markup::Text => Some(Markup::Comment),
        Markup::Comment => Some(Markup::Element),
        Markup::Element => Some(Markup::EndTag),
        Markup::EndTag => None,
    })
}

fn positions() -> impl Iterator<Item = Position> {
    successors(Some(Position::Before), |position| match position {
        Position::Before => Some(Position::Between),
        Position::Between => Some(Position::Inside(NAME.to_owned())),
        Position::Inside(_) => Some(Position::After),
        Position::After => None,
    })
}

fn xml_errors() -> impl Iterator<Item = XmlError> {
    let name = || NAME.to_owned();
    successors(Some(XmlError::Early), move |error| match error {
        XmlError::Early => xml::decode("<a>&</a>", Nested::Refuse).err(),
        XmlError::IllFormed { .. } => Some(XmlError::Forbidden('\u{B}')),
        XmlError::Forbidden(_) => Some(XmlError::ForbiddenIn {
            field: name(),
            character: '\u{B}',
        }),
        XmlError::ForbiddenIn { .. } => Some(XmlError::Charset),
        XmlError::Charset => Some(XmlError::Attributes),
        XmlError::Attributes => Some(XmlError::Name),
        XmlError::Name => Some(XmlError::Elements(name())),
        XmlError::Elements(_) => Some(XmlError::Entity(name())),
        XmlError::Entity(_) => Some(XmlError::Reference(name())),
        XmlError::Reference(_) => Some(XmlError::Unexpected(Markup::Text, Position::Before)),
        XmlError::Unexpected(..) => Some(XmlError::Fields(FieldsError::TooMany)),
        XmlError::Fields(_) => None,
    })
    .chain(
        positions().flat_map(|place| markup().map(move |markup| XmlError::Unexpected(markup, place.clone()))),
    )
}

fn decode_errors() -> impl Iterator<Item = DecodeError> {
    successors(Some(DecodeError::NotUtf8(7)), |error| match error {
        DecodeError::NotUtf8(_) => Some(JsonError::Early.into()),
        DecodeError::Json(_) => Some(XmlError::Early.into()),
        DecodeError::Xml(_) => None,
    })
    .chain(json_errors().map(DecodeError::Json))
    .chain(xml_errors().map(DecodeError::Xml))
}

fn encoding_errors() -> impl Iterator<Item = EncodingError> {
    successors(Some(EncodingError::Undecided), |error| match error {
        EncodingError::Undecided => Some(EncodingError::Unsupported("text/html".to_owned())),
        EncodingError::Unsupported(_) => None,
    })
}

fn reasons() -> impl Iterator<Item = Reason> {
    successors(
        Some(Reason::Field(NAME.into(), FieldRule::Required)),
        |reason| match reason {
            Reason::Field(..) => Some(Reason::Body(DecodeError::NotUtf8(7))),
            Reason::Body(_) => Some(Reason::Encoding(EncodingError::Undecided)),
            Reason::Encoding(_) => Some(Reason::Fields(FieldsError::TooMany)),
            Reason::Fields(_) => Some(Reason::Differs(NAME)),
            Reason::Differs(_) => Some(Reason::NoMerchant),
            Reason::NoMerchant => Some(Reason::NoOpenid),
            Reason::NoOpenid => Some(Reason::LongOpenid),
            Reason::LongOpenid => Some(Reason::NotSent(NotSent::Openids)),
            Reason::NotSent(_) => Some(Reason::Unknown),
            Reason::Unknown => Some(Reason::Processing),
            Reason::Processing => Some(Reason::NotFound),
            Reason::NotFound => Some(Reason::OverLimit(OverLimit::Payout(1))),
            Reason::OverLimit(_) => Some(Reason::Sign(SignFault::NoSign)),
            Reason::Sign(_) => None,
        },
    )
    .chain(field_rules().map(|rule| Reason::Field(NAME.into(), rule)))
    .chain(decode_errors().map(Reason::Body))
    .chain(encoding_errors().map(Reason::Encoding))
    .chain(fields_errors().map(Reason::Fields))
    .chain(not_sent().map(Reason::NotSent))
    .chain(over_limit().map(Reason::OverLimit))
    .chain(sign_faults().map(Reason::Sign))
}

/// The field that a refusal is about.
fn field_of(reason: &Reason) -> Option<&str> {
    match reason {
        Reason::Field(name, _) => Some(name),
        Reason::Differs(name) => Some(name),
        Reason::Fields(FieldsError::Twice(name)) => Some(name),
        Reason::Body(error) => match error {
            DecodeError::Json(JsonError::Escape { field, .. })
            | DecodeError::Xml(
                XmlError::ForbiddenIn { field, .. }
                | XmlError::Elements(field)
                | XmlError::Entity(field)
                | XmlError::Reference(field)
                | XmlError::Unexpected(_, Position::Inside(field)),
            ) => Some(field),
            DecodeError::Json(JsonError::Fields(FieldsError::Twice(name)))
            | DecodeError::Xml(XmlError::Fields(FieldsError::Twice(name))) => Some(name),
            _ => None,
        },
        Reason::NoOpenid | Reason::LongOpenid => Some("openid"),
        Reason::OverLimit(OverLimit::Payout(_)) => Some("amount"),
        Reason::OverLimit(OverLimit::Merchant(..)) => Some("mchId"),
        Reason::NoMerchant => Some("wxAppId"),
        Reason::Sign(SignFault::Name(name) | SignFault::Value(name)) => Some(name),
        Reason::Sign(SignFault::NoSign | SignFault::Wrong) => Some("sign"),
        Reason::Sign(SignFault::NoNonce | SignFault::Nonce) => Some("nonceStr"),
        Reason::Unknown | Reason::Processing | Reason::NotFound => Some("mchBillno"),
        _ => None,
    }
}

#[test]
fn every_refusal_is_told_in_chinese_and_by_the_fields_name() {
    let mut texts = std::collections::BTreeSet::new();
    for reason in reasons() {
        let field = field_of(&reason).map(str::to_owned);
        let code = reason.code();
        let error = ApiError::from(reason);
        assert_eq!(error.code, code);
        assert_told(&error.text);
        if let Some(field) = field {
            assert!(error.text.contains(&field), "{field}: {}", error.text);
        }
        texts.insert(error.text);
    }
    assert!(texts.len() > 80, "only {} texts", texts.len());
}

/// The constructors make the same errors as the reasons.
#[test]
fn every_constructor_makes_its_reasons_error() {
    struct Why;
    impl Chinese for Why {
        fn chinese(&self) -> Cow<'static, str> {
            "请求体过大".into()
        }
    }
    let unserved = ApiError::unserved(ErrCode::NoAuth, &Why);
    assert_eq!(
        (unserved.code, &*unserved.text),
        (ErrCode::NoAuth, "请求未受理: 请求体过大")
    );
    let unreadable = || Encoding::Json.decode(b"\xff").unwrap_err();
    for (made, reason, code) in [
        (
            ApiError::field(NAME, FieldRule::Text),
            Reason::Field(NAME.into(), FieldRule::Text),
            ErrCode::ParamError,
        ),
        (
            ApiError::missing(NAME),
            Reason::Field(NAME.into(), FieldRule::Required),
            ErrCode::ParamError,
        ),
        (
            ApiError::body(unreadable()),
            Reason::Body(unreadable()),
            ErrCode::ParamError,
        ),
        (
            ApiError::differs(NAME),
            Reason::Differs(NAME),
            ErrCode::ParamError,
        ),
        (ApiError::no_merchant(), Reason::NoMerchant, ErrCode::NoAuth),
        (ApiError::no_openid(), Reason::NoOpenid, ErrCode::OpenidError),
        (
            ApiError::not_sent(NotSent::Ledger),
            Reason::NotSent(NotSent::Ledger),
            ErrCode::SystemError,
        ),
        (ApiError::unknown(), Reason::Unknown, ErrCode::SystemError),
        (ApiError::processing(), Reason::Processing, ErrCode::Processing),
    ] {
        assert_eq!(made, ApiError::from(reason));
        assert_eq!(made.code, code, "{}", made.text);
    }
}

/// Names come from the request, at any length.
#[test]
fn no_name_makes_a_text_long() {
    let long = "n".repeat(10_000);
    let field = || long.clone();
    for reason in [
        Reason::Field(field().into(), FieldRule::NotAlike("sendName")),
        Reason::Fields(FieldsError::Twice(field())),
        Reason::Sign(SignFault::Value(field())),
        Reason::Sign(SignFault::Name(field())),
        Reason::Body(XmlError::Elements(field()).into()),
        Reason::Body(XmlError::Entity(field()).into()),
        Reason::Body(XmlError::Reference(field()).into()),
        Reason::Body(XmlError::Unexpected(Markup::Text, Position::Inside(field())).into()),
    ] {
        let text = reason.chinese();
        assert!(text.chars().count() < 150, "{text}");
    }
}

/// Operators keep reading English.
#[test]
fn operators_read_the_same_rules_in_english() {
    let malformed = malformed().map(|rule| rule.to_string());
    let bodies = decode_errors().map(|error| error.to_string());
    let fields = fields_errors().map(|error| error.to_string());
    let encodings = encoding_errors().map(|error| error.to_string());
    for text in malformed.chain(bodies).chain(fields).chain(encodings) {
        assert!(!text.chars().any(is_chinese), "{text}");
    }
    assert_eq!(
        Malformed::OrderNo.to_string(),
        "must be 1 to 32 letters or digits"
    );
}
