//! A template for a Redis key or field, such as `openid:{wxAppId}:{userId}`, parsed once.

use std::fmt;

use payout_domain::ids::{UserId, WxAppId};

/// A template for a key or a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    WxAppId,
    UserId,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// When a brace has no counterpart or a placeholder is unknown: the lookup would otherwise use it literally.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let literal = |text: &str| {
            if text.contains('}') {
                return Err("has a } that belongs to no {: take it out".to_owned());
            }
            Ok((!text.is_empty()).then(|| Piece::Literal(text.to_owned())))
        };
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            pieces.extend(literal(before)?);
            let (name, after) = after
                .split_once('}')
                .ok_or("has a { that is not closed: write {wxAppId} or {userId}")?;
            pieces.push(match name {
                "wxAppId" => Piece::WxAppId,
                "userId" => Piece::UserId,
                _ => {
                    return Err(format!(
                        "has an unknown placeholder {{{name}}}: there are {{wxAppId}} and {{userId}} only"
                    ));
                }
            });
            rest = after;
        }
        pieces.extend(literal(rest)?);
        Ok(Self { pieces })
    }

    /// Whether the template contains `{wxAppId}`.
    #[must_use]
    pub(crate) fn names_app(&self) -> bool {
        self.pieces.contains(&Piece::WxAppId)
    }

    /// Whether the template contains `{userId}`.
    #[must_use]
    pub(crate) fn names_user(&self) -> bool {
        self.pieces.contains(&Piece::UserId)
    }

    /// The key or field of a user under an app.
    #[must_use]
    pub(crate) fn fill(&self, app: &WxAppId, user: &UserId) -> String {
        let mut text = String::with_capacity(64);
        for piece in &self.pieces {
            text.push_str(match piece {
                Piece::Literal(literal) => literal,
                Piece::WxAppId => app.as_str(),
                Piece::UserId => user.as_str(),
            });
        }
        text
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The text that every filled template begins with.
    #[must_use]
    pub(crate) fn prefix(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Literal(literal)) => literal,
            Some(Piece::WxAppId | Piece::UserId) | None => "",
        }
    }
}

/// Displays the template as it was written.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Literal(literal) => f.write_str(literal),
            Piece::WxAppId => f.write_str("{wxAppId}"),
            Piece::UserId => f.write_str("{userId}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_and_unknown_ones_named() {
        let (app, user) = (
            WxAppId::parse("wx1").unwrap(),
            UserId::parse("{wxAppId}").unwrap(),
        );
        let key = Template::parse("openid:{wxAppId}:{userId}!").unwrap();
        assert_eq!(
            key.fill(&app, &user),
            "openid:wx1:{wxAppId}!",
            "what is filled in is not filled again"
        );
        assert_eq!(key.prefix(), "openid:");
        assert_eq!(Template::parse("{userId}").unwrap().prefix(), "");
        assert!(Template::parse("a{openid}").unwrap_err().contains("{openid}"));
        assert!(Template::parse("a{userId").unwrap_err().contains("not closed"));
        assert!(
            Template::parse("a}{userId}")
                .unwrap_err()
                .contains("belongs to no {")
        );
    }
}
