//! `payout-sidecar stub`: serves fake-wechat on its own, for staging.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::private;
use fake_wechat::{API_KEY, FakeWechat, Faults, HandlerKind, Options};

#[derive(Args)]
pub(super) struct StubArguments {
    /// Address for HTTP: WeChat's v2 and v3 calls, a customer's handler, and /_stub/….
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9443")]
    listen: SocketAddr,
    /// Address for the same over TLS. WeChat's calls need a client certificate there.
    #[arg(long, value_name = "ADDR")]
    tls_listen: Option<SocketAddr>,
    /// Faults to inject, e.g. `sendredpack=error-after:SYSTEMERROR*1;query=delay:2s`.
    #[arg(long, value_name = "SPEC", default_value = "")]
    faults: Faults,
    /// API key of the merchants that --merchant does not name (32 characters).
    #[arg(long, value_name = "KEY", default_value = API_KEY)]
    api_key: String,
    /// A merchant with its own API key. May be given several times.
    #[arg(long, value_name = "MCH_ID:KEY", value_parser = merchant)]
    merchant: Vec<(String, String)>,
    /// Let the handler pay on each call, instead of once per order number.
    #[arg(long)]
    pays_each_call: bool,
    /// Write stub-ca.crt, the merchants' client certificates and their v3 keys (<mch_id>/v3) to this directory.
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
}

#[expect(clippy::print_stdout, reason = "a person who starts it needs its addresses")]
pub(super) async fn stub(arguments: StubArguments) -> anyhow::Result<()> {
    let names: Vec<String> = arguments
        .merchant
        .iter()
        .map(|(mch_id, _)| mch_id.clone())
        .collect();
    let fake = FakeWechat::start(Options {
        listen: arguments.listen,
        tls_listen: arguments.tls_listen,
        faults: arguments.faults,
        api_key: arguments.api_key,
        merchants: arguments.merchant,
        handler: if arguments.pays_each_call {
            HandlerKind::PaysEachCall
        } else {
            HandlerKind::Idempotent
        },
    })
    .await?;
    if let Some(dir) = &arguments.pki {
        let mut files = fake.pki(&names).map_err(anyhow::Error::from_boxed)?;
        files.extend(fake.v3_pki(&names).map_err(anyhow::Error::from_boxed)?);
        private::replace_all(dir, &files).with_context(|| format!("--pki {}", dir.display()))?;
    }
    println!("stub upstream on http://{}", fake.addr());
    if let Some(address) = fake.tls_addr() {
        println!("           and on https://{address}");
    }
    println!("v3 public key: {}", fake_wechat::PUBLIC_KEY_ID);
    println!("payments: http://{}/_stub/payments", fake.addr());
    tokio::signal::ctrl_c().await?;
    fake.shutdown().await;
    Ok(())
}

fn merchant(given: &str) -> Result<(String, String), &'static str> {
    let (mch_id, key) = given.split_once(':').ok_or("write MCH_ID:KEY")?;
    Ok((mch_id.to_owned(), key.to_owned()))
}
