//! `payout-sidecar openid import|get|set|delete|export`: works on the configured mapping of user ids to openids.
//!
//! These commands print ids in full, because the operator gave them or asked for them. They log nothing.

mod export;
mod import;
mod progress;
mod rejects;
mod resume;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;

use crate::app::{build, configuration, misconfigured};
use crate::config::{Config, IdentitySource};
use crate::openids::admin::{Mapping, Put};
use crate::openids::csv::Row;
use crate::telemetry::metrics::Metrics;
use payout_domain::ids::{OpenId, UserId, WxAppId};
use payout_domain::terminal;

#[derive(Subcommand)]
pub(super) enum OpenidCommand {
    /// Import a CSV file wx_app_id,user_id,openid into Redis. After an interruption, run it again to resume.
    Import(import::Arguments),
    /// Print a user's openid. Exits with 1 if there is none.
    Get {
        /// App id.
        #[arg(value_parser = WxAppId::parse)]
        app: WxAppId,
        /// User id.
        #[arg(value_parser = UserId::parse)]
        user: UserId,
    },
    /// Set a user's openid in Redis.
    Set {
        /// App id.
        #[arg(value_parser = WxAppId::parse)]
        app: WxAppId,
        /// User id.
        #[arg(value_parser = UserId::parse)]
        user: UserId,
        /// The user's openid under this app.
        #[arg(value_parser = OpenId::parse)]
        openid: OpenId,
    },
    /// Remove a user's openid from Redis. Exits with 0 even if there is none.
    Delete {
        /// App id.
        #[arg(value_parser = WxAppId::parse)]
        app: WxAppId,
        /// User id.
        #[arg(value_parser = UserId::parse)]
        user: UserId,
    },
    /// Print the whole mapping as CSV, in no particular order.
    Export {
        /// Only this app's users. Required if neither key nor field contains {wxAppId}.
        #[arg(long, value_name = "APP", value_parser = WxAppId::parse)]
        app: Option<WxAppId>,
    },
}

pub(super) async fn openid(path: &Path, command: OpenidCommand) -> anyhow::Result<()> {
    let config = configuration(path)?;
    let store = Store::of(&config).context("[identity]").map_err(misconfigured)?;
    match (command, store) {
        (OpenidCommand::Get { app, user }, _) => get(&config, &app, &user).await,
        (OpenidCommand::Export { app }, store) => export::export(&store, app).await,
        (
            OpenidCommand::Import(_) | OpenidCommand::Set { .. } | OpenidCommand::Delete { .. },
            Store::File(file),
        ) => Err(misconfigured(anyhow::anyhow!(
            "[identity] source = \"file\": {} is the mapping itself. Write the new version beside it and rename it over \
             this one; a sidecar that runs reads it within seconds. This command is for source = \"redis\"",
            file.display()
        ))),
        (OpenidCommand::Import(arguments), Store::Redis(mapping)) => {
            import::import(&mapping, arguments).await
        }
        (OpenidCommand::Set { app, user, openid }, Store::Redis(mapping)) => {
            set(&mapping, Row { app, user, openid }).await
        }
        (OpenidCommand::Delete { app, user }, Store::Redis(mapping)) => delete(&mapping, &app, &user).await,
    }
}

/// The configured mapping.
enum Store {
    Redis(Mapping),
    File(PathBuf),
}

impl Store {
    fn of(config: &Config) -> anyhow::Result<Self> {
        match &config.identity {
            IdentitySource::Redis {
                server, key, field, ..
            } => {
                let link = build::link(server, "identity", &Metrics::default());
                let mapping = Mapping::new(link, key, field.as_deref()).map_err(anyhow::Error::msg)?;
                Ok(Self::Redis(mapping))
            }
            IdentitySource::File { path } => Ok(Self::File(path.clone())),
        }
    }
}

/// Uses the same lookup as a payout.
#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
async fn get(config: &Config, app: &WxAppId, user: &UserId) -> anyhow::Result<()> {
    let identity = build::identity(config, &Metrics::default()).await?;
    let found = identity.openid(app, user).await?;
    let openid =
        found.with_context(|| format!("user {} has no openid under {app}", terminal::line(user.as_str())))?;
    println!("{}", openid.as_str());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
async fn set(mapping: &Mapping, row: Row) -> anyhow::Result<()> {
    let came = mapping.put(std::slice::from_ref(&row)).await?;
    let came = match came.first() {
        Some(Put::New) => "is new",
        Some(Put::Changed) => "has replaced another one",
        Some(Put::Unchanged) => "was there already",
        Some(Put::Refused(why)) => {
            anyhow::bail!("something else stands where this user's openid should: {why}")
        }
        None => anyhow::bail!("Redis did not say what it did"),
    };
    println!(
        "{} of user {} under {} {came}",
        row.openid.as_str(),
        terminal::line(row.user.as_str()),
        row.app
    );
    Ok(())
}

#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
async fn delete(mapping: &Mapping, app: &WxAppId, user: &UserId) -> anyhow::Result<()> {
    let did = if mapping.remove(app, user).await? {
        "has no openid any more"
    } else {
        "had no openid"
    };
    println!("user {} {did} under {app}", terminal::line(user.as_str()));
    Ok(())
}
