//! The stored form of an order: two JSON texts, each with the format number, checked on reading.
//!
//! The first claim writes the pinned part, and nothing writes it again; each change writes the changing part. Both
//! begin with `{"format":3,"order":{"claim":N,`, where `N` is the claim's random number; the changing part goes on
//! with `"version":"…",`. A store reads and replaces a part only beside the other part of the same claim.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};

use crate::payouts::ports::StoreError;
use payout_domain::ids::OrderKey;
use payout_domain::order::{Changing, Order, Pinned};

/// The format to write. A reader refuses every other one: a record that it does not understand decides nothing.
const FORMAT: u8 = 3;

/// Capacity for a part without a long history, so that writing it needs no reallocation.
const USUAL_BYTES: usize = 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part<T> {
    #[serde(deserialize_with = "known")]
    format: u8,
    order: T,
}

fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    match u8::deserialize(deserializer)? {
        FORMAT => Ok(FORMAT),
        other => Err(D::Error::custom(format_args!("unknown format {other}"))),
    }
}

/// A record's two parts: what its claim pins, and what changes.
///
/// # Errors
/// When the order cannot be serialized, then [`StoreError`]; nothing was written.
pub fn encode(order: &Order) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
    Ok((written(&order.key, order.pinned())?, written(&order.key, order)?))
}

/// The changing part, for a record that its next version replaces.
///
/// # Errors
/// When the change is of something that is pinned, or cannot be serialized, then [`StoreError`]; nothing was written.
pub fn encode_change(previous: &Order, next: &Order) -> Result<Vec<u8>, StoreError> {
    let key = &previous.key;
    if previous.pinned() != next.pinned() {
        return Err(refused(format!(
            "a change of {key} would change what its claim has pinned: it was not written. This is a mistake in this program"
        )));
    }
    written(key, next)
}

/// Whether a record is exactly this version of its order: both parts begin as they would be written for it. The
/// scripts in Redis compare the same.
pub(super) fn is_version((pinned, changing): (&[u8], &[u8]), order: &Order) -> bool {
    let (claim, version) = begins(order);
    pinned.starts_with(claim.as_bytes()) && changing.starts_with(version.as_bytes())
}

/// The beginning of both parts, and the longer beginning of the changing part, which includes the version.
pub(super) fn begins(order: &Order) -> (String, String) {
    let claim = format!("{{\"format\":{FORMAT},\"order\":{{\"claim\":{},", order.claim);
    let version = [&claim, "\"version\":\"", &order.version.text(), "\","].concat();
    (claim, version)
}

fn written(key: &OrderKey, order: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    let mut text = Vec::with_capacity(USUAL_BYTES);
    let format = FORMAT;
    serde_json::to_writer(&mut text, &Part { format, order })
        .map_err(|error| refused(format!("the record of {key} cannot be written: {error}")))?;
    Ok(text)
}

/// The order of a record, from its pinned and its changing part. It must be the order that was asked for.
///
/// # Errors
/// When a part is damaged, has another format, or belongs to another claim or order, then [`StoreError`]. Both parts
/// stay as they are.
pub fn decode((pinned, changing): (&[u8], &[u8]), key: &OrderKey) -> Result<Order, StoreError> {
    let pinned: Pinned = part(pinned, key, "pinned")?;
    let changing: Changing = part(changing, key, "changing")?;
    if pinned.key != *key {
        return Err(damaged(key, &format!("says that it is {}'s", pinned.key)));
    }
    Order::from_parts(pinned, changing).ok_or_else(|| damaged(key, "has parts of two claims"))
}

fn part<T: DeserializeOwned>(text: &[u8], key: &OrderKey, which: &str) -> Result<T, StoreError> {
    let read: Result<Part<T>, _> = serde_json::from_slice(text);
    let read = read.map_err(|error| damaged(key, &format!("cannot be read (its {which} part: {error})")))?;
    Ok(read.order)
}

/// The error for a record that contradicts itself.
pub(super) fn damaged(key: &OrderKey, why: &str) -> StoreError {
    refused(format!(
        "the record of {key} {why}: it was left as it is, and decides nothing until a person has looked at it"
    ))
}

fn refused(text: String) -> StoreError {
    StoreError { unsure: false, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::samples::{self, order, settled};
    use payout_domain::fields::Fields;
    use payout_domain::ids::{Fen, UserId};
    use payout_domain::order::fixtures::pinned_mut;
    use payout_domain::order::{Change, State};

    /// Stored records of every shape, two lines each. They must stay readable for ever: see the retention of 400
    /// days.
    const OLD: &str = include_str!("../../tests/data/records-3.jsonl");

    fn written(order: &Order) -> [String; 2] {
        let (pinned, changing) = encode(order).unwrap();
        [pinned, changing].map(|text| String::from_utf8(text).unwrap())
    }

    fn read([pinned, changing]: [&str; 2], key: &OrderKey) -> Result<Order, StoreError> {
        decode((pinned.as_bytes(), changing.as_bytes()), key)
    }

    fn read_again(order: &Order) -> Order {
        let written = written(order);
        read(written.each_ref().map(String::as_str), &order.key)
            .unwrap_or_else(|error| panic!("{error}: {written:?}"))
    }

    #[test]
    fn every_shape_is_written_and_read_as_it_always_was() {
        let shapes = samples::every_shape();
        let old: Vec<&str> = OLD.lines().collect();
        let (old, rest) = old.as_chunks::<2>();
        assert_eq!((old.len(), rest.len()), (shapes.len(), 0));
        for (order, old) in shapes.iter().zip(old) {
            assert_eq!(
                written(order),
                *old,
                "what is written has changed: raise the format number"
            );
            assert_eq!(read(*old, &order.key).unwrap(), *order);
        }
    }

    #[test]
    fn every_state_survives_being_written_and_read() {
        let bill = samples::bill("A1", 100);
        assert!(bill.due_at().is_some(), "an accepted bill is followed");
        for order in [order("A1", 100), settled(&order("A1", 100)), bill] {
            assert_eq!(read_again(&order), order);
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_its_texts_and_numbers_are_a_record_is_read_as_it_was_written(
            text in ".*", number in proptest::num::i64::ANY, count in proptest::num::u32::ANY, shape in 0usize..8,
        ) {
            let mut order = samples::every_shape().remove(shape);
            let pinned = pinned_mut(&mut order);
            pinned.claim = number.unsigned_abs();
            pinned.trade_record_id.0 = number;
            pinned.created_at.wall.0 = number;
            pinned.user_id = UserId::parse(&text).unwrap_or(pinned.user_id.clone());
            let mut parameters = Fields::clone(&pinned.parameters);
            parameters.set("x", text.clone());
            pinned.parameters = parameters.into();
            order.doubt_since.ledger.0 = number;
            order.attempts = count;
            order.upstream_status = Some(text.clone());
            order.history.first_mut().into_iter().for_each(|change| change.why.clone_from(&text));
            match &mut order.state {
                State::Unknown(unknown) => unknown.why = text,
                State::Succeeded(succeeded) => succeeded.fields.set("x", text),
                State::Refused(refused) => refused.refusal.text = text,
                State::Pending(pending) => pending.lease_ms = number.unsigned_abs(),
            }
            proptest::prop_assert_eq!(read_again(&order), order);
        }
    }

    /// A stored record. It must stay readable for ever: see the retention of 400 days.
    #[test]
    fn an_old_record_is_still_read() {
        let lines: Vec<&str> = include_str!("../../tests/data/record-3.jsonl").lines().collect();
        let [pinned, changing] = lines.as_slice() else {
            panic!("{lines:?}")
        };
        let order = read([pinned, changing], &order("A1", 100).key).unwrap();
        assert_eq!(order, settled(&samples::order("A1", 100)));
        assert_eq!(
            written(&order),
            [*pinned, *changing],
            "what is written has changed: raise the format number"
        );
    }

    #[test]
    fn what_is_damaged_is_refused_and_not_guessed() {
        let order = order("A1", 100);
        let whole = written(&order);
        let [pinned, changing] = whole.each_ref().map(String::as_str);
        let replaced = |which: &str, from: &str, to: &str| {
            assert!(which.contains(from), "{from} is not in {which}");
            which.replace(from, to)
        };
        let in_pinned = |from, to, says| ([replaced(pinned, from, to), changing.to_owned()], says);
        let in_changing = |from, to, says| ([pinned.to_owned(), replaced(changing, from, to)], says);
        let half = |text: &str| text.get(..text.len() / 2).unwrap().to_owned();
        for (damaged, says) in [
            in_pinned("\"format\":3", "\"format\":2", "unknown format 2"),
            in_changing("\"format\":3", "\"format\":2", "unknown format 2"),
            in_pinned("\"amount\":100", "\"amount\":0", "cannot be read"),
            in_pinned("A1", "A2", "says that it is"),
            in_pinned("\"claim\":1,", "\"claim\":2,", "parts of two claims"),
            in_changing("\"claim\":1,", "\"claim\":2,", "parts of two claims"),
            in_changing("\"attempts\":1", "\"attempts\":1,\"new\":1", "cannot be read"),
            in_pinned("\"encoding\"", "\"new\":1,\"encoding\"", "cannot be read"),
            ([half(pinned), changing.to_owned()], "cannot be read"),
            ([pinned.to_owned(), half(changing)], "cannot be read"),
            ([String::new(), changing.to_owned()], "cannot be read"),
            ([pinned.to_owned(), String::new()], "cannot be read"),
            ([changing.to_owned(), pinned.to_owned()], "cannot be read"),
        ] {
            let error = read(damaged.each_ref().map(String::as_str), &order.key).unwrap_err();
            assert!(
                error.text.contains(says) && error.text.contains(&order.key.to_string()),
                "{error}"
            );
        }
        let mut changed = order.clone();
        changed.history.push(Change {
            why: "x".into(),
            ..changed.history.first().unwrap().clone()
        });
        assert_ne!(written(&changed)[1], changing);
    }

    /// What the scripts in Redis compare.
    #[test]
    fn both_parts_begin_with_the_format_and_the_claim_and_one_goes_on_with_the_version() {
        for order in samples::every_shape() {
            let begin = format!("{{\"format\":3,\"order\":{{\"claim\":{},", order.claim);
            let [pinned, changing] = written(&order);
            assert!(pinned.starts_with(&begin), "{pinned}");
            let version = format!("{begin}\"version\":\"{}\",", order.version);
            assert!(changing.starts_with(&version), "{changing}");

            let is_version = |order: &Order| is_version((pinned.as_bytes(), changing.as_bytes()), order);
            assert!(is_version(&order));
            let mut others = [order.clone(), order.clone(), order];
            others[0].version.number ^= 1;
            others[1].version.nonce ^= 1;
            pinned_mut(&mut others[2]).claim ^= 1;
            assert_eq!(others.each_ref().map(is_version), [false; 3]);
        }
    }

    #[test]
    fn a_change_neither_holds_nor_changes_what_is_pinned() {
        let first = order("A1", 100);
        let next = settled(&first);
        let [pinned, changing] = written(&next);
        assert_eq!(pinned, written(&first)[0]);
        for parameter in ["备注", "oX12", "user-1"] {
            assert!(
                pinned.contains(parameter) && !changing.contains(parameter),
                "{changing}"
            );
        }
        assert_eq!(encode_change(&first, &next).unwrap(), changing.as_bytes());
        let mut other = next.clone();
        pinned_mut(&mut other).amount = Fen::new(101).unwrap();
        let error = encode_change(&first, &other).unwrap_err();
        assert!(!error.unsure && error.text.contains("was not written"), "{error}");
    }
}
