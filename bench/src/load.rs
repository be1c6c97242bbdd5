//! The load generator: plays the platform on keep-alive connections. It uses each order number once, and counts
//! every response other than success as a failure. A measurement with a failure is void.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::wire::{Reader, find};

/// The next order number. Unique within this process.
static NEXT: AtomicU64 = AtomicU64::new(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Xml,
}

/// The path that pays.
pub const PAYOUT: &str = "/pay/sendApiRedPack";

/// What to request, and how.
#[derive(Clone, Copy)]
pub struct Load {
    pub address: SocketAddr,
    pub connections: usize,
    pub encoding: Encoding,
    /// The payout path, or another path, which the sidecar proxies.
    pub path: &'static str,
    /// The number of users. Consecutive payouts go to consecutive users.
    pub users: u64,
}

/// When a connection sends its next request.
#[derive(Clone, Copy)]
pub enum Rate {
    /// As soon as the response to the previous one has arrived.
    Saturation,
    /// At this rate per second over all connections. Requests that fall due while their connection waits go out
    /// late, and their latency counts from the due time.
    PerSecond(f64),
}

/// When the load ends.
#[derive(Clone, Copy)]
pub enum Until {
    After(Duration),
    /// After this number of requests.
    Count(u64),
}

pub struct Tally {
    pub paid: u64,
    pub failed: u64,
    pub first_failure: Option<String>,
    pub elapsed: Duration,
    /// In microseconds.
    pub latencies: Histogram<u64>,
}

impl Tally {
    /// Returns the tally if every request succeeded.
    ///
    /// # Errors
    /// If a request failed, or nothing was paid: the measurement is void.
    pub fn whole(self, what: &str) -> anyhow::Result<Self> {
        match &self.first_failure {
            Some(failure) => anyhow::bail!(
                "{what}: {} of {} requests failed, the first one: {failure}",
                self.failed,
                self.failed + self.paid
            ),
            None if self.paid == 0 => anyhow::bail!("{what}: nothing was paid"),
            None => Ok(self),
        }
    }
}

impl Load {
    pub fn run(&self, rate: Rate, until: Until) -> anyhow::Result<Tally> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.all(rate, until))
    }

    async fn all(&self, rate: Rate, until: Until) -> anyhow::Result<Tally> {
        let mut streams = Vec::new();
        for _ in 0..self.connections {
            let stream = TcpStream::connect(self.address)
                .await
                .context("the subject does not listen")?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let begun = Instant::now();
        let tally = Arc::new(Mutex::new(Tally {
            paid: 0,
            failed: 0,
            first_failure: None,
            elapsed: Duration::ZERO,
            latencies: Histogram::new(3)?,
        }));
        let left = Arc::new(AtomicU64::new(match until {
            Until::After(_) => u64::MAX,
            Until::Count(count) => count,
        }));
        let end = match until {
            Until::After(time) => Some(begun + time),
            Until::Count(_) => None,
        };
        let tasks: Vec<_> = streams
            .into_iter()
            .enumerate()
            .map(|(at, stream)| {
                let connection = Connection {
                    load: *self,
                    at,
                    begun,
                    end,
                    left: Arc::clone(&left),
                    tally: Arc::clone(&tally),
                };
                tokio::spawn(connection.ask(stream, rate))
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        let all = Arc::into_inner(tally).context("a connection has not ended")?;
        let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.elapsed = begun.elapsed();
        Ok(all)
    }
}

struct Connection {
    load: Load,
    at: usize,
    begun: Instant,
    end: Option<Instant>,
    left: Arc<AtomicU64>,
    tally: Arc<Mutex<Tally>>,
}

impl Connection {
    async fn ask(self, stream: TcpStream, rate: Rate) -> anyhow::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut answers = Reader::new(read);
        let mut turn: u64 = 0;
        loop {
            // The latency counts from the due time, even if the connection was still busy then.
            let since = match rate {
                Rate::Saturation => Instant::now(),
                Rate::PerSecond(rate) => {
                    let place = turn as f64 * self.load.connections as f64 + self.at as f64;
                    let due = self.begun + Duration::from_secs_f64(place / rate);
                    if Instant::now() < due {
                        tokio::time::sleep_until(due).await;
                        Instant::now()
                    } else {
                        due
                    }
                }
            };
            turn += 1;
            if self.end.is_some_and(|end| since >= end) || !self.takes_one() {
                return Ok(());
            }
            let request = self.load.request();
            let answered = async {
                write.write_all(&request).await?;
                answers.next().await
            };
            let answered = answered.await;
            let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            match answered {
                Ok(Some((head, body))) if head.starts_with(b"HTTP/1.1 200") && is_success(body) => {
                    tally.paid += 1;
                    let micros = since.elapsed().as_micros();
                    tally.latencies.record(u64::try_from(micros)?)?;
                }
                other => {
                    tally.failed += 1;
                    let text = match other {
                        Ok(Some((head, body))) => {
                            format!(
                                "{}{}",
                                String::from_utf8_lossy(head),
                                String::from_utf8_lossy(body)
                            )
                        }
                        Ok(None) => "the connection was closed".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    let broken = text.contains("connection");
                    tally.first_failure.get_or_insert(text);
                    if broken {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn takes_one(&self) -> bool {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        taken.is_ok()
    }
}

impl Load {
    /// A payout request in the platform's form, with the next order number.
    fn request(&self) -> Vec<u8> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let user = number % self.users;
        let (media, body) = match self.encoding {
            Encoding::Json => (
                "application/json",
                format!(
                    "{{\"wxAppId\":\"wx8888888888888888\",\"mchId\":\"1900000109\",\"mchBillno\":\"B{number:012}\",\
                     \"openid\":\"u{user}\",\"amount\":100,\"clientIp\":\"10.0.0.1\",\"actName\":\"新年抽奖\",\
                     \"remark\":\"恭喜中奖\",\"tradeRecordId\":{number}}}"
                ),
            ),
            Encoding::Xml => (
                "application/xml",
                format!(
                    "<xml><wxAppId><![CDATA[wx8888888888888888]]></wxAppId><mchId><![CDATA[1900000109]]></mchId>\
                     <mchBillno><![CDATA[B{number:012}]]></mchBillno><openid><![CDATA[u{user}]]></openid>\
                     <amount>100</amount><clientIp><![CDATA[10.0.0.1]]></clientIp><actName><![CDATA[新年抽奖]]></actName>\
                     <remark><![CDATA[恭喜中奖]]></remark><tradeRecordId>{number}</tradeRecordId></xml>"
                ),
            ),
        };
        format!(
            "POST {} HTTP/1.1\r\nHost: sidecar\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\r\n{body}",
            self.path,
            body.len()
        )
        .into_bytes()
    }
}

fn is_success(body: &[u8]) -> bool {
    find(body, b"resultCode").is_some() && find(body, b"SUCCESS").is_some() && find(body, b"FAIL").is_none()
}
