//! Secrets: texts that cannot be printed, written or compared by accident, and that are wiped when dropped.

use std::hash::{Hash, Hasher};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Serialize, Serializer};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// What a secret is serialised as.
pub const SET: &str = "[set]";

/// A secret text (API key, token, private key in PEM). `Debug` and `Serialize` show nothing of it, there is no `Display`, and
/// its memory is wiped when the last clone is dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a text over. The caller wipes what it keeps.
    #[must_use]
    pub fn new(text: String) -> Self {
        // A text with room to spare would be moved to where it just fits, and stay behind as well.
        let text = Zeroizing::new(text);
        Self(SecretString::from(text.as_str()))
    }

    /// The text itself, for the one place that signs, encrypts or compares with it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Compares in a time that depends on the lengths only.
    #[must_use]
    pub fn matches(&self, given: &str) -> bool {
        self.expose().as_bytes().ct_eq(given.as_bytes()).into()
    }
}

/// For fingerprints, which tell nothing of what they were made of.
impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expose().hash(state);
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(SET)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn prints_nothing_and_compares_whole_texts() {
        let secret = Secret::new("k3y".into());
        assert_eq!(format!("{secret:?}"), "[secret]");
        assert_eq!(serde_json::to_value(&secret).unwrap(), "[set]");
        assert!(secret.matches("k3y"));
        assert!(!secret.matches("k3") && !secret.matches("k3yy") && !secret.matches(""));
    }
}
