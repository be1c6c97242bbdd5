//! Shows an import's progress: a bar on a terminal, otherwise a line from time to time.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use payout_domain::terminal;

/// How often to write a line when standard error is no terminal.
const NOW_AND_THEN: Duration = Duration::from_secs(5);

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    bytes: u64,
    told: Instant,
}

impl Progress {
    /// For a file of `bytes` bytes, of which an earlier import read the first `done`. `bytes` is 0 if the size is
    /// unknown.
    pub(super) fn new(bytes: u64, done: u64) -> anyhow::Result<Self> {
        let bar = if std::io::stderr().is_terminal() && bytes > 0 {
            let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
            let style = "{wide_bar} {percent:>3} %  {msg}  {eta} left";
            bar.set_style(ProgressStyle::with_template(style)?);
            bar.set_position(done);
            // The time of the earlier import says nothing about this one's speed.
            bar.reset_eta();
            Some(bar)
        } else {
            None
        };
        Ok(Self {
            bar,
            bytes,
            told: Instant::now(),
        })
    }

    /// Reports the position.
    pub(super) fn reached(&mut self, offset: u64, lines: u64) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{lines} lines"));
            bar.set_position(offset);
        } else if self.told.elapsed() >= NOW_AND_THEN {
            self.told = Instant::now();
            let percent = offset.saturating_mul(100).checked_div(self.bytes);
            let percent = percent.map_or(String::new(), |percent| format!(", {percent} %"));
            self.tell(&format!("{lines} lines{percent}"));
        }
    }

    /// Writes a line, above the bar if there is one.
    #[expect(clippy::print_stderr, reason = "this is where an import says what it does")]
    pub(super) fn tell(&self, line: &str) {
        let line = terminal::line(line);
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
