//! Finds where one HTTP/1 request ends and the next begins, so strictly that nobody in front of us or behind us can
//! read the bytes in another way. Pure: it takes bytes and returns how many of them are good. Sources: RFC 9112,
//! sections 2 to 7; RFC 9110, section 5.5.
//!
//! The HTTP library reads the same bytes afterwards, more leniently: for example, it accepts bare line feeds and both
//! lengths. It gets only bytes that this module accepts, so the two cannot disagree. Only [`Framer`] has state: which
//! kind of bytes comes next. It checks a head and a trailer section line by line and passes each on whole; it keeps
//! nothing of a body.

use memchr::memchr;

pub use crate::http::framing_error::FramingError;
use crate::proxy::headers::digits;

/// The most fields of a head or of a trailer section.
const MAX_FIELDS: usize = 100;
/// The most bytes of a trailer section; also the HTTP library's limit.
const MAX_TRAILER_BYTES: usize = 16 * 1024;
/// The most bytes of a line that starts a chunk.
const MAX_CHUNK_LINE: usize = 4 * 1024;
/// The most digits of a chunk's size, for 64 bits.
const MAX_CHUNK_DIGITS: usize = 16;

/// What [`Framer::advance`] allows for the bytes it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many bytes from the start are good and may be passed on. The rest is part of a line, or belongs to the next
    /// request.
    pub pass: usize,
    /// What is wrong with the bytes after them. Nothing more may be passed on.
    pub fault: Option<FramingError>,
}

/// Reads one request after another.
#[derive(Debug)]
pub struct Framer {
    state: State,
    max_head: usize,
    is_of_server: bool,
    has_extensions: bool,
}

#[derive(Debug)]
enum State {
    Head(Head),
    /// The rest of a body, or of a chunk, in bytes.
    Data {
        left: u64,
        is_chunk: bool,
    },
    /// The end of a chunk's data.
    ChunkEnd,
    ChunkLine,
    Trailers(Lines),
    /// The request has ended.
    Ended,
}

/// The body that follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
}

impl Framer {
    /// Starts before a request's first byte. `max_head` limits the bytes of a head, including empty lines before it.
    /// The HTTP library's limit must not be smaller.
    #[must_use]
    pub fn new(max_head: usize) -> Self {
        Self {
            state: State::Head(Head::default()),
            max_head,
            is_of_server: false,
            has_extensions: false,
        }
    }

    /// Starts the next request.
    pub fn begin(&mut self) {
        *self = Self::new(self.max_head);
    }

    /// Reads the bytes that were not passed on yet, from the first one. The next call's bytes must begin with those
    /// that this call does not pass, followed by more. After a fault there must be no next call.
    pub fn advance(&mut self, bytes: &[u8]) -> Step {
        let mut pass: usize = 0;
        loop {
            let rest = bytes.get(pass..).unwrap_or_default();
            match self.take(rest) {
                Ok(0) => return Step { pass, fault: None },
                Ok(taken) => pass = pass.saturating_add(taken),
                Err(fault) => {
                    let fault = Some(fault);
                    return Step { pass, fault };
                }
            }
        }
    }

    /// Whether the whole request has been passed on.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether the request is an `OPTIONS` whose target names a host and no path. Like `*`, it asks about the server,
    /// but the HTTP library would report that it asks about `/`. Source: RFC 9112, section 3.2.4.
    #[must_use]
    pub fn is_of_server(&self) -> bool {
        self.is_of_server
    }

    /// Whether a chunk of the request had an extension. Extensions are legal, but readers treat them differently.
    #[must_use]
    pub fn has_extensions(&self) -> bool {
        self.has_extensions
    }

    /// Whether the request's head is incomplete.
    #[must_use]
    pub fn is_in_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// A substitute for a faulty head, which lets the HTTP library produce the response: the request line, the fields
    /// before the fault (none if the head is too large) except those that set the body's length, and `Connection:
    /// close`. If even the request line is unreadable, it uses `GET /`.
    #[must_use]
    pub fn stand_in(&self, bytes: &[u8], fault: FramingError) -> Vec<u8> {
        let begun = if let State::Head(head) = &self.state
            && head.is_begun
            && fault != FramingError::Large
        {
            head.lines.read
        } else {
            0
        };
        let good = bytes.get(..begun).unwrap_or_default();
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let first = lines
            .find(|line| !line.trim_ascii().is_empty())
            .unwrap_or_default();
        let mut stand_in = match RequestLine::read(first.trim_ascii_end()) {
            Ok(line) => {
                let version: &[u8] = if line.is_old() == Ok(true) {
                    b"HTTP/1.0"
                } else {
                    b"HTTP/1.1"
                };
                [line.method, b" ", line.target, b" ", version, b"\r\n"].concat()
            }
            Err(_) => b"GET / HTTP/1.1\r\n".to_vec(),
        };
        for line in good.split_inclusive(|byte| *byte == b'\n') {
            if let Ok((name, _)) = field(line.trim_ascii_end())
                && !name.eq_ignore_ascii_case(b"content-length")
                && !name.eq_ignore_ascii_case(b"transfer-encoding")
            {
                stand_in.extend_from_slice(line);
            }
        }
        stand_in.extend_from_slice(b"Connection: close\r\n\r\n");
        stand_in
    }

    /// Takes some bytes. Returns 0 if it needs more, or if the request has ended.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        match &mut self.state {
            State::Ended => Ok(0),
            State::Head(head) => {
                let Some((length, body)) = head.read(bytes, self.max_head)? else {
                    return Ok(0);
                };
                self.is_of_server = head.is_of_server;
                self.state = match body {
                    Body::Length(0) => State::Ended,
                    Body::Length(left) => State::Data {
                        left,
                        is_chunk: false,
                    },
                    Body::Chunked => State::ChunkLine,
                };
                Ok(length)
            }
            State::Data { left, is_chunk } => {
                let there = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let taken = (*left).min(there);
                *left = left.saturating_sub(taken);
                if *left == 0 {
                    self.state = if *is_chunk { State::ChunkEnd } else { State::Ended };
                }
                // `taken` is at most `bytes.len()`, so the fallback is never used.
                Ok(usize::try_from(taken).unwrap_or(bytes.len()))
            }
            State::ChunkEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.state = State::ChunkLine;
                    Ok(2)
                }
                [] | [b'\r'] => Ok(0),
                _ => Err(FramingError::ChunkEnd),
            },
            State::ChunkLine => {
                let Some(line) = line(bytes, 0)? else {
                    return if bytes.len() > MAX_CHUNK_LINE {
                        Err(FramingError::ChunkLine)
                    } else {
                        Ok(0)
                    };
                };
                let (left, has_extensions) = chunk_line(line)?;
                self.has_extensions |= has_extensions;
                self.state = match left {
                    0 => State::Trailers(Lines::default()),
                    left => State::Data { left, is_chunk: true },
                };
                Ok(line.len().saturating_add(2))
            }
            State::Trailers(lines) => {
                while let Some((line, end)) = lines.next(bytes)? {
                    if line.is_empty() {
                        self.state = State::Ended;
                        return Ok(end);
                    }
                    field(line)?;
                    lines.take(end)?;
                }
                if bytes.len() > MAX_TRAILER_BYTES {
                    return Err(FramingError::Large);
                }
                Ok(0)
            }
        }
    }
}

/// The lines of a head or a trailer section that have arrived.
#[derive(Debug, Default)]
struct Lines {
    /// This many bytes are whole lines without a fault.
    read: usize,
    /// This many bytes after them contain no line feed.
    searched: usize,
    fields: usize,
}

impl Lines {
    /// The next whole line without its line end, and the position after that end.
    fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(&'a [u8], usize)>, FramingError> {
        let rest = bytes.get(self.read..).unwrap_or_default();
        let Some(line) = line(rest, self.searched)? else {
            self.searched = rest.len();
            return Ok(None);
        };
        let end = self.read.saturating_add(line.len()).saturating_add(2);
        Ok(Some((line, end)))
    }

    /// Moves past a field.
    fn take(&mut self, end: usize) -> Result<(), FramingError> {
        (self.read, self.searched) = (end, 0);
        self.fields = self.fields.saturating_add(1);
        if self.fields > MAX_FIELDS {
            return Err(FramingError::Large);
        }
        Ok(())
    }
}

/// The first line without its line end, if it is whole. The first `searched` bytes are known to contain no line feed.
fn line(bytes: &[u8], searched: usize) -> Result<Option<&[u8]>, FramingError> {
    let Some(at) = memchr(b'\n', bytes.get(searched..).unwrap_or_default()) else {
        return Ok(None);
    };
    let line = bytes.get(..searched.saturating_add(at)).unwrap_or_default();
    line.strip_suffix(b"\r")
        .map(Some)
        .ok_or(FramingError::BareLineFeed)
}

/// A head, as far as it has arrived.
#[derive(Debug, Default)]
struct Head {
    lines: Lines,
    /// Whether the request line has been read.
    is_begun: bool,
    is_old: bool,
    is_of_server: bool,
    length: Option<u64>,
    coding: Option<Coding>,
}

/// What `Transfer-Encoding` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Chunked,
    /// Other codings, with `chunked` last.
    Unknown,
    /// Nobody can tell where the body ends.
    Endless,
}

impl Head {
    /// The position after the head, and the body that follows; `None` if the head is incomplete.
    fn read(&mut self, bytes: &[u8], max: usize) -> Result<Option<(usize, Body)>, FramingError> {
        while let Some((line, end)) = self.lines.next(bytes)? {
            if end > max {
                return Err(self.too_large());
            }
            if !self.is_begun {
                // RFC 9112, section 2.2: an empty line before the request line SHOULD be ignored.
                if !line.is_empty() {
                    let line = RequestLine::read(line)?;
                    (self.is_old, self.is_of_server) = (line.is_old()?, line.is_of_server());
                    self.is_begun = true;
                }
                (self.lines.read, self.lines.searched) = (end, 0);
            } else if line.is_empty() {
                return self.body().map(|body| Some((end, body)));
            } else {
                let (name, value) = field(line)?;
                self.learn(name, value)?;
                self.lines.take(end)?;
            }
        }
        if bytes.len() >= max {
            return Err(self.too_large());
        }
        Ok(None)
    }

    fn too_large(&self) -> FramingError {
        if self.is_begun {
            FramingError::Large
        } else {
            FramingError::LongTarget
        }
    }

    fn learn(&mut self, name: &[u8], value: &[u8]) -> Result<(), FramingError> {
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.is_some() {
                return Err(FramingError::TwoLengths);
            }
            // hyper reserves the largest values for bodies of unknown length.
            let length = digits(value).filter(|length| *length < u64::MAX - 2);
            self.length = Some(length.ok_or(FramingError::Length)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.coding = Some(match (self.coding, coding(value)) {
                (None, coding) => coding,
                (Some(Coding::Unknown | Coding::Chunked | Coding::Endless), _) => Coding::Endless,
            });
        }
        if self.length.is_some() && self.coding.is_some() {
            return Err(FramingError::BothLengths);
        }
        Ok(())
    }

    fn body(&self) -> Result<Body, FramingError> {
        match (self.coding, self.is_old) {
            (None, _) => Ok(Body::Length(self.length.unwrap_or(0))),
            (Some(Coding::Chunked), false) => Ok(Body::Chunked),
            (Some(Coding::Unknown), false) => Err(FramingError::UnknownCoding),
            (Some(Coding::Endless), _) | (Some(_), true) => Err(FramingError::Coding),
        }
    }
}

/// A request line. [`RequestLine::is_old`] checks its version.
struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    version: &'a [u8],
}

impl<'a> RequestLine<'a> {
    fn read(line: &'a [u8]) -> Result<Self, FramingError> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(FramingError::RequestLine);
        };
        // A target has no fragment. Readers that cut it off and readers that keep it would see different paths.
        let is_target = !target.is_empty()
            && target
                .iter()
                .all(|byte| *byte > b' ' && !matches!(byte, 0x7F | b'#'));
        if !is_token(method) || !is_target {
            return Err(FramingError::RequestLine);
        }
        Ok(Self {
            method,
            target,
            version,
        })
    }

    fn is_of_server(&self) -> bool {
        let mut parts = self.target.split(|byte| *byte == b'/');
        let named = (parts.next(), parts.next(), parts.next(), parts.next());
        self.method == b"OPTIONS"
            && matches!(named, (Some([_, .., b':']), Some([]), Some(host), None) if !host.contains(&b'?'))
    }

    /// Whether it is HTTP/1.0.
    fn is_old(&self) -> Result<bool, FramingError> {
        match self.version {
            b"HTTP/1.1" => Ok(false),
            b"HTTP/1.0" => Ok(true),
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                Err(FramingError::Version)
            }
            _ => Err(FramingError::RequestLine),
        }
    }
}

/// Reads a field line. Returns its name, and its value without surrounding white space.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), FramingError> {
    if line.first().is_some_and(is_blank) {
        return Err(FramingError::Folded);
    }
    let (name, rest) = split_token(line);
    let [b':', value @ ..] = rest else {
        let is_spaced = !name.is_empty() && trim_start(rest).starts_with(b":");
        return Err(if is_spaced {
            FramingError::SpaceBeforeColon
        } else {
            FramingError::Name
        });
    };
    if name.is_empty() {
        return Err(FramingError::Name);
    }
    // No early exit, so that the compiler can check many bytes at once.
    let is_control = |byte: &u8| u8::from(*byte < b' ' && *byte != b'\t') | u8::from(*byte == 0x7F);
    if value.iter().map(is_control).fold(0, |one, other| one | other) != 0 {
        return Err(FramingError::Value);
    }
    // Only spaces and tabs are left to trim.
    Ok((name, value.trim_ascii()))
}

/// The transfer codings of one `Transfer-Encoding` line.
fn coding(value: &[u8]) -> Coding {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Coding::Chunked;
    }
    let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if codings.next_back().is_some_and(is_chunked)
        && !codings.any(|coding| coding.is_empty() || is_chunked(coding))
    {
        Coding::Unknown
    } else {
        Coding::Endless
    }
}

/// Reads the line that starts a chunk. Returns its size, and whether it has extensions.
fn chunk_line(line: &[u8]) -> Result<(u64, bool), FramingError> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit());
    let (size, extensions) = line
        .split_at_checked(end.unwrap_or(line.len()))
        .unwrap_or_default();
    if size.is_empty() || size.len() > MAX_CHUNK_DIGITS || !are_extensions(extensions) {
        return Err(FramingError::ChunkLine);
    }
    let size = std::str::from_utf8(size).ok();
    let size = size.and_then(|size| u64::from_str_radix(size, 16).ok());
    let size = size.ok_or(FramingError::ChunkLine)?;
    Ok((size, !extensions.is_empty()))
}

/// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`. Source: RFC 9112, section 7.1.1.
fn are_extensions(mut text: &[u8]) -> bool {
    while !text.is_empty() {
        let Some(named) = trim_start(text).strip_prefix(b";") else {
            return false;
        };
        let Some(after) = after_token(trim_start(named)) else {
            return false;
        };
        text = match trim_start(after).strip_prefix(b"=").map(trim_start) {
            None => after,
            Some(value) => {
                let after = match value.strip_prefix(b"\"") {
                    Some(quoted) => after_quoted(quoted),
                    None => after_token(value),
                };
                let Some(after) = after else { return false };
                after
            }
        };
    }
    true
}

/// The text after the token at its start; `None` if it starts with none.
fn after_token(text: &[u8]) -> Option<&[u8]> {
    let (token, rest) = split_token(text);
    (!token.is_empty()).then_some(rest)
}

/// The token at the start, possibly empty, and the text after it.
fn split_token(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !is_tchar(*byte));
    text.split_at_checked(end.unwrap_or(text.len()))
        .unwrap_or_default()
}

/// The text after a quoted string whose opening quote has been read.
fn after_quoted(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', b'\t' | b' '..=b'~' | 0x80.., rest @ ..] => rest,
            [b'\t' | b' '..=b'[' | b']'..=b'~' | 0x80.., rest @ ..] => rest,
            _ => return None,
        }
    }
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_tchar(*byte))
}

/// Source: RFC 9110, section 5.6.2.
fn is_tchar(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'^'..=b'z' | b'|' | b'~')
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Removes leading spaces and tabs, and nothing else that other readers may call white space.
fn trim_start(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_blank(byte)).unwrap_or(text.len());
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests;
