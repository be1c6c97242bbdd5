//! `payout-sidecar demo`: the main job on embedded stores, with nothing else installed.
//!
//! It starts the stub upstream and a sidecar, posts what the platform would post, and shows what came back beside what
//! should have. [`script`] is what is sent and expected, [`post`] sends it, [`table`] prints it.

mod post;
mod script;
mod table;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use super::Ending;
use super::run::Sidecar;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::http::drain::{Drain, Phase};
use crate::identity::csv::HEADER;
use crate::private;
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

/// Plays the script, serves on until it is ended where not only `once`, and returns how many answers were wrong.
async fn play(once: bool) -> anyhow::Result<usize> {
    // Before there is anything to leave behind.
    let mut ended = Ended::new()?;
    let dir = Scratch::new()?;
    let (wrong, playground) = tokio::select! {
        begun = begin(dir.path()) => begun?,
        () = ended.told() => bail!("ended before it was done"),
    };
    if !once {
        playground.tell();
        ended.told().await;
    }
    playground.end().await?;
    Ok(wrong)
}

/// What a demo has started.
struct Playground {
    stub: Stub,
    admin: SocketAddr,
    token: String,
    drain: Drain,
    serving: JoinHandle<()>,
}

impl Playground {
    /// Says what there is to try.
    #[expect(clippy::print_stdout, reason = "showing is what the demo is for")]
    fn tell(&self) {
        let Self {
            stub, admin, token, ..
        } = self;
        println!("What is on record:\n  curl -H 'Authorization: Bearer {token}' http://{admin}/api/payouts");
        println!(
            "Serving until Ctrl-C. Payments: http://{}/_stub/payments",
            stub.addr()
        );
    }

    async fn end(self) -> anyhow::Result<()> {
        self.drain.enter(Phase::Draining);
        self.serving.await?;
        self.stub.shutdown().await;
        Ok(())
    }
}

/// Plays the script; returns how many answers were wrong.
#[expect(clippy::print_stdout, reason = "showing is what the demo is for")]
async fn begin(dir: &Path) -> anyhow::Result<(usize, Playground)> {
    let stub = Stub::start(Options {
        handler: HandlerKind::PaysEachCall,
        ..Options::loopback()
    })
    .await?;
    let token = random_token();
    let config = configure(dir, &stub, &token)?;
    let (sidecar, drain) = Sidecar::bind(&config, Arc::new(SystemClock)).await?;
    let (main, admin) = sidecar.addresses()?;
    let serving = tokio::spawn(sidecar.serve());
    println!(
        "sidecar  http://{main}   (embedded ledger and mapping in {})",
        dir.display()
    );
    println!("admin    http://{admin}/readyz   (token {token})");
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
    let playground = Playground {
        stub,
        admin,
        token,
        drain,
        serving,
    };
    Ok((wrong, playground))
}

/// Writes the demo's configuration, as a customer would, and loads it.
fn configure(dir: &Path, stub: &Stub, token: &str) -> anyhow::Result<Config> {
    stub.write_pki(dir, &[script::MERCHANT])?;
    let users = [script::APP, script::TRANSFER_APP]
        .into_iter()
        .flat_map(|app| script::USERS.map(|user| (app, user)));
    let mapped: String = users
        .map(|(app, (user, openid))| format!("{app},{user},{openid}\n"))
        .collect();
    let csv = format!("{HEADER}\n{mapped}");
    private::replace(&dir.join("openids.csv"), csv.as_bytes())?;
    let tls = stub.tls_addr().context("the stub serves TLS")?;
    let text = script::configuration(stub.addr(), tls, token);
    let path = dir.join("config.toml");
    private::replace(&path, text.as_bytes())?;
    Ok(crate::config::load(&path, std::iter::empty())?)
}

/// A token that nobody can guess.
fn random_token() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// What ends a demo: Ctrl-C, `kill`, a terminal that is closed.
struct Ended([Signal; 3]);

impl Ended {
    fn new() -> anyhow::Result<Self> {
        let heard = |kind| signal(kind).context("signals cannot be caught");
        Ok(Self([
            heard(SignalKind::interrupt())?,
            heard(SignalKind::terminate())?,
            heard(SignalKind::hangup())?,
        ]))
    }

    async fn told(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// A directory that goes when the demo ends.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let name = format!("payout-sidecar-demo-{:016x}", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        private::create_directory(&path).with_context(|| path.display().to_string())?;
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
