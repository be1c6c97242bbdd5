//! `compare`: measures all set-ups in one run and prints the results, ratios first.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::Common;
use crate::load::{Encoding, Load, Rate, Tally, Until};
use crate::meter::pause;
use crate::subject::{Kind, Store, Subject, To, get};
use crate::upstream::Upstream;

/// Users in the store. Sidecar and nginx both cache an openid for a minute.
const USERS: u64 = 10_000;

/// How long one turn at saturation takes.
const TURN: Duration = Duration::from_millis(500);

/// The cost of one set-up.
pub struct Cost {
    pub cpu_micros: f64,
    /// CPU time of its Redis per request.
    pub redis_micros: f64,
    pub per_second: f64,
    /// p50, p99 and p99.9 in microseconds at a third of the saturated rate, including the upstream's part.
    pub latency: [f64; 3],
    /// Resident bytes at rest, under load, and afterwards.
    pub memory: [u64; 3],
    pub payouts_per_sync: Option<f64>,
}

/// All set-ups, with the names that `--only` matches.
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
    let (to, store) = (To::Backend, Store::File);
    let proxied = Kind::Sidecar { to, store };
    all.push(("sidecar, proxied".to_owned(), proxied, Encoding::Json));
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

pub fn compare(common: &Common, only: &[String], other: Option<&Path>) -> anyhow::Result<()> {
    let pki = tempfile::tempdir()?;
    let upstream = Upstream::start(pki.path())?;
    let mut subjects = Vec::new();
    for (name, kind, encoding) in setups() {
        let wanted = only.is_empty() || only.iter().any(|part| name.contains(part.as_str()));
        // The report compares everything with these two.
        if !wanted && !matches!(kind, Kind::Direct | Kind::Floor) {
            continue;
        }
        eprintln!("starting: {name}");
        let subject = Subject::start(kind, &common.sidecar, &upstream, pki.path(), USERS)?;
        if let (Some(other), Kind::Sidecar { .. }) = (other, kind) {
            let subject = Subject::start(kind, other, &upstream, pki.path(), USERS)?;
            subjects.push((format!("{name}, other build"), subject, encoding));
        }
        subjects.push((name, subject, encoding));
    }
    let mut measured = Vec::new();
    for (name, subject, encoding) in &subjects {
        let one = Measured::begin(subject, &upstream, *encoding, common, USERS)?;
        measured.push((name.clone(), one));
    }
    // Alternate between the set-ups, so that a slow minute of the machine affects all of them. Reverse the
    // order each time, so that no set-up always runs after the same other one.
    let turns = 2 * (common.time().as_millis() / TURN.as_millis()).div_ceil(2);
    eprintln!("at saturation, in {turns} turns");
    for _ in 0..turns {
        measured.reverse();
        for (name, one) in &mut measured {
            one.saturate(TURN).with_context(|| name.clone())?;
        }
    }
    let ratios = ratios(&measured);
    let mut rows = Vec::new();
    for (name, one) in measured {
        eprintln!("at a third: {name}");
        let cost = one.finish(common.time()).with_context(|| name.clone())?;
        rows.push((name, cost));
    }
    print(&rows);
    for (name, [low, middle, high]) in ratios {
        println!(
            "{name}: {middle:.3} times the CPU of the other build (half of {turns} turns: {low:.3} to {high:.3})"
        );
    }
    Ok(())
}

/// The CPU cost of each set-up relative to its other build: the quartiles over pairs of neighbouring turns.
/// With a copy of the same binary as `--other`, half of the turns gave 0.94 to 1.07.
fn ratios(measured: &[(String, Measured<'_>)]) -> Vec<(String, [f64; 3])> {
    let pairs = measured.windows(2).filter_map(|pair| match pair {
        [(other, theirs), (name, ours)] if *other == format!("{name}, other build") => {
            let each = ours.turns.iter().zip(&theirs.turns);
            let mut ratios: Vec<f64> = each.map(|(ours, theirs)| ours / theirs).collect();
            ratios.sort_by(f64::total_cmp);
            let at = |share: f64| ratios.get((share * ratios.len() as f64) as usize).copied();
            Some((name.clone(), [at(0.25)?, at(0.5)?, at(0.75)?]))
        }
        _ => None,
    });
    pairs.collect()
}

/// Warms up, measures at saturation, then at a third of that rate.
pub fn measure(
    subject: &Subject,
    upstream: &Upstream,
    encoding: Encoding,
    common: &Common,
    users: u64,
) -> anyhow::Result<Cost> {
    let mut one = Measured::begin(subject, upstream, encoding, common, users)?;
    one.saturate(common.time())?;
    one.finish(common.time())
}

/// A measurement in progress.
struct Measured<'a> {
    subject: &'a Subject,
    upstream: &'a Upstream,
    load: Load,
    at_rest: u64,
    under_load: u64,
    used: Duration,
    redis_used: Duration,
    /// CPU microseconds per request, for each turn.
    turns: Vec<f64>,
    paid: u64,
    elapsed: Duration,
    syncs: f64,
}

impl<'a> Measured<'a> {
    /// Reads the memory at rest, then warms up.
    fn begin(
        subject: &'a Subject,
        upstream: &'a Upstream,
        encoding: Encoding,
        common: &Common,
        users: u64,
    ) -> anyhow::Result<Self> {
        let load = Load {
            address: subject.address,
            connections: common.connections,
            encoding,
            path: subject.path,
            users,
        };
        let mut one = Self {
            subject,
            upstream,
            load,
            at_rest: 0,
            under_load: 0,
            used: Duration::ZERO,
            redis_used: Duration::ZERO,
            turns: Vec::new(),
            paid: 0,
            elapsed: Duration::ZERO,
            syncs: 0.0,
        };
        one.at_rest = one.memory()?;
        one.ask("warming up", Rate::Saturation, Duration::from_secs(2))?;
        Ok(one)
    }

    fn saturate(&mut self, time: Duration) -> anyhow::Result<()> {
        let (syncs, cpu, redis) = (syncs(self.subject), self.cpu()?, self.redis_cpu()?);
        let saturated = self.ask("at saturation", Rate::Saturation, time)?;
        let used = self.cpu()?.saturating_sub(cpu);
        self.used += used;
        self.redis_used += self.redis_cpu()?.saturating_sub(redis);
        self.turns.push(used.as_secs_f64() * 1e6 / saturated.paid as f64);
        self.paid += saturated.paid;
        self.elapsed += saturated.elapsed;
        self.syncs += syncs_since(self.subject, syncs);
        self.under_load = std::cmp::max(self.under_load, self.memory()?);
        Ok(())
    }

    /// Measures at a third of the saturated rate, and computes the cost.
    fn finish(self, time: Duration) -> anyhow::Result<Cost> {
        let per_second = self.paid as f64 / self.elapsed.as_secs_f64();
        let third = self.ask("at a third", Rate::PerSecond(per_second / 3.0), time)?;
        pause(Duration::from_secs(2));
        Ok(Cost {
            cpu_micros: self.used.as_secs_f64() * 1e6 / self.paid as f64,
            redis_micros: self.redis_used.as_secs_f64() * 1e6 / self.paid as f64,
            per_second,
            latency: [0.5, 0.99, 0.999].map(|share| third.latencies.value_at_quantile(share) as f64),
            memory: [self.at_rest, self.under_load, self.memory()?],
            payouts_per_sync: (self.syncs > 0.0).then(|| self.paid as f64 / self.syncs),
        })
    }

    /// Runs the load, and compares its count with the upstream's.
    ///
    /// # Errors
    /// If a request failed, or the upstream did not pay exactly the requests that got success.
    fn ask(&self, what: &str, rate: Rate, time: Duration) -> anyhow::Result<Tally> {
        let before = self.upstream.paid();
        let tally = self.load.run(rate, Until::After(time))?.whole(what)?;
        let (told, paid) = (tally.paid, self.upstream.paid() - before);
        anyhow::ensure!(
            told == paid,
            "{what}: {told} payouts were told as paid, {paid} were"
        );
        Ok(tally)
    }

    fn memory(&self) -> anyhow::Result<u64> {
        let process = self.subject.process.as_ref();
        process.map_or(Ok(0), |process| Ok(process.memory()?.0))
    }

    fn cpu(&self) -> anyhow::Result<Duration> {
        let process = self.subject.process.as_ref();
        process.map_or(Ok(Duration::ZERO), |process| process.cpu())
    }

    fn redis_cpu(&self) -> anyhow::Result<Duration> {
        let redis = self.subject.redis.as_ref();
        redis.map_or(Ok(Duration::ZERO), |redis| redis.process.cpu())
    }
}

/// How often the embedded ledger has synced so far.
fn syncs(subject: &Subject) -> Option<f64> {
    let metrics = get(subject.admin?, "/metrics")?;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("payout_ledger_syncs_total"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn syncs_since(subject: &Subject, before: Option<f64>) -> f64 {
    let since = syncs(subject).zip(before).map(|(now, before)| now - before);
    since.unwrap_or_default()
}

fn print(rows: &[(String, Cost)]) {
    let of = |name: &str| rows.iter().find(|(row, _)| row == name).map(|(_, cost)| cost);
    let floor = of("hyper pass-through").map_or(f64::NAN, |cost| cost.cpu_micros);
    let nginx = of("nginx+lua, ledger").map_or(f64::NAN, |cost| cost.cpu_micros);
    let direct = of("direct").map_or([f64::NAN; 3], |cost| cost.latency);
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    println!(
        "| set-up | × floor | × nginx | CPU µs | Redis µs | per s | added µs p50 | p99 | p99.9 | MiB rest | load | after | per sync |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
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
            "| {name} | {:.2} | {:.2} | {:.1} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {per_sync} |",
            cost.cpu_micros / floor,
            cost.cpu_micros / nginx,
            cost.cpu_micros,
            cost.redis_micros,
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
