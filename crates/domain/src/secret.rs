//! Secret texts: code cannot print, serialise or compare them by accident, and dropping one wipes its memory.

use std::hash::{Hash, Hasher};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Serialize, Serializer};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// What serialising a secret writes.
pub const SET: &str = "[set]";

/// A secret text (API key, token, private key in PEM). `Debug` and `Serialize` reveal nothing, there is no
/// `Display`, and dropping a clone wipes that clone's memory.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes over a text. The caller must wipe its own copies.
    #[must_use]
    pub fn new(text: String) -> Self {
        // Turning a `String` with spare capacity into a `Box<str>` moves the text and leaves the old bytes in
        // memory. So the text is copied, and the original wiped.
        let text = Zeroizing::new(text);
        Self(SecretString::from(text.as_str()))
    }

    /// The text itself, for the code that signs, encrypts or compares with it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Compares in a time that depends only on the lengths.
    #[must_use]
    pub fn matches(&self, given: &str) -> bool {
        self.expose().as_bytes().ct_eq(given.as_bytes()).into()
    }
}

/// For fingerprints, which do not reveal the text.
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
