//! `compare`: every set-up side by side in one run, ratios first.

use std::time::Duration;

use crate::Common;
use crate::load::{Encoding, Load, Pace, Tally, Until};
use crate::meter::pause;
use crate::subject::{Kind, Store, Subject, To, get};
use crate::upstream::Upstream;

/// Users in the store; the sidecar and nginx both keep looked up openids for a minute.
const USERS: u64 = 10_000;

/// What one set-up costs.
pub struct Cost {
    pub cpu_micros: f64,
    pub per_second: f64,
    /// p50, p99, p99.9 in microseconds at a third of the saturated rate, the upstream's part included.
    pub latency: [f64; 3],
    /// Resident bytes at rest, under load, after.
    pub memory: [u64; 3],
    pub payouts_per_sync: Option<f64>,
}

/// Every set-up, with the name that `--only` looks at.
fn setups() -> Vec<(String, Kind, Encoding)> {
    let mut all = vec![
        ("direct".to_owned(), Kind::Direct, Encoding::Json),
        ("hyper pass-through".to_owned(), Kind::Floor, Encoding::Json),
        (
            "nginx+lua, no ledger".to_owned(),
            Kind::Nginx { ledger: false },
            Encoding::Json,
        ),
        (
            "nginx+lua, ledger".to_owned(),
            Kind::Nginx { ledger: true },
            Encoding::Json,
        ),
    ];
    for to in [To::Handler, To::Wechat] {
        for store in [Store::Redis, Store::File] {
            for encoding in [Encoding::Json, Encoding::Xml] {
                let name = format!("sidecar {to:?} {store:?} {encoding:?}").to_lowercase();
                all.push((name, Kind::Sidecar { to, store }, encoding));
            }
        }
    }
    all
}

pub fn compare(common: &Common, only: &[String]) -> anyhow::Result<()> {
    let pki = tempfile::tempdir()?;
    let upstream = Upstream::start(pki.path())?;
    let mut rows: Vec<(String, Cost)> = Vec::new();
    for (name, kind, encoding) in setups() {
        let wanted = only.is_empty() || only.iter().any(|part| name.contains(part.as_str()));
        // Everything is told in relation to these two.
        if !wanted && !matches!(kind, Kind::Direct | Kind::Floor) {
            continue;
        }
        eprintln!("measuring: {name}");
        let subject = Subject::start(kind, &common.sidecar, &upstream, pki.path(), USERS)?;
        let cost = measure(&subject, &upstream, encoding, common, USERS)?;
        rows.push((name, cost));
    }
    print(&rows);
    Ok(())
}

/// Warms up, saturates, then asks at a third of that.
pub fn measure(
    subject: &Subject,
    upstream: &Upstream,
    encoding: Encoding,
    common: &Common,
    users: u64,
) -> anyhow::Result<Cost> {
    let load = Load {
        address: subject.address,
        connections: common.connections,
        encoding,
        users,
    };
    let memory = || {
        subject
            .process
            .as_ref()
            .map_or(Ok((0, 0)), |process| process.memory())
    };
    let cpu = || {
        subject
            .process
            .as_ref()
            .map_or(Ok(Duration::ZERO), |process| process.cpu())
    };
    let at_rest = memory()?.0;
    let paid_before = upstream.paid();
    let warm = load
        .run(Pace::Saturation, Until::After(Duration::from_secs(2)))?
        .whole("warming up")?;
    let syncs_before = syncs(subject);
    let before = cpu()?;
    let saturated = load
        .run(Pace::Saturation, Until::After(common.time()))?
        .whole("at saturation")?;
    let used = cpu()?.saturating_sub(before);
    let payouts_per_sync = syncs(subject)
        .zip(syncs_before)
        .filter(|(after, before)| after > before)
        .map(|(after, before)| saturated.paid as f64 / (after - before));
    let under_load = memory()?.0;
    let third = load
        .run(
            Pace::PerSecond(saturated.per_second() / 3.0),
            Until::After(common.time()),
        )?
        .whole("at a third")?;
    let (told, paid) = (
        warm.paid + saturated.paid + third.paid,
        upstream.paid() - paid_before,
    );
    anyhow::ensure!(told == paid, "{told} payouts were told as paid, {paid} were");
    pause(Duration::from_secs(2));
    Ok(Cost {
        cpu_micros: used.as_secs_f64() * 1e6 / saturated.paid as f64,
        per_second: saturated.per_second(),
        latency: quantiles(&third),
        memory: [at_rest, under_load, memory()?.0],
        payouts_per_sync,
    })
}

fn quantiles(tally: &Tally) -> [f64; 3] {
    [0.5, 0.99, 0.999].map(|share| tally.quantile(share))
}

/// How often the embedded ledger has synced.
fn syncs(subject: &Subject) -> Option<f64> {
    let metrics = get(subject.admin?, "/metrics")?;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("payout_ledger_syncs_total"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn print(rows: &[(String, Cost)]) {
    let of = |name: &str| rows.iter().find(|(row, _)| row == name).map(|(_, cost)| cost);
    let floor = of("hyper pass-through").map_or(f64::NAN, |cost| cost.cpu_micros);
    let nginx = of("nginx+lua, ledger").map_or(f64::NAN, |cost| cost.cpu_micros);
    let direct = of("direct").map_or([f64::NAN; 3], |cost| cost.latency);
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    println!(
        "| set-up | × floor | × nginx | CPU µs | per s | added µs p50 | p99 | p99.9 | MiB rest | load | after | per sync |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for (name, cost) in rows {
        let added: Vec<f64> = cost
            .latency
            .iter()
            .zip(direct)
            .map(|(own, direct)| own - direct)
            .collect();
        let per_sync = cost
            .payouts_per_sync
            .map_or_else(|| "–".to_owned(), |n| format!("{n:.1}"));
        println!(
            "| {name} | {:.2} | {:.2} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {per_sync} |",
            cost.cpu_micros / floor,
            cost.cpu_micros / nginx,
            cost.cpu_micros,
            cost.per_second,
            added[0],
            added[1],
            added[2],
            mib(cost.memory[0]),
            mib(cost.memory[1]),
            mib(cost.memory[2]),
        );
    }
}
