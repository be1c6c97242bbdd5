//! What can be wrong with the bytes of an HTTP/1 request, with the status and the texts of the answer. The reader that
//! finds it is [`framing`](crate::server::framing); the handler that answers the request reads it from
//! [`Http1Exchange`](crate::http::http1::Http1Exchange).

use std::borrow::Cow;

use http::StatusCode;

use crate::http::responses::Refused;
use payout_domain::contract::error::Chinese;

/// What is wrong with a request's bytes. `Display` says it in English, [`Chinese`] to the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// RFC 9112, section 2.2: a reader MAY take it for a line's end, so that readers differ.
    #[error("a line ends with a line feed alone; it must end with a carriage return and a line feed")]
    BareLineFeed,
    /// Neither is a method, one space, a target, one space and a version.
    #[error("the request line must be a method, a target and a version, with one space between them")]
    RequestLine,
    /// Another version than 1.0 and 1.1.
    #[error("the version must be HTTP/1.1 or HTTP/1.0")]
    Version,
    /// RFC 9112, section 5.2 (and 2.2 for the first line after the request line).
    #[error("a line of the head begins with white space (a folded line)")]
    Folded,
    /// RFC 9112, section 5.1.
    #[error("there is white space between a field's name and its colon")]
    SpaceBeforeColon,
    /// No colon, no name, or characters that names do not have.
    #[error("a field's name is missing or has a character that is not allowed")]
    Name,
    /// RFC 9110, section 5.5: a bare carriage return, a NUL or another control character.
    #[error("a field's value has a control character")]
    Value,
    /// RFC 9112, section 6.3: the ground that request smuggling grows on.
    #[error("the request has both a Content-Length and a Transfer-Encoding")]
    BothLengths,
    /// RFC 9110, section 8.6: several, also where they are equal.
    #[error("the request has more than one Content-Length")]
    TwoLengths,
    /// RFC 9110, section 8.6: not digits, or too many.
    #[error("the Content-Length must be one number of digits")]
    Length,
    /// RFC 9112, section 6.1: the body's end cannot be told.
    #[error("chunked must be the last transfer coding, once, and of HTTP/1.1")]
    Coding,
    /// A transfer coding besides `chunked`, which would be lost on the way.
    #[error("the body has a transfer coding other than chunked")]
    UnknownCoding,
    /// RFC 9112, section 7.1.
    #[error("a chunk does not begin with a line of hexadecimal digits and, perhaps, extensions")]
    ChunkLine,
    /// RFC 9112, section 7.1.
    #[error("a chunk does not end with a carriage return and a line feed where its size says")]
    ChunkEnd,
    /// RFC 9112, section 3.
    #[error("the request's target is too long")]
    LongTarget,
    /// RFC 6585, section 5.
    #[error("the request's head or trailer section is too large")]
    Large,
}

impl Refused for FramingError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::LongTarget => StatusCode::URI_TOO_LONG,
            Self::Large => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BareLineFeed
            | Self::RequestLine
            | Self::Folded
            | Self::SpaceBeforeColon
            | Self::Name
            | Self::Value
            | Self::BothLengths
            | Self::TwoLengths
            | Self::Length
            | Self::Coding
            | Self::ChunkLine
            | Self::ChunkEnd => StatusCode::BAD_REQUEST,
        }
    }
}

impl Chinese for FramingError {
    fn chinese(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::BareLineFeed => "行尾只有换行符(LF): 须以 CRLF 结尾",
            Self::RequestLine => "请求行不正确: 须为方法、目标和版本, 之间各一个空格",
            Self::Version => "不支持的 HTTP 版本: 须为 HTTP/1.1 或 HTTP/1.0",
            Self::Folded => "请求头不能折行: 行首不能是空白",
            Self::SpaceBeforeColon => "请求头的名称与冒号之间不能有空白",
            Self::Name => "请求头的名称缺失或含有不允许的字符",
            Self::Value => "请求头的值含有控制字符",
            Self::BothLengths => "不能同时有 Content-Length 和 Transfer-Encoding",
            Self::TwoLengths => "不能有多个 Content-Length",
            Self::Length => "请求头 Content-Length 不正确: 须为一个十进制数",
            Self::Coding => "分块编码不正确: chunked 须为最后一个传输编码, 只出现一次, 且只用于 HTTP/1.1",
            Self::UnknownCoding => "不支持的传输编码: Transfer-Encoding 只能为 chunked",
            Self::ChunkLine => "分块不正确: 须以一行十六进制长度开头, 其后可有扩展",
            Self::ChunkEnd => "分块不正确: 须在其长度处以 CRLF 结尾",
            Self::LongTarget => "请求的目标过长",
            Self::Large => "请求头或尾部字段过大",
        })
    }
}
