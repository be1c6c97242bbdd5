//! Why a call is refused before its fields are read: its head, its body. Each has its status, an English text for the
//! log and for notifications, and a Chinese one for the platform.

use std::borrow::Cow;

use http::StatusCode;

use crate::http::framing_error::FramingError;
use crate::http::responses::Refused;
use crate::proxy::target::TargetError;
use payout_domain::contract::error::Chinese;
use payout_domain::encoding::EncodingError;

/// What is wrong with a call's HTTP.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// What must hold of every request does not.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Another method than POST.
    #[error("the method must be POST")]
    Method,
    /// A compressed body: nothing unpacks it.
    #[error("the body must not have a Content-Encoding")]
    ContentEncoding,
    /// The `Content-Type` is no text.
    #[error("the Content-Type is not readable")]
    UnreadableType,
    /// Nothing says which one counts.
    #[error("the Content-Type is given twice")]
    TwoTypes,
    /// The contract has no such encoding.
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    /// The body did not come as it must.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// A newer call needed the permit before the body had come.
    #[error("the body was slow, and too many requests came at the same time")]
    TakenAway,
}

/// Why a body is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Longer than so many bytes.
    #[error("the body must be at most {0} bytes")]
    TooLarge(usize),
    /// Its bytes are not what HTTP/1 has.
    #[error("the body broke off: {0}")]
    Framing(FramingError),
    /// It ended too early.
    #[error("the body broke off: {0}")]
    BrokeOff(String),
    /// It was not whole in time.
    #[error("the body took too long")]
    Slow,
    /// Some readers see a trailer section, others do not.
    #[error("the body must not have a trailer section")]
    Trailers,
    /// Readers differ about where extensions end.
    #[error("the body's chunks must not have extensions")]
    Extensions,
}

impl Refused for CallError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Target(error) => error.status(),
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentEncoding | Self::UnreadableType | Self::TwoTypes | Self::Encoding(_) => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::Body(error) => error.status(),
            Self::TakenAway => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Chinese for CallError {
    fn chinese(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Target(error) => return error.chinese(),
            Self::Method => "请求方法须为 POST",
            Self::ContentEncoding => "请求体不能压缩, 请去掉 Content-Encoding",
            Self::UnreadableType => "请求头 Content-Type 含有无法识别的字符",
            Self::TwoTypes => "请求头 Content-Type 重复, 只能有一个",
            Self::Encoding(error) => return Cow::Owned(error.chinese()),
            Self::Body(error) => return error.chinese(),
            Self::TakenAway => "请求体传输过慢, 且同时处理的请求过多, 请使用原单号重试",
        })
    }
}

impl Refused for BodyError {
    fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Framing(_) | Self::BrokeOff(_) | Self::Trailers | Self::Extensions => {
                StatusCode::BAD_REQUEST
            }
        }
    }
}

impl Chinese for BodyError {
    fn chinese(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::TooLarge(most) => return Cow::Owned(format!("请求体过大, 最多 {most} 字节")),
            Self::Framing(fault) => return fault.chinese(),
            Self::BrokeOff(_) => "请求体传输中断, 请使用原单号重试",
            Self::Slow => "请求体传输超时, 请使用原单号重试",
            Self::Trailers => "请求体不能有尾部字段(trailer)",
            Self::Extensions => "请求体的分块不能有扩展",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::iter::successors;

    use bytes::Bytes;
    use http::header::CONTENT_TYPE;
    use http::{HeaderMap, HeaderValue, Response};

    use super::*;
    use crate::http::responses::{NotAdmitted, refusal};
    use payout_domain::encoding::Encoding;
    use payout_domain::text::UPSTREAM_CHARS;

    fn not_admitted() -> impl Iterator<Item = NotAdmitted> {
        successors(Some(NotAdmitted::Busy), |why| match why {
            NotAdmitted::Busy => Some(NotAdmitted::Token),
            NotAdmitted::Token => Some(NotAdmitted::Address),
            NotAdmitted::Address => None,
        })
    }

    fn framing_errors() -> impl Iterator<Item = FramingError> {
        use FramingError as F;
        successors(Some(F::BareLineFeed), |error| match error {
            F::BareLineFeed => Some(F::RequestLine),
            F::RequestLine => Some(F::Version),
            F::Version => Some(F::Folded),
            F::Folded => Some(F::SpaceBeforeColon),
            F::SpaceBeforeColon => Some(F::Name),
            F::Name => Some(F::Value),
            F::Value => Some(F::BothLengths),
            F::BothLengths => Some(F::TwoLengths),
            F::TwoLengths => Some(F::Length),
            F::Length => Some(F::Coding),
            F::Coding => Some(F::UnknownCoding),
            F::UnknownCoding => Some(F::ChunkLine),
            F::ChunkLine => Some(F::ChunkEnd),
            F::ChunkEnd => Some(F::LongTarget),
            F::LongTarget => Some(F::Large),
            F::Large => None,
        })
    }

    fn target_errors() -> impl Iterator<Item = TargetError> {
        use TargetError as T;
        successors(Some(T::Method), |error| match error {
            T::Method => Some(T::NoPath),
            T::NoPath => Some(T::Asterisk),
            T::Asterisk => Some(T::Target),
            T::Target => Some(T::Host),
            T::Host => Some(T::TwoHosts),
            T::TwoHosts => Some(T::Scheme),
            T::Scheme => Some(T::Length),
            T::Length => Some(T::Field),
            T::Field => Some(T::Expectation),
            T::Expectation => Some(T::MaxForwards),
            T::MaxForwards => Some(T::Disguised),
            T::Disguised => Some(T::Upgrades),
            T::Upgrades => None,
        })
    }

    fn body_errors() -> impl Iterator<Item = BodyError> {
        successors(Some(BodyError::TooLarge(65_536)), |error| match error {
            BodyError::TooLarge(_) => Some(BodyError::Framing(FramingError::ChunkEnd)),
            BodyError::Framing(_) => Some(BodyError::BrokeOff("unexpected end of file".to_owned())),
            BodyError::BrokeOff(_) => Some(BodyError::Slow),
            BodyError::Slow => Some(BodyError::Trailers),
            BodyError::Trailers => Some(BodyError::Extensions),
            BodyError::Extensions => None,
        })
    }

    fn call_errors() -> impl Iterator<Item = CallError> {
        let unsupported = || EncodingError::Unsupported("text/html".to_owned());
        successors(Some(CallError::Method), move |error| match error {
            CallError::Method => Some(CallError::ContentEncoding),
            CallError::ContentEncoding => Some(CallError::UnreadableType),
            CallError::UnreadableType => Some(CallError::TwoTypes),
            CallError::TwoTypes => Some(CallError::TakenAway),
            CallError::TakenAway => Some(unsupported().into()),
            CallError::Encoding(_) => Some(TargetError::Host.into()),
            CallError::Target(_) => Some(BodyError::Slow.into()),
            CallError::Body(_) => None,
        })
        .chain(target_errors().map(CallError::Target))
        .chain(body_errors().map(CallError::Body))
    }

    /// The answer's text, with its English form.
    fn told(headers: &HeaderMap, why: &impl Refused) -> (String, String) {
        let response: Response<Bytes> = refusal(headers, why);
        assert_eq!(response.status(), why.status(), "{why}");
        let fields = Encoding::Json.decode(response.body()).unwrap();
        assert_eq!(fields.characters("returnCode"), Some("FAIL"));
        let text = fields.characters("errCodeDes").unwrap();
        assert_eq!(fields.characters("returnMsg"), Some(text));
        (text.to_owned(), why.to_string())
    }

    /// Every refusal of the main port in the contract's terms, by what is wrong with the HTTP. The `match`es have no
    /// wildcard: a new variant does not compile before it has a place.
    #[test]
    fn every_refusal_is_told_in_chinese_to_the_platform_and_in_english_to_operators() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let is_chinese = |c: char| ('\u{4E00}'..='\u{9FFF}').contains(&c);
        let all: Vec<(String, String)> = not_admitted()
            .map(|why| told(&headers, &why))
            .chain(framing_errors().map(|why| told(&headers, &why)))
            .chain(call_errors().map(|why| told(&headers, &why)))
            .collect();
        assert!(all.len() > 40, "only {} texts", all.len());
        for (chinese, english) in all {
            let detail = chinese.strip_prefix("请求未受理: ").unwrap();
            assert!(detail.chars().next().is_some_and(is_chinese), "{chinese}");
            assert!(
                detail.chars().filter(|c| is_chinese(*c)).count() >= 4,
                "{chinese}"
            );
            // Names of headers, methods and formats stay; sentences do not.
            let words = chinese.split(|c: char| !(c.is_ascii_alphabetic() || matches!(c, '-' | '/')));
            let small = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
            let kept = ["chunked", "trailer", "token", "continue"];
            for word in words.filter(|word| !word.is_empty()).filter(small) {
                assert!(kept.contains(&word), "{word:?} in {chinese}");
            }
            assert!(chinese.chars().count() <= UPSTREAM_CHARS, "{chinese}");
            assert!(!english.chars().any(is_chinese), "{english}");
        }
    }
}
