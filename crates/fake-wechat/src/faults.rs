//! Fault injection: each rule of a specification makes certain calls fail in one way.
//!
//! ```text
//! SPEC   = RULE { ";" RULE }
//! RULE   = CALL [ "/" ORDER_PREFIX ] "=" ACTION [ "*" TIMES ]
//! CALL   = sendredpack | sendminiprogramhb | transfers | gethbinfo | gettransferinfo
//!        | transfer-bills | query-bill | cancel-bill | certificates    (v3)
//!        | send | status        (the handler)
//!        | pay | query | any    (all calls that pay, that query, all)
//! ```
//!
//! | action | what the fake does |
//! |---|---|
//! | `delay:500ms` | waits, then goes on to the next rule that matches |
//! | `reset-before`, `reset-after` | cuts the connection by RST, before or after paying |
//! | `hang-before`, `hang-after` | never responds |
//! | `status:503`, `status-after:500` | responds HTML with this status |
//! | `error:CODE`, `error-after:CODE` | responds this error code |
//! | `fail-outer:TEXT` | responds `return_code=FAIL` without an error code |
//! | `garbage`, `garbage-after` | responds 200 with a body that does not parse |
//! | `empty`, `empty-after` | responds 200 with an empty body |
//! | `truncate-after` | pays, and breaks off in the middle of the response |
//! | `late:3s` | cuts the connection now, and pays that much later, like a request that WeChat still processes |
//! | `redirect` | responds 307 with the location of another path of the fake |
//! | `spoilt:HOW` | v3: pays, and falsifies the response's signature: `signature serial stale absent probe body` |
//! | `forged:CODE` | v3: responds this error code with a wrong signature, and does not pay |
//! | `wrong-amount` | pays (or responds to the query), and states another amount |
//!
//! A call takes the first rule that matches and has times left. `…-after` actions pay first. A v3 response to a payment
//! has no amount: there `wrong-amount` states another order number. The v2 response to `transfers` has none either, and
//! stays right.

use std::str::FromStr;
use std::time::Duration;

use http::StatusCode;

use super::wechat_v3::Spoilt;

/// The rules of a specification.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    call: String,
    prefix: String,
    fault: Injected,
    times: Option<u32>,
}

/// The fault of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Injected {
    pub(super) action: Action,
    /// Whether the fake pays before the fault (`…-after`).
    pub(super) pays_first: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Delay(Duration),
    Reset,
    Hang,
    Status(StatusCode),
    Error(String),
    FailOuter(String),
    Garbage,
    Empty,
    Truncate,
    Late(Duration),
    Redirect,
    Spoilt(Spoilt),
    Forged(String),
    WrongAmount,
}

/// The calls that pay.
pub(super) const PAYING: [&str; 5] = [
    "sendredpack",
    "sendminiprogramhb",
    "transfers",
    "transfer-bills",
    "send",
];
const ASKING: [&str; 4] = ["gethbinfo", "gettransferinfo", "query-bill", "status"];
/// Calls that neither pay nor query an order.
const OTHERS: [&str; 2] = ["cancel-bill", "certificates"];

impl Faults {
    /// Returns the delay of this call and its fault, if any. Counts down the rules' remaining times.
    pub(super) fn take(&mut self, call: &str, order_no: &str) -> (Duration, Option<Injected>) {
        let mut delay = Duration::ZERO;
        for rule in &mut self.rules {
            if rule.times == Some(0) || !rule.matches(call, order_no) {
                continue;
            }
            rule.times = rule.times.map(|times| times.saturating_sub(1));
            if let Action::Delay(more) = &rule.fault.action {
                delay = delay.saturating_add(*more);
            } else {
                return (delay, Some(rule.fault.clone()));
            }
        }
        (delay, None)
    }
}

impl Rule {
    fn matches(&self, call: &str, order_no: &str) -> bool {
        let calls = match self.call.as_str() {
            "any" => true,
            "pay" => PAYING.contains(&call),
            "query" => ASKING.contains(&call),
            one => one == call,
        };
        calls && order_no.starts_with(&self.prefix)
    }
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(spec: &str) -> Result<Self, String> {
        let rules = spec
            .split(';')
            .map(str::trim)
            .filter(|rule| !rule.is_empty())
            .map(rule)
            .collect::<Result<_, _>>()?;
        Ok(Self { rules })
    }
}

fn rule(text: &str) -> Result<Rule, String> {
    let (target, what) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?}: write CALL=ACTION"))?;
    let (call, prefix) = target.split_once('/').unwrap_or((target, ""));
    let is_call = [&PAYING[..], &ASKING, &OTHERS]
        .iter()
        .any(|calls| calls.contains(&call));
    if !matches!(call, "any" | "pay" | "query") && !is_call {
        return Err(format!("{call:?} is no call"));
    }
    let (what, times) = match what.rsplit_once('*') {
        Some((what, times)) => {
            let times = times.parse().map_err(|error| format!("{times:?}: {error}"))?;
            (what, Some(times))
        }
        None => (what, None),
    };
    let (name, argument) = what.split_once(':').unwrap_or((what, ""));
    let wrong = |error: &dyn std::fmt::Display| format!("{text:?}: {error}");
    let span = || humantime::parse_duration(argument).map_err(|error| wrong(&error));
    let code = || match argument {
        "" => Err(wrong(&"a code is missing")),
        code => Ok(code.to_owned()),
    };
    let pays_first = name.ends_with("-after");
    let action = match name {
        "delay" => Action::Delay(span()?),
        "reset-before" | "reset-after" => Action::Reset,
        "hang-before" | "hang-after" => Action::Hang,
        "status" | "status-after" => Action::Status(argument.parse().map_err(|error| wrong(&error))?),
        "error" | "error-after" => Action::Error(code()?),
        "fail-outer" => Action::FailOuter(argument.to_owned()),
        "garbage" | "garbage-after" => Action::Garbage,
        "empty" | "empty-after" => Action::Empty,
        "truncate-after" => Action::Truncate,
        "late" => Action::Late(span()?),
        "redirect" => Action::Redirect,
        "spoilt" => Action::Spoilt(Spoilt::of(argument).map_err(|error| wrong(&error))?),
        "forged" => Action::Forged(code()?),
        "wrong-amount" => Action::WrongAmount,
        _ => return Err(format!("{name:?} is no action")),
    };
    Ok(Rule {
        call: call.to_owned(),
        prefix: prefix.to_owned(),
        fault: Injected { action, pays_first },
        times,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_taken_in_order_and_counted() {
        let mut faults: Faults = "pay/A=delay:1s*1;sendredpack/A=error-after:SYSTEMERROR*2;query=hang-before"
            .parse()
            .unwrap();
        let fault = |action, pays_first| Some(Injected { action, pays_first });
        let error = fault(Action::Error("SYSTEMERROR".into()), true);
        assert_eq!(
            faults.take("sendredpack", "A1"),
            (Duration::from_secs(1), error.clone())
        );
        assert_eq!(faults.take("sendredpack", "B1"), (Duration::ZERO, None));
        assert_eq!(faults.take("sendredpack", "A2"), (Duration::ZERO, error));
        assert_eq!(faults.take("sendredpack", "A3"), (Duration::ZERO, None));
        assert_eq!(
            faults.take("gethbinfo", "A3"),
            (Duration::ZERO, fault(Action::Hang, false))
        );
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for spec in [
            "pay",
            "nosuch=garbage",
            "pay=nosuch",
            "pay=delay:x",
            "pay=status:x",
            "pay=error:",
            "pay=garbage*x",
            "pay=spoilt:milk",
            "pay=forged:",
        ] {
            assert!(spec.parse::<Faults>().is_err(), "{spec}");
        }
        assert!("".parse::<Faults>().is_ok());
    }
}
