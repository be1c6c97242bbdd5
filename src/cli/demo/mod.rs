//! `payout-sidecar demo`: the main job on embedded stores, with nothing else installed.
//!
//! It starts the stub upstream and a sidecar, posts what the platform would post, and shows what came back beside what
//! should have. [`script`] is what is sent and expected, [`post`] sends it, [`table`] prints it.

mod post;
mod script;
mod table;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};

use super::Ending;
use super::run::Sidecar;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::http::drain::Phase;
use crate::stub::{HandlerKind, Options, Stub};

#[expect(clippy::print_stdout, reason = "showing is what the demo is for")]
pub(super) async fn demo(once: bool) -> Ending {
    match play(once).await {
        Ok(0) => Ending::Done,
        Ok(wrong) => Ending::Failed(anyhow::anyhow!("{wrong} answers were not as they should be")),
        Err(error) => {
            println!();
            Ending::Failed(error)
        }
    }
}

/// Plays the script, and returns how many answers were wrong.
#[expect(clippy::print_stdout, reason = "showing is what the demo is for")]
async fn play(once: bool) -> anyhow::Result<usize> {
    let dir = Scratch::new()?;
    let stub = Stub::start(Options {
        handler: HandlerKind::PaysEachCall,
        ..Options::loopback()
    })
    .await?;
    let config = configure(dir.path(), &stub)?;
    let (sidecar, drain) = Sidecar::bind(&config, Arc::new(SystemClock)).await?;
    let (main, admin) = sidecar.addresses()?;
    let serving = tokio::spawn(sidecar.serve());
    println!(
        "sidecar  http://{main}   (embedded ledger and mapping in {})",
        dir.path().display()
    );
    println!("admin    http://{admin}/readyz");
    println!(
        "stub     http://{}/_stub/payments   (stands in for WeChat Pay and for a handler)\n",
        stub.addr()
    );

    let mut rows = Vec::new();
    for scene in script::scenes() {
        let answer = post::post(main, &scene)
            .await
            .with_context(|| scene.title.to_owned())?;
        rows.push(table::Row::of(&scene, &answer));
    }
    let wrong = rows.iter().filter(|row| !row.is_right).count();
    table::print(&rows);
    let payments = stub.books().payments().len();
    println!(
        "\n{payments} payments were made for {} requests that asked for one.",
        script::asking_to_pay()
    );
    if payments != script::PAYMENTS {
        bail!("there should have been {} payments", script::PAYMENTS);
    }
    if !once {
        println!(
            "Serving until Ctrl-C. Payments: http://{}/_stub/payments",
            stub.addr()
        );
        tokio::signal::ctrl_c().await?;
    }
    drain.enter(Phase::Draining);
    serving.await?;
    stub.shutdown().await;
    Ok(wrong)
}

/// Writes the demo's configuration, as a customer would, and loads it.
fn configure(dir: &Path, stub: &Stub) -> anyhow::Result<Config> {
    stub.write_pki(dir, &[script::MERCHANT])?;
    let users = [script::APP, script::TRANSFER_APP]
        .into_iter()
        .flat_map(|app| script::USERS.map(|user| (app, user)));
    let mapped: String = users
        .map(|(app, (user, openid))| format!("{app},{user},{openid}\n"))
        .collect();
    std::fs::write(
        dir.join("openids.csv"),
        format!("wx_app_id,user_id,openid\n{mapped}"),
    )?;
    let tls = stub.tls_addr().context("the stub serves TLS")?;
    let text = script::configuration(stub.addr(), tls);
    let path = dir.join("config.toml");
    std::fs::write(&path, text)?;
    Ok(crate::config::load(&path, std::iter::empty())?)
}

/// A directory that goes when the demo ends.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let name = format!("payout-sidecar-demo-{:016x}", getrandom::u64()?);
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, dir = %self.0.display(), "the demo's directory was left behind");
        }
    }
}
