//! WeChat's error codes and what each says about the money. Document: wechat-pay.md, sections 4, 5 and 7.
//!
//! What is not listed is unknown. The text beside a code is for people and is never branched on.

use super::Product;
use crate::rules::outcome::Class;

use Class::{Burnt, Conflict, Door, Refused, Unknown};

/// A code and its class.
type Row = (&'static str, Class);

/// Red packets of both kinds. Source: wechat-pay.md, section 4, "Error codes".
const RED_PACKET: &[Row] = &[
    ("SYSTEMERROR", Unknown),
    ("PROCESSING", Unknown),
    ("SEND_FAILED", Burnt),
    ("FATAL_ERROR", Conflict),
    // By text R or D; both are refused on a first attempt, and neither clears an earlier one.
    ("NO_AUTH", Door),
    ("SENDNUM_LIMIT", Refused),
    ("SENDAMOUNT_LIMIT", Refused),
    ("RCVDAMOUNT_LIMIT", Refused),
    ("MONEY_LIMIT", Refused),
    ("NOTENOUGH", Refused),
    ("OPENID_ERROR", Refused),
    ("ILLEGAL_APPID", Refused),
    ("MSGAPPID_ERROR", Refused),
    ("ACCEPTMODE_ERROR", Refused),
    ("CA_ERROR", Door),
    ("SIGN_ERROR", Door),
    ("XML_ERROR", Door),
    ("PARAM_ERROR", Door),
    ("FREQ_LIMIT", Door),
    ("API_METHOD_CLOSED", Door),
    ("SECOND_OVER_LIMITED", Door),
    ("DAY_OVER_LIMITED", Door),
];

/// Transfers to the balance. Source: wechat-pay.md, section 7, "Error codes".
const TRANSFER: &[Row] = &[
    ("SYSTEMERROR", Unknown),
    // Of a transfer it says "to be confirmed by query", unlike of a red packet.
    ("SEND_FAILED", Unknown),
    ("FATAL_ERROR", Conflict),
    ("NOTENOUGH", Refused),
    ("AMOUNT_LIMIT", Refused),
    ("MONEY_LIMIT", Refused),
    ("SENDNUM_LIMIT", Refused),
    ("NAME_MISMATCH", Refused),
    ("V2_ACCOUNT_SIMPLE_BAN", Refused),
    ("OPENID_ERROR", Refused),
    ("RECV_ACCOUNT_NOT_ALLOWED", Refused),
    ("PAY_CHANNEL_NOT_ALLOWED", Door),
    // By text R or D, as above.
    ("NO_AUTH", Door),
    ("CA_ERROR", Door),
    ("SIGN_ERROR", Door),
    ("FREQ_LIMIT", Door),
    ("PARAM_ERROR", Door),
    ("PARAM_IS_NOT_UTF8", Door),
    ("XML_ERROR", Door),
];

fn table(product: Product) -> &'static [Row] {
    match product {
        Product::Redpack | Product::MiniProgramRedpack => RED_PACKET,
        Product::Transfer => TRANSFER,
    }
}

fn find(rows: &[Row], code: &str) -> Option<Class> {
    rows.iter()
        .find(|(listed, _)| *listed == code)
        .map(|(_, class)| *class)
}

/// The class of a code that WeChat answered to a payout of this product.
#[must_use]
pub fn class(product: Product, code: &str) -> Class {
    find(table(product), code).unwrap_or(Unknown)
}

/// The class of a code that a customer's handler answered. It may pass on the code of a product that is not known here,
/// so a code counts as "not paid" only where every product's table that lists it agrees; where one says "refused" and
/// another "door", the more careful one is taken.
#[must_use]
pub fn class_for_handler(code: &str) -> Class {
    match (find(RED_PACKET, code), find(TRANSFER, code)) {
        (Some(Refused), Some(Refused) | None) | (None, Some(Refused)) => Refused,
        (Some(Refused | Door), Some(Refused | Door)) | (Some(Door), None) | (None, Some(Door)) => Door,
        (Some(Burnt), None) | (None, Some(Burnt)) | (Some(Burnt), Some(Burnt)) => Burnt,
        _ => Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document's tables, written out a second time in its own letters.
    fn expected(rows: &str) -> Vec<(&str, Class)> {
        let class = |letter| match letter {
            "R" => Refused,
            "D" => Door,
            "N" => Burnt,
            "C" => Conflict,
            "U" => Unknown,
            other => panic!("{other}"),
        };
        let row = |row: &'static str| row.split_once('=').unwrap();
        let rows: Vec<&'static str> = rows.to_owned().leak().split_whitespace().collect();
        rows.into_iter().map(|r| (row(r).0, class(row(r).1))).collect()
    }

    #[test]
    fn every_row_of_the_red_packets_table() {
        let rows = expected(
            "SYSTEMERROR=U PROCESSING=U SEND_FAILED=N FATAL_ERROR=C NO_AUTH=D SENDNUM_LIMIT=R SENDAMOUNT_LIMIT=R
             RCVDAMOUNT_LIMIT=R MONEY_LIMIT=R NOTENOUGH=R OPENID_ERROR=R ILLEGAL_APPID=R MSGAPPID_ERROR=R
             ACCEPTMODE_ERROR=R CA_ERROR=D SIGN_ERROR=D XML_ERROR=D PARAM_ERROR=D FREQ_LIMIT=D API_METHOD_CLOSED=D
             SECOND_OVER_LIMITED=D DAY_OVER_LIMITED=D 268458547=U V2_ACCOUNT_SIMPLE_BAN=U SUCCESS=U =U",
        );
        assert_eq!(rows.len(), 26);
        for product in [Product::Redpack, Product::MiniProgramRedpack] {
            for (code, class) in &rows {
                assert_eq!(super::class(product, code), *class, "{product:?} {code}");
            }
        }
    }

    #[test]
    fn every_row_of_the_transfers_table() {
        let rows = expected(
            "SYSTEMERROR=U SEND_FAILED=U FATAL_ERROR=C NOTENOUGH=R AMOUNT_LIMIT=R MONEY_LIMIT=R SENDNUM_LIMIT=R
             NAME_MISMATCH=R V2_ACCOUNT_SIMPLE_BAN=R OPENID_ERROR=R RECV_ACCOUNT_NOT_ALLOWED=R
             PAY_CHANNEL_NOT_ALLOWED=D NO_AUTH=D CA_ERROR=D SIGN_ERROR=D FREQ_LIMIT=D PARAM_ERROR=D PARAM_IS_NOT_UTF8=D
             XML_ERROR=D PROCESSING=U NEW_CODE=U SENDAMOUNT_LIMIT=U",
        );
        assert_eq!(rows.len(), 22);
        for (code, class) in rows {
            assert_eq!(super::class(Product::Transfer, code), class, "{code}");
        }
    }

    #[test]
    fn a_handlers_code_is_certain_only_where_all_tables_agree() {
        for (code, class) in expected(
            "NOTENOUGH=R OPENID_ERROR=R MONEY_LIMIT=R NAME_MISMATCH=R AMOUNT_LIMIT=R SENDAMOUNT_LIMIT=R PARAM_ERROR=D
             NO_AUTH=D SIGN_ERROR=D FREQ_LIMIT=D SEND_FAILED=U SYSTEMERROR=U PROCESSING=U FATAL_ERROR=U OF_THEIR_OWN=U",
        ) {
            assert_eq!(class_for_handler(code), class, "{code}");
        }
    }
}
