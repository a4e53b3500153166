//! The types of fields: texts that passed a rule, and fields that must be empty.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

use super::json::shown;

/// A structure of the Engine's API. Each field may be absent. [`super::json`] refuses fields that are not declared;
/// `deny_unknown_fields` repeats that for serde.
macro_rules! body {
    ($($(#[$meta:meta])* $name:ident {
        $($(#[$of_field:meta])* $field:ident $(= $wire:literal)? : $kind:ty,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Default, serde::Deserialize, serde::Serialize)]
        #[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
        pub(in crate::tunnel::guard) struct $name {
            $(
                $(#[$of_field])*
                $(#[serde(rename = $wire)])?
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(super) $field: Option<$kind>,
            )*
        }
    )*};
}
pub(super) use body;

/// A type without values: a field of this type is never sent.
#[derive(Clone, Serialize)]
pub(super) enum Nothing {}

impl<'de> Deserialize<'de> for Nothing {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("is not allowed"))
    }
}

/// Reads a field that must be empty, in any of the forms that clients use.
pub(super) fn nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Nothing>, D::Error> {
    deserializer.deserialize_any(Empty).map(|()| None)
}

/// Drops a field that clients send and the Engine does not read.
pub(super) fn dropped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Nothing>, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| None)
}

struct Empty;

impl<'de> Visitor<'de> for Empty {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, set: bool) -> Result<(), E> {
        if set { Err(E::custom("is not allowed")) } else { Ok(()) }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.visit_bool(number != 0)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.visit_bool(number != 0)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.visit_bool(number != 0.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if text.is_empty() { Ok(()) } else { Err(E::custom(format_args!("{} is not allowed", shown(text)))) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        match items.next_element::<serde::de::IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(A::Error::custom("is not allowed")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        match fields.next_key::<String>()? {
            None => Ok(()),
            Some(_) => Err(A::Error::custom("is not allowed")),
        }
    }
}

/// A condition for a text.
pub(super) trait Rule {
    /// Why the text is not allowed, as the end of a sentence about it.
    fn check(text: &str) -> Result<(), String>;
}

/// A text that has passed its rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text<R>(String, PhantomData<R>);

impl<R: Rule> Text<R> {
    /// Creates a text; None if it breaks the rule.
    pub(super) fn new(text: &str) -> Option<Self> {
        R::check(text).ok().map(|()| Self(text.into(), PhantomData))
    }
}

impl<R> std::ops::Deref for Text<R> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<R> Serialize for Text<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, R: Rule> Deserialize<'de> for Text<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        R::check(&text).map_err(|why| D::Error::custom(format_args!("{} {why}", shown(&text))))?;
        Ok(Self(text, PhantomData))
    }
}

/// Declares rules.
macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $check:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) struct $name;

        impl $crate::tunnel::guard::bodies::text::Rule for $name {
            fn check(text: &str) -> Result<(), String> {
                let check: fn(&str) -> Result<(), String> = $check;
                check(text)
            }
        }
    )*};
}
pub(super) use rules;

/// Checks that a text is in a list.
pub(super) fn one_of(text: &str, list: &[&str]) -> Result<(), String> {
    if list.contains(&text) { Ok(()) } else { Err("is not allowed".into()) }
}

/// Checks a condition.
pub(super) fn only(condition: bool) -> Result<(), String> {
    if condition { Ok(()) } else { Err("is not allowed".into()) }
}

/// A name or id of a container, network or volume.
pub(in crate::tunnel::guard) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// The name or id of a network. Only networks may have spaces in their names.
pub(super) fn is_network_name(text: &str) -> bool {
    text.split(' ').all(is_name)
}

/// Whether the text has no line breaks or other control characters.
pub(super) fn is_one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Whether the text holds only ASCII letters, digits and these characters.
pub(super) fn is_made_of(text: &str, others: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

rules! {
    /// A name or id, or empty.
    MaybeName = |text| only(text.is_empty() || is_name(text));
    /// Numbers and ranges: `0-3,7`.
    Ranges = |text| only(text.chars().all(|c| c.is_ascii_digit() || "-,".contains(c)));
}

/// A list of words, which may also be given as a single text (Moby: strslice).
#[derive(Clone, Serialize)]
pub(super) struct Words(Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Words, E> {
                Ok(Words(vec![text.into()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Words, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(Words(all))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// The empty object that stands for a member of a set.
#[derive(Clone, Default, serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Member {}
