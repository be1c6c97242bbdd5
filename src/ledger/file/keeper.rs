//! Decisions about the whole ledger in the embedded file: create it, check it, accept a loss.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::open::{self, OpenError};
use super::place::{DiskLocation, Location as _, make};
use super::reads;
use crate::clock::{Clock as _, SystemClock};
use crate::ledger::keeper::{Keeper, LedgerId, Standing};
use crate::payouts::ports::StoreError;
use payout_domain::ids::LedgerTime;

/// Manages the ledger at a path. Keeps nothing open between two calls.
#[derive(Debug)]
pub struct FileKeeper {
    path: PathBuf,
}

impl FileKeeper {
    /// For the file at this path, which need not exist.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let path = self.path.clone();
        let task = tokio::task::spawn_blocking(move || work(&path));
        task.await.map_err(|error| refusal(error.to_string()))?
    }
}

fn refusal(text: String) -> StoreError {
    StoreError { unsure: false, text }
}

#[async_trait]
impl Keeper for FileKeeper {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    async fn create(&self) -> Result<LedgerId, StoreError> {
        self.blocking(|path| {
            let exists = || OpenError::Exists {
                path: path.to_owned(),
            };
            let made = make(path, LedgerTime(SystemClock.now().0))?.ok_or_else(exists)?;
            let (_, about) = open::rehearse(&made, path)?;
            Ok(about.id)
        })
        .await
    }

    async fn status(&self) -> Result<Standing, StoreError> {
        self.blocking(look).await
    }

    async fn accept_loss(&self) -> Result<(LedgerId, Standing), StoreError> {
        let path = self.place();
        Err(match self.status().await? {
            Standing::None => refusal(format!(
                "{path} holds nothing that could be kept: restore it from a copy, or make a new ledger by payout-sidecar \
                 ledger create"
            )),
            Standing::InUse => refusal(format!(
                "{path} is in use by another process, which finds it whole"
            )),
            Standing::Whole { .. } | Standing::Lost { .. } => {
                refusal(format!("{path} is whole: nothing is lost"))
            }
        })
    }
}

fn look(path: &Path) -> Result<Standing, StoreError> {
    let locked = match DiskLocation(path.to_owned()).take() {
        Err(OpenError::Absent { .. }) => return Ok(Standing::None),
        Err(OpenError::InUse { .. }) => return Ok(Standing::InUse),
        taken => taken?,
    };
    let (database, about) = open::rehearse(&locked, path)?;
    let transaction =
        redb::ReadableDatabase::begin_read(&database).map_err(|error| super::tables::failed(&error))?;
    Ok(Standing::Whole {
        id: about.id,
        merchants: Some(reads::merchants(&transaction)?),
    })
}
