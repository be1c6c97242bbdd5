//! What is told of one piece of work: a span. Pure data; its form on the wire is `proto.rs`.

use std::borrow::Cow;

/// A span that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its trace.
    pub trace: u128,
    /// Its own id.
    pub id: u64,
    /// The span that it is a part of.
    pub parent: Option<u64>,
    /// The flags of its trace, and whether its parent is known to be elsewhere.
    pub flags: u32,
    /// What kind of work it is; never more names than the program has kinds.
    pub name: Cow<'static, str>,
    /// On which side of a call it is.
    pub kind: Kind,
    /// When it began, in nanoseconds since 1970.
    pub begun: u64,
    /// When it ended, in nanoseconds since 1970.
    pub ended: u64,
    /// What else is known of it.
    pub attributes: Attributes,
    /// Whether it failed.
    pub failed: bool,
}

/// Names and values.
pub type Attributes = Vec<(&'static str, Value)>;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

/// On which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Within the program.
    Internal,
    /// A request to us.
    Server,
    /// A call that we make.
    Client,
}
