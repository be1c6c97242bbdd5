//! `payout-sidecar demo`: shows the main features on embedded stores, with nothing else installed.
//!
//! It starts fake-wechat and a sidecar, posts what the platform would post, and shows the answers beside the expected
//! ones. [`script`] has the requests and the expected answers, [`table`] prints them.

mod script;
mod table;

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures_util::future::select_all;
use http::header::CONTENT_TYPE;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use self::script::Scene;
use crate::app::run::Sidecar;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::http::drain::{Drain, Phase};
use crate::http::plain_client::plain_client;
use crate::openids::csv::HEADER;
use crate::private;
use fake_wechat::{FakeWechat, HandlerKind, Options};
use payout_domain::fields::Fields;

/// The timeout for one answer.
const TIMEOUT: Duration = Duration::from_secs(20);

#[expect(clippy::print_stdout, reason = "showing is what the demo is for")]
pub(super) async fn demo(once: bool) -> anyhow::Result<()> {
    let wrong = play(once).await.inspect_err(|_| println!())?;
    ensure!(wrong == 0, "{wrong} answers were not as they should be");
    Ok(())
}

/// Runs the script, serves on until a signal unless `once` is set, and returns how many answers were wrong.
async fn play(once: bool) -> anyhow::Result<usize> {
    // Catch signals before anything exists that the demo must clean up.
    let mut ended = pin!(ended()?);
    let dir = tempfile::Builder::new()
        .prefix("payout-sidecar-demo-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir()?;
    let (wrong, playground) = tokio::select! {
        begun = begin(dir.path()) => begun?,
        () = &mut ended => bail!("ended before it was done"),
    };
    if !once {
        playground.tell();
        ended.await;
    }
    playground.end().await?;
    dir.close().context("the demo's directory was left behind")?;
    Ok(wrong)
}

/// Everything that the demo has started.
struct Playground {
    fake: FakeWechat,
    admin: SocketAddr,
    token: String,
    drain: Drain,
    serving: JoinHandle<()>,
}

impl Playground {
    /// Prints what the user can try.
    #[expect(clippy::print_stdout, reason = "showing is what the demo is for")]
    fn tell(&self) {
        let Self {
            fake, admin, token, ..
        } = self;
        println!("What is on record:\n  curl -H 'Authorization: Bearer {token}' http://{admin}/api/payouts");
        println!(
            "Serving until Ctrl-C. Payments: http://{}/_stub/payments",
            fake.addr()
        );
    }

    async fn end(self) -> anyhow::Result<()> {
        self.drain.enter(Phase::Draining);
        self.serving.await?;
        self.fake.shutdown().await;
        Ok(())
    }
}

/// Starts everything and runs the script. Returns how many answers were wrong.
#[expect(clippy::print_stdout, reason = "showing is what the demo is for")]
async fn begin(dir: &Path) -> anyhow::Result<(usize, Playground)> {
    let fake = FakeWechat::start(Options {
        handler: HandlerKind::PaysEachCall,
        ..Options::loopback()
    })
    .await?;
    let token = random_token();
    let config = configure(dir, &fake, &token)?;
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
        fake.addr()
    );

    let mut rows = Vec::new();
    let client = plain_client(TIMEOUT).map_err(anyhow::Error::from_boxed)?;
    for scene in script::scenes() {
        let answer = post(&client, main, &scene)
            .await
            .with_context(|| scene.title.to_owned())?;
        rows.push(table::Row::of(&scene, &answer));
    }
    let wrong = rows.iter().filter(|row| !row.is_right).count();
    table::print(&rows);
    let payments = fake.books().payments().len();
    println!(
        "\n{payments} payments were made for {} requests that asked for one.",
        script::asking_to_pay()
    );
    if payments != script::PAYMENTS {
        bail!("there should have been {} payments", script::PAYMENTS);
    }
    let playground = Playground {
        fake,
        admin,
        token,
        drain,
        serving,
    };
    Ok((wrong, playground))
}

/// Posts one scene to the sidecar, as the platform would, and returns the answer's fields.
async fn post(
    client: &reqwest::Client,
    sidecar: SocketAddr,
    scene: &Scene,
) -> anyhow::Result<Fields<'static>> {
    let request = client
        .post(format!("http://{sidecar}{}", scene.path))
        .header(CONTENT_TYPE, scene.encoding.content_type())
        .body(scene.body.clone());
    let answer = request.send().await?.bytes().await?;
    let fields = scene.encoding.decode(&answer).map_err(anyhow::Error::msg);
    Ok(fields.context("the answer's body")?.into_owned())
}

/// Writes the demo's configuration, as a customer would, and loads it.
fn configure(dir: &Path, fake: &FakeWechat, token: &str) -> anyhow::Result<Config> {
    let pki = fake.pki(&[script::MERCHANT]).map_err(anyhow::Error::from_boxed)?;
    private::replace_all(dir, &pki)?;
    let users = [script::APP, script::TRANSFER_APP]
        .into_iter()
        .flat_map(|app| script::USERS.map(|user| (app, user)));
    let mapped: String = users
        .map(|(app, (user, openid))| format!("{app},{user},{openid}\n"))
        .collect();
    let csv = format!("{HEADER}\n{mapped}");
    private::replace(&dir.join("openids.csv"), csv.as_bytes())?;
    let tls = fake.tls_addr().context("the stub serves TLS")?;
    let text = script::configuration(fake.addr(), tls, token);
    let path = dir.join("config.toml");
    private::replace(&path, text.as_bytes())?;
    Ok(crate::config::load(&path, std::iter::empty())?)
}

/// A token that nobody can guess.
fn random_token() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Waits for a signal that ends the demo: Ctrl-C, `kill`, a closed terminal. Catches them from this call on.
fn ended() -> anyhow::Result<impl Future<Output = ()>> {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let signals: Result<Vec<_>, _> = kinds.into_iter().map(signal).collect();
    let mut signals = signals.context("signals cannot be caught")?;
    Ok(async move {
        select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
    })
}
