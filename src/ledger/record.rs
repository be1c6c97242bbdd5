//! The stored form of an order: JSON with a format number, checked when it is written and when it is read.

use serde::{Deserialize, Serialize};

use crate::payout::ports::StoreError;
use crate::rules::order::Order;
use crate::rules::term::OrderKey;

/// The format that is written. A reader refuses any other one: a record that is not understood decides nothing.
const FORMAT: u8 = 1;

/// Room for a record without a long history, so that it is written without being moved.
const USUAL_BYTES: usize = 2048;

#[derive(Serialize)]
struct Written<'a> {
    format: u8,
    order: &'a Order,
}

#[derive(Deserialize)]
struct Read {
    order: Order,
}

#[derive(Deserialize)]
struct Format {
    format: u8,
}

/// The record's text.
///
/// # Errors
/// When the order cannot be written as JSON, which no order can bring about.
pub fn encode(order: &Order) -> Result<String, StoreError> {
    let mut text = Vec::with_capacity(USUAL_BYTES);
    let written = Written {
        format: FORMAT,
        order,
    };
    serde_json::to_writer(&mut text, &written)
        .map_err(|error| error.to_string())
        .and_then(|()| String::from_utf8(text).map_err(|error| error.to_string()))
        .map_err(|error| StoreError {
            unsure: false,
            text: format!("the record of {} cannot be written: {error}", order.key),
        })
}

/// The order of a record's text, which must be the order that was asked for.
///
/// # Errors
/// When the record is damaged, of another format or another order's, then [`StoreError`]; it is left as it is.
pub fn decode(text: &[u8], key: &OrderKey) -> Result<Order, StoreError> {
    let damaged = |why: String| StoreError {
        unsure: false,
        text: format!(
            "the record of {key} {why}: it was left as it is, and decides nothing until a person has looked at it"
        ),
    };
    match serde_json::from_slice::<Format>(text) {
        Ok(Format { format: FORMAT }) => {}
        Ok(Format { format }) => return Err(damaged(format!("has the unknown format {format}"))),
        Err(error) => return Err(damaged(format!("cannot be read ({error})"))),
    }
    let read: Read =
        serde_json::from_slice(text).map_err(|error| damaged(format!("cannot be read ({error})")))?;
    if read.order.key != *key {
        return Err(damaged(format!("says that it is {}'s", read.order.key)));
    }
    Ok(read.order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::samples::{self, order, settled};
    use crate::rules::order::Change;

    #[test]
    fn every_state_survives_being_written_and_read() {
        let bill = samples::bill("A1", 100);
        assert!(bill.due_at().is_some(), "an accepted bill is followed");
        for order in [order("A1", 100), settled(&order("A1", 100)), bill] {
            let text = encode(&order).unwrap();
            assert_eq!(decode(text.as_bytes(), &order.key).unwrap(), order, "{text}");
        }
    }

    /// A record as version 0.1.0 wrote it. It must be readable for ever: see the retention of 400 days.
    #[test]
    fn an_old_record_is_still_read() {
        let text = include_str!("../../tests/data/record-1.json").trim_end();
        let key = order("A1", 100).key;
        let order = decode(text.as_bytes(), &key).unwrap();
        assert_eq!(order, settled(&samples::order("A1", 100)));
        assert_eq!(
            encode(&order).unwrap(),
            text,
            "what is written has changed: raise the format number"
        );
    }

    #[test]
    fn what_is_damaged_is_refused_and_not_guessed() {
        let order = order("A1", 100);
        let text = encode(&order).unwrap();
        for (damaged, says) in [
            (text.replace("\"format\":1", "\"format\":2"), "unknown format 2"),
            (text.replace("\"amount\":100", "\"amount\":0"), "cannot be read"),
            (text.replace("A1", "A2"), "says that it is"),
            (
                text.replace("\"attempts\":1", "\"attempts\":1,\"new\":1"),
                "cannot be read",
            ),
            (text.get(..text.len() / 2).unwrap().to_owned(), "cannot be read"),
            (String::new(), "cannot be read"),
        ] {
            let error = decode(damaged.as_bytes(), &order.key).unwrap_err();
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
        assert_ne!(encode(&changed).unwrap(), text);
    }
}
