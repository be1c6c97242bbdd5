//! Looks up openids in a CSV file `wx_app_id,user_id,openid` and reads it again when it changes. See docs/openids.md.
//!
//! If a new version has a bad line, the store logs that line and keeps the last good version. It must never load a file
//! that is still being written: so the file must have stopped changing, and must end with a line break (see `csv`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;

use super::csv::{Row, Rows};
use crate::clock::{Clock as _, SystemClock};
use crate::file_watch::{Stamp, Watch, stamp};
use crate::payouts::ports::{Identity, LookupError};
use payout_domain::ids::{OpenId, UserId, WxAppId};

/// How long the file must stay unchanged before it is read.
const STILL: Duration = Duration::from_millis(100);
/// How many times to wait for that before refusing the version.
const STILL_TRIES: u32 = 100;

type Mapping = HashMap<(WxAppId, UserId), OpenId>;

/// The openid store in a file.
pub struct FileIdentity {
    mapping: Arc<ArcSwap<Mapping>>,
    reader: tokio::task::JoinHandle<()>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says it in its text")]
pub enum FileError {
    #[error("{path} cannot be read: {why}")]
    Unreadable { path: PathBuf, why: String },
    #[error("{path}: the first line must be {HEADER}", HEADER = super::csv::HEADER)]
    Header { path: PathBuf },
    #[error("{path}, line {line}: {why}")]
    Row { path: PathBuf, line: u64, why: String },
}

impl FileIdentity {
    /// Reads the file and watches it. Call this inside a tokio runtime.
    ///
    /// # Errors
    /// [`FileError`] when the file cannot be read or has a bad line.
    pub async fn open(path: &Path) -> Result<Self, FileError> {
        // Start the watch before the read, so that it reports a change in between.
        let watch = Watch::over([path.to_owned()]).await;
        let (text, first) = read(path).await?;
        let mapping = Arc::new(ArcSwap::from_pointee(first));
        let reader = tokio::spawn(follow(path.to_owned(), text, Arc::clone(&mapping), watch));
        Ok(Self { mapping, reader })
    }
}

impl Drop for FileIdentity {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn follow(path: PathBuf, mut text: String, mapping: Arc<ArcSwap<Mapping>>, mut watch: Watch) {
    let mut refused = None;
    loop {
        watch.changed().await;
        match read_if_other(&path, &text).await {
            Ok(None) => refused = None,
            Ok(Some((new_text, new_mapping))) => {
                tracing::info!(path = %path.display(), rows = new_mapping.len(), "the mapping was read again");
                mapping.store(Arc::new(new_mapping));
                text = new_text;
                refused = None;
            }
            Err(error) => {
                let error = error.to_string();
                if refused.as_ref() != Some(&error) {
                    tracing::error!(
                        error,
                        "the mapping's new version was refused; the last good one stays"
                    );
                    refused = Some(error);
                }
            }
        }
    }
}

async fn read_if_other(path: &Path, known: &str) -> Result<Option<(String, Mapping)>, FileError> {
    let text = load(path).await?;
    if text == known {
        return Ok(None);
    }
    parse_apart(path, text).await.map(Some)
}

async fn read(path: &Path) -> Result<(String, Mapping), FileError> {
    let text = load(path).await?;
    parse_apart(path, text).await
}

/// Parses on a blocking thread: a million lines take longer than a task may occupy its thread.
async fn parse_apart(path: &Path, text: String) -> Result<(String, Mapping), FileError> {
    let owned = path.to_owned();
    let parsed = tokio::task::spawn_blocking(move || parse(&owned, &text).map(|mapping| (text, mapping)));
    parsed
        .await
        .unwrap_or_else(|error| Err(unreadable(path, &error.to_string())))
}

fn unreadable(path: &Path, why: &str) -> FileError {
    FileError::Unreadable {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

/// The file's text, once the file has not changed for a while, neither before the read nor during it.
async fn load(path: &Path) -> Result<String, FileError> {
    let mut before = state_of(path).await?;
    // Do not wait for a file that was written long ago: that would delay every start.
    let mut is_still = SystemClock.now() > before.last_change().after(STILL);
    for _ in 0..STILL_TRIES {
        if !is_still {
            tokio::time::sleep(STILL).await;
        }
        is_still = false;
        if state_of(path).await? == before {
            let text = tokio::fs::read_to_string(path).await;
            let text = text.map_err(|error| unreadable(path, &error.to_string()))?;
            if state_of(path).await? == before {
                return Ok(text);
            }
        }
        before = state_of(path).await?;
    }
    Err(unreadable(
        path,
        "it is being written all the time: replace it by renaming a finished file",
    ))
}

async fn state_of(path: &Path) -> Result<Stamp, FileError> {
    stamp(path)
        .await
        .map_err(|error| unreadable(path, &error.to_string()))
}

fn parse(path: &Path, text: &str) -> Result<Mapping, FileError> {
    let unreadable = |error: std::io::Error| unreadable(path, &error.to_string());
    let mut rows = Rows::open(text.as_bytes())
        .map_err(unreadable)?
        .ok_or_else(|| FileError::Header {
            path: path.to_owned(),
        })?;
    let mut mapping = Mapping::new();
    while let Some(row) = rows.next_row().map_err(unreadable)? {
        let bad = |why: String| FileError::Row {
            path: path.to_owned(),
            line: rows.position().line,
            why,
        };
        let Row { app, user, openid } = row.map_err(bad)?;
        match mapping.entry((app, user)) {
            Entry::Occupied(known) if *known.get() != openid => {
                return Err(bad("this user has another openid on an earlier line".to_owned()));
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(vacant) => {
                vacant.insert(openid);
            }
        }
    }
    Ok(mapping)
}

#[async_trait]
impl Identity for FileIdentity {
    async fn openid(&self, app: &WxAppId, user: &UserId) -> Result<Option<OpenId>, LookupError> {
        Ok(self.mapping.load().get(&(app.clone(), user.clone())).cloned())
    }

    async fn ready(&self) -> Result<(), LookupError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(identity: &FileIdentity, user: &str) -> Option<String> {
        let (app, user) = (WxAppId::parse("wx1").unwrap(), UserId::parse(user).unwrap());
        identity
            .openid(&app, &user)
            .await
            .unwrap()
            .map(|openid| openid.as_str().to_owned())
    }

    async fn until(identity: &FileIdentity, user: &str, openid: Option<&str>) {
        for _ in 0..1000 {
            if ask(identity, user).await.as_deref() == openid {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{user} did not become {openid:?}");
    }

    #[test]
    fn bad_rows_are_named_by_line_and_rule() {
        let path = Path::new("openids.csv");
        for (text, says) in [
            ("", "the first line must be"),
            ("app,user,openid\n", "the first line must be"),
            ("wx_app_id,user_id,openid\nwx1,u\n", "line 2: it has 2 columns"),
            (
                "wx_app_id,user_id,openid\nwx1,u,o1\nwx 1,u,o\n",
                "line 3: wx_app_id must be",
            ),
            ("wx_app_id,user_id,openid\nwx1,,o\n", "line 2: user_id must be"),
            ("wx_app_id,user_id,openid\nwx1,u,o o\n", "line 2: openid must be"),
            (
                "wx_app_id,user_id,openid\nwx1,u,o1\nwx1,v,o2",
                "line 3: the last line does not end",
            ),
            (
                "wx_app_id,user_id,openid\nwx1,u,o1\nwx1,u,o2\n",
                "line 3: this user has another openid",
            ),
        ] {
            let error = parse(path, text).unwrap_err().to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
        let good = "\u{FEFF}wx_app_id,user_id,openid\r\nwx1,\"u,1\",o1\r\nwx1,\"u,1\",o1\r\n";
        assert_eq!(parse(path, good).unwrap().len(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn changes_are_seen_bad_ones_refused_and_symlinks_followed() {
        let dir = tempfile::tempdir().unwrap();
        let version = |name: &str, rows: &str| {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(
                dir.path().join(name).join("openids.csv"),
                format!("wx_app_id,user_id,openid\n{rows}"),
            )
            .unwrap();
        };
        // Like a mounted ConfigMap: the file is a link through a directory link, and an update swaps the latter.
        version("v1", "wx1,u,o1\n");
        let data = dir.path().join("..data");
        std::os::unix::fs::symlink("v1", &data).unwrap();
        std::os::unix::fs::symlink("..data/openids.csv", dir.path().join("openids.csv")).unwrap();
        let identity = FileIdentity::open(&dir.path().join("openids.csv")).await.unwrap();
        assert_eq!(ask(&identity, "u").await.as_deref(), Some("o1"));
        assert_eq!(ask(&identity, "v").await, None);
        let swap = |name: &str| {
            std::os::unix::fs::symlink(name, dir.path().join("..data_tmp")).unwrap();
            std::fs::rename(dir.path().join("..data_tmp"), &data).unwrap();
        };
        version("v2", "wx1,u,o2\nwx1,v,o3\n");
        swap("v2");
        until(&identity, "u", Some("o2")).await;
        version("v3", "wx1,u,o 9\n");
        swap("v3");
        version("v4", "wx1,v,o4\n");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(
            ask(&identity, "u").await.as_deref(),
            Some("o2"),
            "a bad version is refused"
        );
        swap("v4");
        until(&identity, "v", Some("o4")).await;
        assert_eq!(ask(&identity, "u").await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_version_that_is_being_written_is_read_when_it_is_done() {
        use std::io::Write as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("openids.csv");
        let mut file = std::fs::File::create(&path).unwrap();
        let writing = async {
            for n in 0..40 {
                // Half of the file would be a valid file too.
                writeln!(file, "line {n}").unwrap();
                tokio::time::sleep(STILL / 4).await;
            }
        };
        let (text, ()) = tokio::join!(load(&path), writing);
        assert_eq!(text.unwrap().lines().count(), 40);
    }
}
