//! The stored form of an order: JSON with a format number, checked when it is written and when it is read.

use serde::Deserialize;

use crate::payout::ports::StoreError;
use crate::rules::encoding::Encoding;
use crate::rules::json::{Writer, key};
use crate::rules::limits::{Charge, Counter};
use crate::rules::order::{
    Absence, Before, Change, Destination, Following, Order, Pending, Refused, State, Succeeded, Unknown,
};
use crate::rules::outcome::Refusal;
use crate::rules::term::{Moment, OrderKey};
use crate::rules::wechat::Product;

/// The format that is written. A reader refuses any other one: a record that is not understood decides nothing.
const FORMAT: u8 = 2;

/// Room for a record without a long history, so that it is written without being moved.
const USUAL_BYTES: usize = 2048;

#[derive(Deserialize)]
struct Read {
    order: Order,
}

#[derive(Deserialize)]
struct Format {
    format: u8,
}

/// The record's text. Each part is taken apart whole, so that a new field cannot be left out of it.
#[must_use]
pub fn encode(order: &Order) -> String {
    let mut record = Writer::with_capacity(USUAL_BYTES);
    record.object(|record| {
        record.key(key!("format")).number(FORMAT);
        record.key(key!("order"));
        write_order(record, order);
    });
    record.into_text()
}

fn write_order(out: &mut Writer, order: &Order) {
    let Order {
        key: OrderKey { mch_id, order_no },
        version,
        wx_app_id,
        user_id,
        amount,
        openid,
        trade_record_id,
        upstream,
        encoding,
        parameters,
        charges,
        returned,
        created_at,
        attempted_at,
        doubt_since,
        changed_at,
        attempts,
        state,
        upstream_status,
        history,
    } = order;
    out.object(|out| {
        out.key(key!("key")).object(|out| {
            out.key(key!("mchId")).text(mch_id.as_str());
            out.key(key!("orderNo")).text(order_no.as_str());
        });
        out.key(key!("version")).text(&version.text());
        out.key(key!("wxAppId")).text(wx_app_id.as_str());
        out.key(key!("userId")).text(user_id.as_str());
        out.key(key!("amount")).number(amount.get());
        out.key(key!("openid")).text(openid.as_str());
        out.key(key!("tradeRecordId")).number(trade_record_id.0);
        out.key(key!("upstream"));
        match upstream {
            Destination::Wechat(product) => out.object(|out| {
                out.key(key!("wechat")).text(match product {
                    Product::Redpack => "redpack",
                    Product::MiniProgramRedpack => "mini-program-redpack",
                    Product::Transfer => "transfer",
                });
            }),
            Destination::TransferBill => out.text("transfer-bill"),
            Destination::Handler(id) => out.object(|out| {
                out.key(key!("handler")).text(id.as_str());
            }),
        }
        out.key(key!("encoding")).text(match encoding {
            Encoding::Json => "json",
            Encoding::Xml => "xml",
        });
        out.key(key!("parameters")).fields(parameters);
        if !charges.is_empty() {
            out.key(key!("charges"))
                .array(|out| charges.iter().for_each(|charge| write_charge(out, charge)));
        }
        if !returned.is_empty() {
            out.key(key!("returned"))
                .array(|out| returned.iter().for_each(|charge| write_charge(out, charge)));
        }
        write_moment(out.key(key!("createdAt")), *created_at);
        write_moment(out.key(key!("attemptedAt")), *attempted_at);
        write_moment(out.key(key!("doubtSince")), *doubt_since);
        out.key(key!("changedAt")).number(changed_at.0);
        out.key(key!("attempts")).number(*attempts);
        out.key(key!("state")).object(|out| write_state(out, state));
        if let Some(status) = upstream_status {
            out.key(key!("upstreamStatus")).text(status);
        }
        out.key(key!("history"))
            .array(|out| history.iter().for_each(|change| write_change(out, change)));
    });
}

fn write_moment(out: &mut Writer, Moment { wall, ledger }: Moment) {
    out.array(|out| {
        out.number(wall.0);
        out.number(ledger.0);
    });
}

fn write_charge(out: &mut Writer, charge: &Charge) {
    let Charge {
        counter,
        name,
        amount,
        limit,
    } = charge;
    out.object(|out| {
        out.key(key!("counter")).text(match counter {
            Counter::UserFen => "user-fen",
            Counter::MerchantFen => "merchant-fen",
            Counter::UserPayouts => "user-payouts",
        });
        out.key(key!("name")).text(name);
        out.key(key!("amount")).number(*amount);
        out.key(key!("limit")).number(*limit);
    });
}

fn write_state(out: &mut Writer, state: &State) {
    match state {
        State::Pending(Pending { lease_ms, before }) => out.key(key!("pending")).object(|out| {
            out.key(key!("leaseMs")).number(*lease_ms);
            out.key(key!("before"));
            match before {
                Before::Fresh => out.text("fresh"),
                Before::Refused(refused) => {
                    out.object(|out| write_refused(out.key(key!("refused")), refused))
                }
                Before::Unknown(unknown) => {
                    out.object(|out| write_unknown(out.key(key!("unknown")), unknown))
                }
            }
        }),
        State::Unknown(unknown) => write_unknown(out.key(key!("unknown")), unknown),
        State::Succeeded(Succeeded {
            at,
            fields,
            following,
        }) => out.key(key!("succeeded")).object(|out| {
            out.key(key!("at")).number(at.0);
            out.key(key!("fields")).fields(fields);
            if let Some(Following {
                next_query_at,
                queries,
            }) = following
            {
                out.key(key!("following")).object(|out| {
                    out.key(key!("nextQueryAt")).number(next_query_at.0);
                    out.key(key!("queries")).number(*queries);
                });
            }
        }),
        State::Refused(refused) => write_refused(out.key(key!("refused")), refused),
    }
}

fn write_unknown(out: &mut Writer, unknown: &Unknown) {
    let Unknown {
        since,
        why,
        next_query_at,
        queries,
        absence,
    } = unknown;
    out.object(|out| {
        out.key(key!("since")).number(since.0);
        out.key(key!("why")).text(why);
        out.key(key!("nextQueryAt")).number(next_query_at.0);
        out.key(key!("queries")).number(*queries);
        if let Some(Absence { since, heard_at }) = absence {
            out.key(key!("absence")).object(|out| {
                out.key(key!("since")).number(since.0);
                out.key(key!("heardAt")).number(heard_at.0);
            });
        }
    });
}

fn write_refused(out: &mut Writer, refused: &Refused) {
    let Refused {
        at,
        refusal: Refusal { code, text, burnt },
    } = refused;
    out.object(|out| {
        out.key(key!("at")).number(at.0);
        out.key(key!("refusal")).object(|out| {
            out.key(key!("code")).text(code);
            out.key(key!("text")).text(text);
            out.key(key!("burnt")).boolean(*burnt);
        });
    });
}

fn write_change(out: &mut Writer, change: &Change) {
    let Change { at, state, why } = change;
    out.object(|out| {
        out.key(key!("at")).number(at.0);
        out.key(key!("state")).text(state.as_str());
        out.key(key!("why")).text(why);
    });
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
    use crate::rules::term::UserId;

    /// Records of every shape, as they are written; they must be readable for ever: see the retention of 400 days.
    const OLD: &str = include_str!("../../tests/data/records-2.jsonl");

    #[test]
    fn every_shape_is_written_and_read_as_it_always_was() {
        let shapes = samples::every_shape();
        assert_eq!(OLD.lines().count(), shapes.len());
        for (order, old) in shapes.iter().zip(OLD.lines()) {
            assert_eq!(
                encode(order),
                old,
                "what is written has changed: raise the format number"
            );
            assert_eq!(decode(old.as_bytes(), &order.key).unwrap(), *order);
        }
    }

    #[test]
    fn every_state_survives_being_written_and_read() {
        let bill = samples::bill("A1", 100);
        assert!(bill.due_at().is_some(), "an accepted bill is followed");
        for order in [order("A1", 100), settled(&order("A1", 100)), bill] {
            let text = encode(&order);
            assert_eq!(decode(text.as_bytes(), &order.key).unwrap(), order, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_its_texts_and_numbers_are_a_record_is_read_as_it_was_written(
            text in ".*", number in proptest::num::i64::ANY, count in proptest::num::u32::ANY, shape in 0usize..8,
        ) {
            let mut order = samples::every_shape().remove(shape);
            order.trade_record_id.0 = number;
            order.created_at.wall.0 = number;
            order.doubt_since.ledger.0 = number;
            order.attempts = count;
            order.upstream_status = Some(text.clone());
            order.history.first_mut().into_iter().for_each(|change| change.why.clone_from(&text));
            order.user_id = UserId::parse(&text).unwrap_or(order.user_id);
            match &mut order.state {
                State::Unknown(unknown) => unknown.why = text,
                State::Succeeded(succeeded) => succeeded.fields.set("x", text),
                State::Refused(refused) => refused.refusal.text = text,
                State::Pending(pending) => pending.lease_ms = number.unsigned_abs(),
            }
            proptest::prop_assert_eq!(decode(encode(&order).as_bytes(), &order.key).unwrap(), order);
        }
    }

    /// A record as it is written. It must be readable for ever: see the retention of 400 days.
    #[test]
    fn an_old_record_is_still_read() {
        let text = include_str!("../../tests/data/record-2.json").trim_end();
        let key = order("A1", 100).key;
        let order = decode(text.as_bytes(), &key).unwrap();
        assert_eq!(order, settled(&samples::order("A1", 100)));
        assert_eq!(
            encode(&order),
            text,
            "what is written has changed: raise the format number"
        );
    }

    #[test]
    fn what_is_damaged_is_refused_and_not_guessed() {
        let order = order("A1", 100);
        let text = encode(&order);
        for (damaged, says) in [
            (text.replace("\"format\":2", "\"format\":1"), "unknown format 1"),
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
        assert_ne!(encode(&changed), text);
    }
}
