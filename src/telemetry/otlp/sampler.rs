//! Which traces are exported. Pure. Documents: OpenTelemetry's trace SDK specification, "Sampling", and its environment
//! variables `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`.

/// How many ids there are, as far as a ratio looks at them: those of the lower eight bytes.
const IDS: u128 = 1 << 64;
/// The decimal places that a ratio is read to.
const SCALE: u128 = 1_000_000_000_000_000_000;

/// Decides which traces are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    rule: Rule,
    /// Whether a caller's decision is followed, and the rule is only for traces that begin here.
    follows_parent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Always,
    Never,
    /// Traces whose id, in its lower eight bytes, is below this.
    Below(u128),
}

impl Default for Sampler {
    /// OpenTelemetry's: the caller's decision, and every trace that begins here.
    fn default() -> Self {
        Self {
            rule: Rule::Always,
            follows_parent: true,
        }
    }
}

impl Sampler {
    /// Reads the names that OpenTelemetry gives to samplers, and the ratio that belongs to some.
    ///
    /// # Errors
    /// When it is no known name or no ratio, then what would be right.
    pub fn read(name: &str, ratio: Option<&str>) -> Result<Self, String> {
        let (follows_parent, bare) = match name.strip_prefix("parentbased_") {
            Some(bare) => (true, bare),
            None => (false, name),
        };
        let rule = match bare {
            "always_on" => Rule::Always,
            "always_off" => Rule::Never,
            "traceidratio" => Rule::Below(below(ratio.unwrap_or("1"))?),
            _ => {
                return Err(
                    "must be always_on, always_off, traceidratio, or one of them after parentbased_"
                        .to_owned(),
                );
            }
        };
        Ok(Self { rule, follows_parent })
    }

    /// Whether a trace is exported. `parent` is the caller's decision, where there is one.
    #[must_use]
    pub fn takes(self, parent: Option<bool>, trace: u128) -> bool {
        match (parent, self.rule) {
            (Some(decision), _) if self.follows_parent => decision,
            (_, Rule::Always) => true,
            (_, Rule::Never) => false,
            (_, Rule::Below(least_left_out)) => lower_half(trace) < least_left_out,
        }
    }
}

/// The part of a trace's id that is random by every version of the standard.
fn lower_half(trace: u128) -> u128 {
    trace & u128::from(u64::MAX)
}

/// How many of the ids a ratio takes.
fn below(ratio: &str) -> Result<u128, String> {
    let wrong = || "must be a ratio from 0 to 1, e.g. 0.25".to_owned();
    let read: f64 = ratio.trim().parse().map_err(|_| wrong())?;
    if !(0.0..=1.0).contains(&read) {
        return Err(wrong());
    }
    // In decimals, so that the arithmetic is exact.
    let digits = format!("{read:.18}").replace('.', "");
    let scaled: u128 = digits.parse().map_err(|_| wrong())?;
    let ids = scaled.checked_mul(IDS).and_then(|ids| ids.checked_div(SCALE));
    ids.ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;

    fn sampler(name: &str, ratio: Option<&str>) -> Sampler {
        Sampler::read(name, ratio).unwrap()
    }

    #[test]
    fn each_name_decides_as_the_specification_says() {
        // Name, and the decision for a caller that samples, one that does not, and a trace that begins here.
        for (name, sampled, unsampled, begun) in [
            ("always_on", true, true, true),
            ("always_off", false, false, false),
            ("parentbased_always_on", true, false, true),
            ("parentbased_always_off", true, false, false),
            ("traceidratio", true, true, true),
            ("parentbased_traceidratio", true, false, true),
        ] {
            let sampler = sampler(name, None);
            let decided = [Some(true), Some(false), None].map(|parent| sampler.takes(parent, SOME));
            assert_eq!(decided, [sampled, unsampled, begun], "{name}");
        }
        assert_eq!(Sampler::default(), sampler("parentbased_always_on", None));
    }

    #[test]
    fn a_ratio_looks_at_the_lower_eight_bytes_and_at_nothing_else() {
        let half = 1_u128 << 63;
        for (ratio, least_left_out) in [
            ("0", 0),
            ("0.0", 0),
            ("0.25", 1 << 62),
            ("0.5", half),
            (" 0.5 ", half),
            ("5e-1", half),
            ("1", IDS),
            ("1.0", IDS),
        ] {
            let sampler = sampler("traceidratio", Some(ratio));
            assert_eq!(sampler.rule, Rule::Below(least_left_out), "{ratio}");
            for upper in [0, 1 << 64, u128::MAX << 64] {
                if least_left_out > 0 {
                    assert!(sampler.takes(None, upper | (least_left_out - 1)), "{ratio}");
                }
                if least_left_out < IDS {
                    assert!(!sampler.takes(None, upper | least_left_out), "{ratio}");
                }
            }
        }
    }

    #[test]
    fn a_ratio_takes_about_that_share_of_random_ids() {
        let sampler = sampler("parentbased_traceidratio", Some("0.1"));
        let mut id = SOME;
        let taken = (0..10_000).filter(|_| {
            // Any generator that spreads well does.
            id = id.wrapping_mul(0xda94_2042_e4dd_58b5).wrapping_add(1);
            sampler.takes(None, id >> 64)
        });
        let taken = taken.count();
        assert!((900..1100).contains(&taken), "{taken}");
    }

    #[test]
    fn everything_else_is_refused() {
        for name in ["", "on", "ALWAYS_ON", "parentbased_", "jaeger_remote", "xray"] {
            assert!(Sampler::read(name, None).is_err(), "{name}");
        }
        for ratio in ["", "a", "-0.1", "1.1", "NaN", "inf", "1,5"] {
            assert!(Sampler::read("traceidratio", Some(ratio)).is_err(), "{ratio}");
        }
    }
}
