//! Parses a Redis key back into the app and the user that fill the template.
//!
//! A user id may contain any character, even the colons and braces of the template, so the parser cannot split at a
//! colon. But an app id has 1 to 32 bytes, and its length determines all other lengths. So the parser tries every
//! length, and accepts a reading only if it is the only one.

use crate::openids::template::{Piece, Template};
use payout_domain::ids::{UserId, WxAppId};

/// Separates a key from its field, so that the parser reads both as one text. No id can contain it.
const SEPARATOR: &str = "\0";
const LONGEST_APP: usize = 32;

/// To whom a key, or a key with a field, belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ParsedKey {
    /// No app and user fill the template like this: the key belongs to something else.
    Nobody,
    /// To this user of this app.
    User(WxAppId, UserId),
    /// Several pairs of app and user fill the template like this.
    Ambiguous,
}

/// Parses keys of one template.
#[derive(Clone, Debug)]
pub(crate) struct KeyParser {
    pieces: Vec<Piece>,
    // The only app to list, if one is given.
    app: Option<WxAppId>,
    pattern: String,
    only_key: Option<String>,
}

impl KeyParser {
    /// A parser for the key's template and, if there is one, the field's. With `app` it accepts only users of this app.
    /// `None` if neither a template nor `app` names the app.
    #[must_use]
    pub(crate) fn new(key: &Template, field: Option<&Template>, app: Option<WxAppId>) -> Option<Self> {
        let known = |piece: &Piece| match (piece, &app) {
            (Piece::WxAppId, Some(app)) => Piece::Literal(app.as_str().to_owned()),
            (Piece::WxAppId | Piece::UserId | Piece::Literal(_), _) => piece.clone(),
        };
        let mut pieces: Vec<Piece> = key.pieces().iter().map(known).collect();
        let pattern = pattern(&pieces);
        let literals = pieces.iter().map(|piece| match piece {
            Piece::Literal(literal) => Some(literal.as_str()),
            Piece::WxAppId | Piece::UserId => None,
        });
        let only_key = literals.collect::<Option<String>>();
        if let Some(field) = field {
            pieces.push(Piece::Literal(SEPARATOR.to_owned()));
            pieces.extend(field.pieces().iter().map(known));
        }
        (app.is_some() || pieces.contains(&Piece::WxAppId)).then_some(Self {
            pieces,
            app,
            pattern,
            only_key,
        })
    }

    /// A glob for `SCAN` that matches every key.
    #[must_use]
    pub(crate) fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The key of the hash that holds all users, if there is only one.
    #[must_use]
    pub(crate) fn only_key(&self) -> Option<&str> {
        self.only_key.as_deref()
    }

    /// To whom this key, or key with field, belongs.
    #[must_use]
    pub(crate) fn read(&self, key: &str, field: Option<&str>) -> ParsedKey {
        match field {
            None => self.read_text(key),
            Some(field) => self.read_text(&format!("{key}{SEPARATOR}{field}")),
        }
    }

    fn read_text(&self, text: &str) -> ParsedKey {
        let lengths = if self.pieces.contains(&Piece::WxAppId) {
            1..=LONGEST_APP
        } else {
            0..=0
        };
        let mut only = None;
        for length in lengths {
            match (self.read_with(text, length), &only) {
                (None, _) => {}
                (Some(found), None) => only = Some(found),
                // Another length means another app.
                (Some(_), Some(_)) => return ParsedKey::Ambiguous,
            }
        }
        only.map_or(ParsedKey::Nobody, |(app, user)| ParsedKey::User(app, user))
    }

    /// The reading in which the app id has `app_length` bytes. Each length allows at most one.
    fn read_with(&self, text: &str, app_length: usize) -> Option<(WxAppId, UserId)> {
        let mut known: usize = 0;
        let mut users: usize = 0;
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => known = known.checked_add(literal.len())?,
                Piece::WxAppId => known = known.checked_add(app_length)?,
                Piece::UserId => users = users.checked_add(1)?,
            }
        }
        let left = text.len().checked_sub(known)?;
        if left.checked_rem(users)? != 0 {
            return None;
        }
        let user_length = left.checked_div(users)?;
        let (mut app, mut user) = (None, None);
        let mut rest = text;
        for piece in &self.pieces {
            let (slot, length) = match piece {
                Piece::Literal(literal) => {
                    rest = rest.strip_prefix(literal.as_str())?;
                    continue;
                }
                Piece::WxAppId => (&mut app, app_length),
                Piece::UserId => (&mut user, user_length),
            };
            let (here, after) = rest.split_at_checked(length)?;
            if *slot.get_or_insert(here) != here {
                return None;
            }
            rest = after;
        }
        let app = match app {
            Some(app) => WxAppId::parse(app).ok()?,
            None => self.app.clone()?,
        };
        Some((app, UserId::parse(user?).ok()?))
    }
}

/// The pieces as a Redis glob. Source: Redis's documentation of `KEYS`.
fn pattern(pieces: &[Piece]) -> String {
    let mut pattern = String::new();
    for piece in pieces {
        match piece {
            Piece::Literal(literal) => {
                for character in literal.chars() {
                    if ['*', '?', '[', ']', '\\'].contains(&character) {
                        pattern.push('\\');
                    }
                    pattern.push(character);
                }
            }
            Piece::WxAppId | Piece::UserId => pattern.push('*'),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const APP: &str = "[A-Za-z0-9_-]{1,32}";
    /// Ids that look like parts of templates, and ids of arbitrary characters.
    const USER: &str = "[^\\p{Cc}]{1,128}|[ab:{}*_-]{1,12}|\\{(wxAppId|userId)\\}|:[a-b]:";

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap()
    }

    fn parser(key: &str, field: Option<&str>, app: Option<&str>) -> KeyParser {
        let app = app.map(|app| WxAppId::parse(app).unwrap());
        KeyParser::new(&template(key), field.map(template).as_ref(), app).unwrap()
    }

    fn user(app: &str, user: &str) -> ParsedKey {
        ParsedKey::User(WxAppId::parse(app).unwrap(), UserId::parse(user).unwrap())
    }

    #[test]
    fn what_can_be_read_in_one_way_only_is_read_so() {
        for (key, text, reading) in [
            ("openid:{wxAppId}:{userId}", "openid:wx1:u", user("wx1", "u")),
            (
                "openid:{wxAppId}:{userId}",
                "openid:wx1::a:b:",
                user("wx1", ":a:b:"),
            ),
            (
                "openid:{wxAppId}:{userId}",
                "openid:wx1:{wxAppId}",
                user("wx1", "{wxAppId}"),
            ),
            (
                "openid:{wxAppId}:{userId}",
                "openid:wx1:用户",
                user("wx1", "用户"),
            ),
            ("openid:{wxAppId}:{userId}", "openid:wx1:", ParsedKey::Nobody),
            ("openid:{wxAppId}:{userId}", "openid::u", ParsedKey::Nobody),
            ("openid:{wxAppId}:{userId}", "openid:用:u", ParsedKey::Nobody),
            ("openid:{wxAppId}:{userId}", "other:wx1:u", ParsedKey::Nobody),
            (
                "openid:{wxAppId}:{userId}",
                "openid:wx1:u\u{7}",
                ParsedKey::Nobody,
            ),
            ("{userId}:{wxAppId}", "a:b:wx1", user("wx1", "a:b")),
            ("{wxAppId}", "", ParsedKey::Nobody),
            ("{userId}-{wxAppId}", "a-b", user("b", "a")),
            ("{userId}-{wxAppId}", "a-b-c", ParsedKey::Ambiguous),
            ("{wxAppId}{userId}", "ab", user("a", "b")),
            ("{wxAppId}{userId}", "abc", ParsedKey::Ambiguous),
            ("{wxAppId}{userId}{wxAppId}", "abca", user("a", "bc")),
            ("{userId}{wxAppId}{userId}", "abxab", user("x", "ab")),
            ("{userId}{wxAppId}{userId}", "abxbb", ParsedKey::Nobody),
            ("{userId}/{userId}/{wxAppId}", "u/u/wx1", user("wx1", "u")),
            ("{userId}/{userId}/{wxAppId}", "u/v/wx1", ParsedKey::Nobody),
        ] {
            assert_eq!(parser(key, None, None).read(text, None), reading, "{key} {text}");
        }
        let hash = parser("openids:{wxAppId}", Some("{userId}"), None);
        assert_eq!(hash.read("openids:wx1", Some("a:b")), user("wx1", "a:b"));
        assert_eq!(hash.read("openids:wx:1", Some("u")), ParsedKey::Nobody);
        assert_eq!(hash.only_key(), None);
        let one = parser("openids", Some("{wxAppId}/{userId}"), None);
        assert_eq!(one.only_key(), Some("openids"));
        assert_eq!(one.read("openids", Some("wx1/a/b")), user("wx1", "a/b"));
    }

    #[test]
    fn an_app_that_is_given_is_the_only_one_and_needs_not_be_in_the_key() {
        let joined = parser("{wxAppId}{userId}", None, Some("wx1"));
        assert_eq!(joined.read("wx1abc", None), user("wx1", "abc"));
        assert_eq!(joined.read("wx2abc", None), ParsedKey::Nobody);
        assert_eq!(joined.pattern(), "wx1*");
        let shared = parser("openid:{userId}", None, Some("wx1"));
        assert_eq!(shared.read("openid:u", None), user("wx1", "u"));
        assert!(KeyParser::new(&template("openid:{userId}"), None, None).is_none());
    }

    #[test]
    fn what_a_glob_would_understand_is_escaped() {
        let pattern = |key: &str| parser(key, None, None).pattern().to_owned();
        assert_eq!(pattern("openid:{wxAppId}:{userId}"), "openid:*:*");
        assert_eq!(pattern("a*b?[c]\\^{wxAppId}"), "a\\*b\\?\\[c\\]\\\\^*");
    }

    proptest! {
        #[test]
        fn the_usual_templates_are_always_read_back(app in APP, id in USER) {
            let ids = (WxAppId::parse(&app).unwrap(), UserId::parse(&id).unwrap());
            for (key, field) in [
                ("openid:{wxAppId}:{userId}", None),
                ("{userId}@{wxAppId}", None),
                ("openids:{wxAppId}", Some("{userId}")),
                ("openids", Some("{userId}:{wxAppId}")),
            ] {
                let (key, field) = (template(key), field.map(template));
                let texts = (key.fill(&ids.0, &ids.1), field.as_ref().map(|f| f.fill(&ids.0, &ids.1)));
                let parser = KeyParser::new(&key, field.as_ref(), None).unwrap();
                prop_assert_eq!(parser.read(&texts.0, texts.1.as_deref()), ParsedKey::User(ids.0.clone(), ids.1.clone()));
            }
        }

        #[test]
        fn a_reading_of_any_template_is_the_right_one(
            pieces in proptest::collection::vec("\\{wxAppId\\}|\\{userId\\}|[a:_*-]{1,2}", 1..6),
            app in "[ab_-]{1,4}|[A-Za-z0-9_-]{1,32}",
            id in USER,
        ) {
            let key = template(&format!("{}{{userId}}", pieces.concat()));
            let ids = (WxAppId::parse(&app).unwrap(), UserId::parse(&id).unwrap());
            let text = key.fill(&ids.0, &ids.1);
            if let Some(parser) = KeyParser::new(&key, None, None) {
                match parser.read(&text, None) {
                    ParsedKey::User(app, user) => prop_assert_eq!(&(app, user), &ids),
                    ParsedKey::Ambiguous => {}
                    ParsedKey::Nobody => prop_assert!(false, "{}", text),
                }
            }
            let with_app = KeyParser::new(&key, None, Some(ids.0.clone())).unwrap();
            prop_assert_eq!(with_app.read(&text, None), ParsedKey::User(ids.0, ids.1));
        }
    }
}
