//! temp
use crate::rules::outcome::Class;
/// temp
#[must_use]
pub fn class_for_handler(code: &str) -> Class {
    match code {
        "NOTENOUGH" => Class::Refused,
        _ => Class::Unknown,
    }
}
