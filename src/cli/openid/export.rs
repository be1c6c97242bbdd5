//! `openid export`: writes the mapping to standard output, as CSV for `openid import` and `source = "file"`.

use std::fs::File;
use std::io::{self, BufReader, Stdout};
use std::path::Path;

use anyhow::{Context as _, bail};

use super::Store;
use crate::openids::admin::Mapping;
use crate::openids::admin::listing::{Found, ListError};
use crate::openids::csv::{HEADER, Rows, write, write_header};
use payout_domain::ids::WxAppId;
use payout_domain::terminal;

/// How many unusable keys or fields to name on standard error.
const SHOWN: u64 = 20;

pub(super) async fn export(store: &Store, app: Option<WxAppId>) -> anyhow::Result<()> {
    let out = csv::WriterBuilder::new()
        .buffer_capacity(1 << 16)
        .from_writer(io::stdout());
    let done = match store {
        Store::Redis(mapping) => of_redis(mapping, app, out).await,
        Store::File(path) => of_file(path, app.as_ref(), out),
    };
    match done {
        // The reader has closed the pipe, because it needs no more.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        done => done,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_one = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(is_one)
}

#[expect(clippy::print_stderr, reason = "standard output is the CSV")]
async fn of_redis(
    mapping: &Mapping,
    app: Option<WxAppId>,
    mut out: csv::Writer<Stdout>,
) -> anyhow::Result<()> {
    write_header(&mut out)?;
    let (mut others, mut unusable): (u64, u64) = (0, 0);
    let listed = mapping.each(app, |found| {
        let (key, why) = match found {
            Found::Row(row) => return write(&row, &mut out),
            Found::Other => {
                others = others.saturating_add(1);
                return Ok(());
            }
            Found::Ambiguous(key) => (
                key,
                "app id and user id cannot be told apart; --app APP names the app",
            ),
            Found::NoOpenId(key) => (key, "its value is no openid"),
        };
        unusable = unusable.saturating_add(1);
        if unusable <= SHOWN {
            eprintln!("left out: {}: {why}", terminal::line(&key));
        }
        Ok(())
    });
    match listed.await {
        Ok(()) => {}
        Err(ListError::Stopped(error)) => return Err(error.into()),
        Err(ListError::NoApp) => bail!(
            "neither [identity] key nor field has {{wxAppId}}, so Redis does not tell which app a user belongs to: \
             name it by --app APP"
        ),
        Err(error @ ListError::Redis(_)) => return Err(error.into()),
    }
    out.flush()?;
    if others > 0 {
        eprintln!("{others} keys or fields are none of the mapping's, and were left out");
    }
    if unusable > 0 {
        bail!("{unusable} keys or fields were left out that may be the mapping's");
    }
    Ok(())
}

/// Fails on a line that `source = "file"` would refuse.
fn of_file(path: &Path, app: Option<&WxAppId>, mut out: csv::Writer<Stdout>) -> anyhow::Result<()> {
    let shown = || path.display().to_string();
    let file = File::open(path).with_context(shown)?;
    let rows = Rows::open(BufReader::new(file)).with_context(shown)?;
    let mut rows = rows.with_context(|| format!("{}: the first line must be {HEADER}", shown()))?;
    write_header(&mut out)?;
    while let Some(row) = rows.next_row().with_context(shown)? {
        let row = row.map_err(anyhow::Error::msg);
        let row = row.with_context(|| format!("{}, line {}", shown(), rows.position().line))?;
        if app.is_none_or(|app| *app == row.app) {
            write(&row, &mut out)?;
        }
    }
    out.flush()?;
    Ok(())
}
