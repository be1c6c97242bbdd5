//! Builds the settings of the payout flow, with an upstream for each merchant entry.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;

use crate::clock::Clock;
use crate::config::{self, ClientIp, Config, To};
use crate::http::client_tls::{ClientCertificate, tls_config};
use crate::payouts::Settings;
use crate::payouts::merchant::Merchant;
use crate::payouts::ports::Upstream;
use crate::payouts::watch::Contact;
use crate::telemetry::metrics::Metrics;
use crate::upstream::handler::HandlerUpstream;
use crate::upstream::http_client::Client;
use crate::upstream::wechat_v2::{Hosts, WechatUpstream};
use crate::upstream::wechat_v3::{BillCredentials, BillUpstream};
use payout_domain::contract::answer::Disclosure;
use payout_domain::route::MerchantPattern;

/// The connect timeout towards a handler, which runs in the same pod or nearby.
const HANDLER_CONNECT: std::time::Duration = std::time::Duration::from_secs(3);

/// The settings of the payout flow.
///
/// # Errors
/// Names the merchant entry whose certificate, key or host cannot be used, and why.
pub(crate) fn settings(
    config: &Config,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> anyhow::Result<Settings> {
    let merchants = config
        .merchants
        .iter()
        .map(|entry| merchant(config, entry, clock, metrics))
        .collect::<anyhow::Result<_>>()?;
    let client_ip: Option<IpAddr> = match config.client_ip {
        ClientIp::Keep => None,
        ClientIp::Value(address) => Some(address),
    };
    Ok(Settings {
        merchants,
        client_ip,
        limits: config.limits,
        disclosure: Disclosure {
            reveal_openid: config.reveal_openid,
        },
        request_timeout: config.server.request_timeout,
    })
}

fn merchant(
    config: &Config,
    entry: &config::Merchant,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> anyhow::Result<(MerchantPattern, Arc<Merchant>)> {
    let (name, wechat) = (&entry.name, &config.wechat);
    let hosts = || hosts(wechat, name, metrics);
    let upstream = match &entry.to {
        To::Handler(handler) => handler_upstream(handler, name, clock, metrics),
        To::Wechat(merchant) => wechat_upstream(merchant, hosts(), clock),
        To::TransferBill(merchant) => bill_upstream(merchant, hosts(), clock),
    };
    let merchant = Merchant {
        kind: entry.to.kind(),
        upstream: upstream.with_context(|| name.clone())?,
        policy: entry.to.policy(wechat),
        is_settle_only: entry.settle_only,
        contact: Contact::default(),
        takes_credentials: entry.to.takes_credentials(),
    };
    Ok((entry.pattern.clone(), Arc::new(merchant)))
}

fn handler_upstream(
    handler: &config::Handler,
    name: &str,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> anyhow::Result<Arc<dyn Upstream>> {
    let tls = tls_config(None, None)?;
    let client = Client::new(handler.url.clone(), tls, HANDLER_CONNECT, handler.timeout)?;
    Ok(Arc::new(HandlerUpstream {
        client: client.watched(name, Some(metrics)),
        format: handler.format.fixed(),
        longest: HANDLER_CONNECT.saturating_add(handler.timeout),
        token: handler.token.clone(),
        clock: Arc::clone(clock),
    }))
}

fn wechat_upstream(
    merchant: &config::WechatMerchant,
    hosts: Hosts,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn Upstream>> {
    let certificate = merchant.certificate.as_ref().map(|c| ClientCertificate {
        chain: c.chain(),
        key: c.key(),
    });
    let upstream = WechatUpstream::new(
        hosts,
        merchant.api_key.clone(),
        certificate.as_ref(),
        Arc::clone(clock),
    )?;
    Ok(Arc::new(upstream))
}

fn bill_upstream(
    merchant: &config::BillMerchant,
    hosts: Hosts,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn Upstream>> {
    let credentials = BillCredentials {
        mch_id: merchant.mch_id.clone(),
        serial_no: merchant.serial_no.clone(),
        key: Arc::clone(&merchant.key),
        public_key: merchant.public_key.clone(),
        apiv3_key: merchant.apiv3_key.clone(),
    };
    let upstream = BillUpstream::new(
        hosts,
        credentials,
        merchant.notify_path.clone(),
        Arc::clone(clock),
    )?;
    Ok(Arc::new(upstream))
}

fn hosts(wechat: &config::Wechat, name: &str, metrics: &Metrics) -> Hosts {
    Hosts {
        base: wechat.base_url.clone(),
        backup: wechat.backup_url.clone(),
        ca_pem: wechat.ca_pem.clone(),
        connect_timeout: wechat.connect_timeout,
        timeout: wechat.timeout,
        name: name.to_owned(),
        metrics: metrics.clone(),
    }
}
