//! Prints one entry for each request with its answer, coloured on a terminal.

use std::io::IsTerminal as _;

use super::script::Scene;
use payout_domain::encoding::Encoding;
use payout_domain::fields::Fields;
use payout_domain::terminal;

/// One entry of the table.
pub(super) struct Row {
    title: &'static str,
    encoding: &'static str,
    answer: String,
    /// Whether the answer has all expected fields.
    pub(super) is_right: bool,
    missing: String,
}

/// The fields of an answer to show, in this order.
const SHOWN: [&str; 11] = [
    "returnCode",
    "resultCode",
    "errCode",
    "mchBillno",
    "reOpenid",
    "totalAmount",
    "sendListid",
    "hbpackage",
    "paymentNo",
    "status",
    "errCodeDes",
];
/// How many characters of an answer to show.
const ANSWER_CHARS: usize = 150;

impl Row {
    /// Compares an answer with the expected fields.
    pub(super) fn of(scene: &Scene, answer: &Fields<'_>) -> Self {
        let is_missing = |pair: &&str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            answer.characters(name) != Some(value)
        };
        let missing: Vec<&str> = scene.expected.split(' ').filter(is_missing).collect();
        let shown: Vec<String> = SHOWN
            .iter()
            .filter_map(|name| answer.characters(name).map(|text| format!("{name}={text}")))
            .collect();
        let mut text = shown.join(" ");
        if let Some((cut, _)) = text.char_indices().nth(ANSWER_CHARS) {
            text.truncate(cut);
            text.push('…');
        }
        Self {
            title: scene.title,
            encoding: match scene.encoding {
                Encoding::Json => "JSON",
                Encoding::Xml => "XML",
            },
            answer: text,
            is_right: missing.is_empty(),
            missing: missing.join(" "),
        }
    }
}

#[expect(clippy::print_stdout, reason = "showing is what the demo is for")]
pub(super) fn print(rows: &[Row]) {
    let colours = std::io::stdout().is_terminal();
    for row in rows {
        let mark = if row.is_right { "ok  " } else { "BAD " };
        let (on, off) = match (colours, row.is_right) {
            (false, _) => ("", ""),
            (true, true) => ("\x1b[32m", "\x1b[0m"),
            (true, false) => ("\x1b[31m", "\x1b[0m"),
        };
        println!("{on}{mark}{off} {} ({})", row.title, row.encoding);
        println!("     {}", terminal::line(&row.answer));
        if !row.is_right {
            println!("     expected {}", row.missing);
        }
    }
}
