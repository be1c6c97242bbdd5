//! Reads and writes the CSV `wx_app_id,user_id,openid` line by line, for `source = "file"` and for `payout-sidecar
//! openid`.
//!
//! No field may contain a control character, so each line is one row, whatever its quotes: an unclosed quote spoils
//! only its own line, and line numbers are those of an editor. A last line without a line break may be truncated, and a
//! truncated openid is a valid openid of somebody else or of nobody: so that line is an error.
//!
//! A spreadsheet executes a cell that looks like a formula, quoted or not. So a row with such a cell is written as
//! text: each of its three cells begins with an apostrophe, which is not part of the value. No app id and no openid
//! contains an apostrophe, so no other row can look like this: neither a user id that begins with an apostrophe nor a
//! file from another source is misread.

use std::borrow::Cow;
use std::io::{self, BufRead, Read as _, Write};

use payout_domain::ids::{OpenId, UserId, WxAppId};
use payout_domain::terminal;

/// The required first line.
pub(crate) const HEADER: &str = "wx_app_id,user_id,openid";

/// The longest accepted line in bytes, with its line break. The longest valid one has 1,127 bytes: 128 characters of
/// four bytes, at worst all of them doubled, plus quotes, apostrophes and the other two fields.
const LONGEST_LINE: usize = 4096;

/// A user's openid under an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The app.
    pub app: WxAppId,
    /// The customer's own user id.
    pub user: UserId,
    /// WeChat's id of the user under this app.
    pub openid: OpenId,
}

/// A position in a file: everything before it has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Lines from the start of the file.
    pub line: u64,
}

/// Reads the rows of a file in constant memory.
pub(crate) struct Rows<R> {
    reader: R,
    buffer: Vec<u8>,
    position: Position,
}

/// How a line ended.
enum End {
    LineBreak,
    File,
    TooLong,
}

impl<R: BufRead> Rows<R> {
    /// Starts at the beginning and reads the header. `None` if the first line is not [`HEADER`].
    ///
    /// # Errors
    /// When the reader fails.
    pub(crate) fn open(reader: R) -> io::Result<Option<Self>> {
        let mut rows = Self::at(reader, Position::default());
        let header = rows.line()?.and_then(|(line, _)| {
            let line = std::str::from_utf8(line).ok()?;
            fields(line.trim_start_matches('\u{FEFF}')).ok()
        });
        let is_header = header.is_some_and(|fields| fields.iter().eq(HEADER.split(',')));
        Ok(is_header.then_some(rows))
    }

    /// Continues where another reader of the same file stopped. `reader` must be at `place.offset`.
    pub(crate) fn at(reader: R, position: Position) -> Self {
        Self {
            reader,
            buffer: Vec::with_capacity(LONGEST_LINE),
            position,
        }
    }

    /// The position after everything read so far.
    #[must_use]
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// Returns the next line that is not empty, as a row or as the reason why it is wrong. [`Rows::position`] then has
    /// its line number.
    ///
    /// # Errors
    /// When the reader fails.
    pub(crate) fn next_row(&mut self) -> io::Result<Option<Result<Row, String>>> {
        loop {
            let Some((line, end)) = self.line()? else {
                return Ok(None);
            };
            if line.is_empty() && matches!(end, End::LineBreak) {
                continue;
            }
            return Ok(Some(match end {
                End::LineBreak => row(line),
                End::File => Err(
                    "the last line does not end with a line break, so it may be cut off: add one".to_owned(),
                ),
                End::TooLong => Err(format!("it has more than {LONGEST_LINE} bytes")),
            }));
        }
    }

    /// The next line without its line break.
    fn line(&mut self) -> io::Result<Option<(&[u8], End)>> {
        self.buffer.clear();
        let limit = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX);
        let mut read = (&mut self.reader)
            .take(limit)
            .read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        let end = match self.buffer.last() {
            Some(b'\n') => End::LineBreak,
            Some(_) | None if read < LONGEST_LINE => End::File,
            Some(_) | None => {
                read = read.saturating_add(skip_line(&mut self.reader)?);
                End::TooLong
            }
        };
        self.position.line = self.position.line.saturating_add(1);
        let read = u64::try_from(read).unwrap_or(u64::MAX);
        self.position.offset = self.position.offset.saturating_add(read);
        let line = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        Ok(Some((line.strip_suffix(b"\r").unwrap_or(line), end)))
    }
}

/// Skips to the end of a line and returns the number of bytes skipped.
fn skip_line(reader: &mut impl BufRead) -> io::Result<usize> {
    let mut skipped: usize = 0;
    loop {
        let piece = reader.fill_buf()?;
        let found = piece.iter().position(|byte| *byte == b'\n');
        let length = found.map_or(piece.len(), |at| at.saturating_add(1));
        let is_over = found.is_some() || piece.is_empty();
        reader.consume(length);
        skipped = skipped.saturating_add(length);
        if is_over {
            return Ok(skipped);
        }
    }
}

fn row(line: &[u8]) -> Result<Row, String> {
    let line = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
    let fields = fields(line)?;
    let [app, user, openid] = fields.as_slice() else {
        return Err(format!("it has {} columns, not 3", fields.len()));
    };
    let (app, user, openid) = match app.strip_prefix(TEXT) {
        None => (app.as_ref(), user.as_ref(), openid.as_ref()),
        Some(app) => match (user.strip_prefix(TEXT), openid.strip_prefix(TEXT)) {
            (Some(user), Some(openid)) => (app, user, openid),
            (None, _) | (_, None) => {
                return Err(
                    "wx_app_id begins with an apostrophe: then all three cells do, or none".to_owned(),
                );
            }
        },
    };
    Ok(Row {
        app: WxAppId::parse(app).map_err(|rule| format!("wx_app_id {rule}"))?,
        user: UserId::parse(user).map_err(|rule| format!("user_id {rule}"))?,
        openid: OpenId::parse(openid).map_err(|rule| format!("openid {rule}"))?,
    })
}

/// Splits a line into fields. Source: RFC 4180, section 2. A quote inside an unquoted field is an ordinary character.
fn fields(line: &str) -> Result<Vec<Cow<'_, str>>, &'static str> {
    let mut fields = Vec::with_capacity(3);
    let mut rest = line;
    loop {
        let after = if let Some(quoted) = rest.strip_prefix('"') {
            let (field, after) = unquoted(quoted)?;
            fields.push(Cow::Owned(field));
            if after.is_empty() {
                return Ok(fields);
            }
            after
                .strip_prefix(',')
                .ok_or("after a closing quote there is no comma")?
        } else if let Some((field, after)) = rest.split_once(',') {
            fields.push(Cow::Borrowed(field));
            after
        } else {
            fields.push(Cow::Borrowed(rest));
            return Ok(fields);
        };
        rest = after;
    }
}

/// Splits at the closing quote: the field, and the text behind it.
fn unquoted(mut rest: &str) -> Result<(String, &str), &'static str> {
    let mut field = String::new();
    loop {
        let (piece, after) = rest.split_once('"').ok_or("a quote is not closed")?;
        field.push_str(piece);
        let Some(after_pair) = after.strip_prefix('"') else {
            return Ok((field, after));
        };
        field.push('"');
        rest = after_pair;
    }
}

/// Writes a row. Adds quotes where needed, and apostrophes where a spreadsheet would execute a cell.
///
/// # Errors
/// When the writer fails.
pub(crate) fn write(row: &Row, out: &mut csv::Writer<impl Write>) -> io::Result<()> {
    let cells = [row.app.as_str(), row.user.as_str(), row.openid.as_str()];
    let mark = if cells.into_iter().any(is_formula) {
        TEXT
    } else {
        ""
    };
    written(out.write_record(cells.map(|cell| format!("{mark}{cell}"))))
}

/// Writes the first line.
///
/// # Errors
/// When the writer fails.
pub(crate) fn write_header(out: &mut csv::Writer<impl Write>) -> io::Result<()> {
    written(out.write_record(HEADER.split(',')))
}

/// Extracts the I/O error, because the library's own conversion loses its kind.
fn written(done: csv::Result<()>) -> io::Result<()> {
    done.map_err(|error| {
        let kind = error.into_kind();
        if let csv::ErrorKind::Io(error) = kind {
            error
        } else {
            io::Error::other(format!("{kind:?}"))
        }
    })
}

/// The first character of each cell in a row that is written as text.
const TEXT: &str = "'";

/// Whether a spreadsheet may read a cell as a formula: its first visible character begins a formula, also in the
/// full-width form of East Asian keyboards.
fn is_formula(cell: &str) -> bool {
    let is_unseen =
        |c: char| c.is_whitespace() || terminal::line(c.encode_utf8(&mut [0; 4])).len() > c.len_utf8();
    let begins = cell.chars().find(|c| !is_unseen(*c));
    begins.is_some_and(|c| matches!(c, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row or error, with its line number.
    fn read(text: &[u8]) -> Vec<(u64, Result<Row, String>)> {
        let mut rows = Rows::open(text).unwrap().unwrap();
        let mut all = Vec::new();
        while let Some(row) = rows.next_row().unwrap() {
            all.push((rows.position().line, row));
        }
        assert_eq!(rows.position().offset, text.len() as u64);
        all
    }

    fn text_of(row: &Row) -> String {
        let mut out = csv::Writer::from_writer(Vec::new());
        write(row, &mut out).unwrap();
        String::from_utf8(out.into_inner().unwrap()).unwrap()
    }

    fn made(app: &str, user: &str, openid: &str) -> Row {
        Row {
            app: WxAppId::parse(app).unwrap(),
            user: UserId::parse(user).unwrap(),
            openid: OpenId::parse(openid).unwrap(),
        }
    }

    #[test]
    fn every_kind_of_line_is_a_row_or_named_by_what_is_wrong() {
        let long = "u".repeat(5000);
        let wide = "𝄞".repeat(128);
        for (line, says) in [
            ("wx1,u,o1", ""),
            ("\"wx1\",\"u\",\"o1\"", ""),
            ("wx1,=1+1,o1", ""),
            ("wx1, u ,o1", ""),
            ("wx1,u\"1\",o1", ""),
            ("wx1,{userId}:*,o1", ""),
            (&format!("wx1,{wide},o1"), ""),
            (&format!("wx1,\"{}\",o1", "\"\"".repeat(128)), ""),
            ("wx1,u", "it has 2 columns, not 3"),
            ("wx1,u,o1,", "it has 4 columns, not 3"),
            (" ", "it has 1 columns, not 3"),
            ("wx 1,u,o1", "wx_app_id must be"),
            ("wx1,,o1", "user_id must be"),
            ("wx1,'=1+1,o1", ""),
            ("'wx1,'=1+1,'o1", ""),
            ("\"'wx1\",\"'=1,1\",\"'o1\"", ""),
            ("'wx1,=1+1,'o1", "wx_app_id begins with an apostrophe"),
            ("'wx1,'=1+1,o1", "wx_app_id begins with an apostrophe"),
            ("wx1,'=1+1,'o1", "openid must be"),
            ("'wx1,','o1", "user_id must be"),
            ("''wx1,''u,''o1", "wx_app_id must be"),
            ("wx1,u\0,o1", "user_id must be"),
            ("wx1,u\r,o1", "user_id must be"),
            ("wx1,u,o1\r\r", "openid must be"),
            (&format!("wx1,{wide}u,o1"), "user_id must be"),
            ("wx1,u,", "openid must be"),
            ("wx1,u,o 1", "openid must be"),
            ("wx1,u,\"o1", "a quote is not closed"),
            ("wx1,\"u\"1,o1", "after a closing quote"),
            (&format!("wx1,{long},o1"), "it has more than 4096 bytes"),
        ] {
            // A wrong line does not stop the reader from reading the next one.
            let text = format!("{HEADER}\n{line}\n\nwx2,v,o2\r\n");
            let all = read(text.as_bytes());
            assert_eq!(all.len(), 2, "{line:?}");
            match &all[0] {
                (2, Ok(_)) => assert_eq!(says, "", "{line:?}"),
                (2, Err(why)) => assert!(!says.is_empty() && why.starts_with(says), "{line:?}: {why}"),
                other => panic!("{line:?}: {other:?}"),
            }
            assert_eq!(all[1], (4, Ok(made("wx2", "v", "o2"))), "{line:?}");
        }
        assert_eq!(
            read(b"\xEF\xBB\xBFwx_app_id,user_id,openid\r\nwx1,\xFF,o1\nwx1,u,o1")
                .into_iter()
                .map(|(line, row)| (line, row.unwrap_err()))
                .collect::<Vec<_>>(),
            [
                (2, "it is not UTF-8".to_owned()),
                (
                    3,
                    "the last line does not end with a line break, so it may be cut off: add one".to_owned()
                )
            ]
        );
    }

    #[test]
    fn what_a_spreadsheet_would_run_is_written_as_text_and_read_back_as_it_was() {
        for (app, user, openid, written) in [
            ("wx1", "=1+1", "o1", "'wx1,'=1+1,'o1\n"),
            ("wx1", "+86 139", "o1", "'wx1,'+86 139,'o1\n"),
            ("wx1", "-1", "o1", "'wx1,'-1,'o1\n"),
            ("wx1", "@SUM(1)", "o1", "'wx1,'@SUM(1),'o1\n"),
            (
                "wx1",
                "=cmd|' /C calc'!A0",
                "o1",
                "'wx1,'=cmd|' /C calc'!A0,'o1\n",
            ),
            (
                "wx1",
                "=HYPERLINK(\"x\",1)",
                "o1",
                "'wx1,\"'=HYPERLINK(\"\"x\"\",1)\",'o1\n",
            ),
            ("wx1", "  =1", "o1", "'wx1,'  =1,'o1\n"),
            ("wx1", "\u{3000}＝1", "o1", "'wx1,'\u{3000}＝1,'o1\n"),
            (
                "wx1",
                "\u{feff}\u{200b}=1",
                "o1",
                "'wx1,'\u{feff}\u{200b}=1,'o1\n",
            ),
            ("-x", "u", "o1", "'-x,'u,'o1\n"),
            ("wx1", "u", "-o", "'wx1,'u,'-o\n"),
            // These are not formulas and stay unchanged.
            ("wx1", "'=1+1", "o1", "wx1,'=1+1,o1\n"),
            ("wx1", "''", "o1", "wx1,'',o1\n"),
            ("wx1", "a=1", "o1", "wx1,a=1,o1\n"),
        ] {
            let row = made(app, user, openid);
            let text = text_of(&row);
            assert_eq!(text, written);
            assert_eq!(
                read(format!("{HEADER}\n{text}").as_bytes()),
                [(2, Ok(row))],
                "{text}"
            );
        }
    }

    #[test]
    fn the_first_line_must_be_the_header() {
        for text in [
            "",
            "wx1,u,o1\n",
            "wx_app_id,user_id\n",
            "WX_APP_ID,user_id,openid\n",
            "\"\n",
            "\n",
        ] {
            assert!(Rows::open(text.as_bytes()).unwrap().is_none(), "{text:?}");
        }
        assert!(
            Rows::open(&b"wx_app_id,\"user_id\",openid"[..])
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn a_reader_goes_on_where_another_one_was() {
        let text = format!(
            "\u{FEFF}{HEADER}\r\nwx1,u,o1\r\n\r\n{}\nwx1,w,o3\n",
            "x".repeat(9000)
        );
        let mut first = Rows::open(text.as_bytes()).unwrap().unwrap();
        for _ in 0..2 {
            first.next_row().unwrap();
        }
        let place = first.position();
        assert_eq!(place.line, 4);
        let mut second = Rows::at(&text.as_bytes()[usize::try_from(place.offset).unwrap()..], place);
        assert_eq!(second.next_row().unwrap(), Some(Ok(made("wx1", "w", "o3"))));
        assert_eq!(second.position().line, 5);
        assert_eq!(second.next_row().unwrap(), None);
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_again_by_this_and_by_another_reader(user in "[^\\p{Cc}]{1,128}|[\",a:'=+]{1,9}") {
            let row = made("wx-1_A", &user, "o1");
            let text = format!("{HEADER}\n{}", text_of(&row));
            proptest::prop_assert_eq!(read(text.as_bytes()), [(2, Ok(row))]);
            let mut other = csv::Reader::from_reader(text.as_bytes());
            let records: Vec<csv::StringRecord> = other.records().collect::<Result<_, _>>().unwrap();
            proptest::prop_assert_eq!(records.len(), 1);
            let mark = if records[0][0].starts_with('\'') { "'" } else { "" };
            proptest::prop_assert_eq!(&records[0][1], format!("{mark}{user}"));
            proptest::prop_assert!(!records[0].iter().any(|cell| cell.trim().starts_with(['=', '+', '-', '@'])));
        }
    }
}
