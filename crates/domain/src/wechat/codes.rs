//! WeChat's v2 error codes and what each says about the money (`docs/wechat-pay.md`, error codes).
//!
//! A code that is not listed is unknown. The text beside a code is for people, and nothing branches on it.

use super::Product;
use crate::outcome::Class;

use Class::{Conflict, NumberSpent, Refused, RejectedUnprocessed, Unknown};

/// A code and its class.
type Row = (&'static str, Class);

/// Red packets of both kinds (`docs/wechat-pay.md`, error codes).
const RED_PACKET: &[Row] = &[
    ("SYSTEMERROR", Unknown),
    ("PROCESSING", Unknown),
    ("SEND_FAILED", NumberSpent),
    ("FATAL_ERROR", Conflict),
    // Refused or rejected, depending on the text. Either refuses a first attempt, and neither clears an earlier one.
    ("NO_AUTH", RejectedUnprocessed),
    ("SENDNUM_LIMIT", Refused),
    ("SENDAMOUNT_LIMIT", Refused),
    ("RCVDAMOUNT_LIMIT", Refused),
    ("MONEY_LIMIT", Refused),
    // WeChat's documentation leaves this class open. It is refused because the contract names this code as one that is
    // passed on, WeChat advises to use the same number again, and WeChat's staff call such a packet failed.
    ("NOTENOUGH", Refused),
    ("OPENID_ERROR", Refused),
    ("ILLEGAL_APPID", Refused),
    ("MSGAPPID_ERROR", Refused),
    ("ACCEPTMODE_ERROR", Refused),
    ("CA_ERROR", RejectedUnprocessed),
    ("SIGN_ERROR", RejectedUnprocessed),
    ("XML_ERROR", RejectedUnprocessed),
    ("PARAM_ERROR", RejectedUnprocessed),
    ("FREQ_LIMIT", RejectedUnprocessed),
    ("API_METHOD_CLOSED", RejectedUnprocessed),
    // Older codes for rates. Nothing confirms that they mean "not processed", so they are not believed.
    ("SECOND_OVER_LIMITED", Unknown),
    ("DAY_OVER_LIMITED", Unknown),
];

/// Transfers to the balance (`docs/wechat-pay.md`, error codes).
const TRANSFER: &[Row] = &[
    ("SYSTEMERROR", Unknown),
    // For a transfer WeChat says "to be confirmed by query", unlike for a red packet.
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
    ("PAY_CHANNEL_NOT_ALLOWED", RejectedUnprocessed),
    // Refused or rejected, as above.
    ("NO_AUTH", RejectedUnprocessed),
    ("CA_ERROR", RejectedUnprocessed),
    ("SIGN_ERROR", RejectedUnprocessed),
    ("FREQ_LIMIT", RejectedUnprocessed),
    ("PARAM_ERROR", RejectedUnprocessed),
    ("PARAM_IS_NOT_UTF8", RejectedUnprocessed),
    ("XML_ERROR", RejectedUnprocessed),
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

/// Every code that WeChat documents for a payout of this product.
pub fn listed(product: Product) -> impl Iterator<Item = &'static str> {
    table(product).iter().map(|(code, _)| *code)
}

/// Whether WeChat documents a code as a failure of this product. Beside a success such a code is a contradiction.
#[must_use]
pub fn is_listed(product: Product, code: &str) -> bool {
    find(table(product), code).is_some()
}

/// The class of a code that a customer's handler answered; `None` if no table lists it. The handler may pass on the
/// code of a product that is not known here, so where the two tables disagree the class is unknown.
#[must_use]
pub fn class_for_handler(code: &str) -> Option<Class> {
    match (find(RED_PACKET, code), find(TRANSFER, code)) {
        (None, None) => None,
        (Some(class), None) | (None, Some(class)) => Some(class),
        (Some(one), Some(other)) if one == other => Some(one),
        (Some(_), Some(_)) => Some(Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `docs/wechat-pay.md` says of each code under this heading, in its order.
    fn documented(heading: &str) -> Vec<(&'static str, Class)> {
        const DOCUMENT: &str = include_str!("../../../../docs/wechat-pay.md");
        let section = DOCUMENT.lines().skip_while(|line| *line != heading).skip(1);
        let rows = section
            .take_while(|line| !line.starts_with('#'))
            .skip_while(|line| !line.starts_with("|---"))
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        rows.map(|(code, rest)| (code, named(rest.split(" | ").next().unwrap())))
            .collect()
    }

    fn named(class: &str) -> Class {
        match class {
            "refused" => Refused,
            "rejected_unprocessed" => RejectedUnprocessed,
            "number_spent" => NumberSpent,
            "conflict" => Conflict,
            "unknown" => Unknown,
            other => panic!("{other:?} is no class"),
        }
    }

    /// A code is listed in two places, with what WeChat says of it in the document; neither may say more or less.
    #[test]
    fn the_tables_are_the_documents_row_by_row() {
        assert_eq!(RED_PACKET, documented("### Red packet codes"));
        assert_eq!(TRANSFER, documented("### Transfer codes"));
        assert_eq!((RED_PACKET.len(), TRANSFER.len()), (22, 19));
    }

    #[test]
    fn a_code_is_classed_by_its_products_table_and_unlisted_ones_are_unknown() {
        for (product, rows) in [
            (Product::Redpack, RED_PACKET),
            (Product::MiniProgramRedpack, RED_PACKET),
            (Product::Transfer, TRANSFER),
        ] {
            for (code, expected) in rows {
                assert_eq!(class(product, code), *expected, "{product:?} {code}");
                assert!(is_listed(product, code), "{product:?} {code}");
            }
            for code in [
                "",
                "SUCCESS",
                "0",
                "268458547",
                "NEW_CODE",
                "notenough",
                "NOTENOUGH ",
            ] {
                assert_eq!(class(product, code), Unknown, "{product:?} {code}");
                assert!(!is_listed(product, code), "{product:?} {code}");
            }
        }
        assert_eq!(class(Product::Redpack, "V2_ACCOUNT_SIMPLE_BAN"), Unknown);
        assert_eq!(class(Product::Transfer, "SENDAMOUNT_LIMIT"), Unknown);
        assert_eq!(class(Product::Transfer, "PROCESSING"), Unknown);
    }

    /// A handler may pass on a code of either product.
    #[test]
    fn a_handlers_code_is_certain_only_where_all_tables_agree() {
        for (codes, class) in [
            (
                "NOTENOUGH OPENID_ERROR MONEY_LIMIT SENDNUM_LIMIT NAME_MISMATCH AMOUNT_LIMIT SENDAMOUNT_LIMIT
                 RCVDAMOUNT_LIMIT ILLEGAL_APPID",
                Some(Refused),
            ),
            (
                "PARAM_ERROR NO_AUTH SIGN_ERROR FREQ_LIMIT CA_ERROR XML_ERROR API_METHOD_CLOSED PARAM_IS_NOT_UTF8",
                Some(RejectedUnprocessed),
            ),
            // For a red packet it says "the number is spent", for a transfer "ask".
            ("SEND_FAILED", Some(Unknown)),
            (
                "SYSTEMERROR PROCESSING SECOND_OVER_LIMITED DAY_OVER_LIMITED",
                Some(Unknown),
            ),
            ("FATAL_ERROR", Some(Conflict)),
            ("OF_THEIR_OWN NOT_FOUND", None),
        ] {
            for code in codes.split_whitespace() {
                assert_eq!(class_for_handler(code), class, "{code}");
            }
        }
        assert_eq!(class_for_handler(""), None);
    }
}
