//! Reads settings of `config.toml`. What is wrong is refused with what would be right: every message names
//! what is allowed and, where words are chosen from, the nearest one. serde's own messages for enums and
//! numbers name Rust's types instead.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::nearest::nearest;
use crate::text::shown;

/// Most SSH connections of a tunnel.
const MOST_CONNECTIONS: usize = 16;

/// "`readonly` is not one of …; did you mean `read-only`?"
pub(super) fn unknown_word(word: &str, words: &[&str]) -> String {
    let list: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    let list = list.join(", ");
    match nearest(word, words.iter().copied()) {
        Some(nearest) => format!("`{}` is not one of {list}; did you mean `{nearest}`?", shown(word)),
        None => format!("`{}` is not one of {list}", shown(word)),
    }
}

/// A value that is written as a string and read by its type's [`FromStr`]. The error stands at the string
/// itself, also within a list.
pub(super) fn from_str<'de, D, T>(deserializer: D, expected: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String>,
{
    struct Text<T>(&'static str, PhantomData<T>);
    impl<T: FromStr<Err = String>> Visitor<'_> for Text<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text(expected, PhantomData))
}

/// One of a kind, or a list of them.
#[derive(Debug)]
pub(super) enum OneOrMany<One, Each> {
    One(One),
    Many(Vec<Each>),
}

/// A word (or a flag) that stands alone, or a list. `word` and `flag` say what those mean, if anything.
pub(super) fn one_or_many<'de, D, One, Each>(
    deserializer: D,
    expected: &'static str,
    word: fn(&str) -> Result<One, String>,
    flag: Option<fn(bool) -> One>,
) -> Result<OneOrMany<One, Each>, D::Error>
where
    D: Deserializer<'de>,
    Each: Deserialize<'de>,
{
    struct Either<One, Each> {
        expected: &'static str,
        word: fn(&str) -> Result<One, String>,
        flag: Option<fn(bool) -> One>,
        each: PhantomData<Each>,
    }
    impl<'de, One, Each: Deserialize<'de>> Visitor<'de> for Either<One, Each> {
        type Value = OneOrMany<One, Each>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expected)
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            (self.word)(text).map(OneOrMany::One).map_err(E::custom)
        }
        fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
            match self.flag {
                Some(flag) => Ok(OneOrMany::One(flag(value))),
                None => Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)),
            }
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = list.next_element()? {
                all.push(one);
            }
            Ok(OneOrMany::Many(all))
        }
    }
    deserializer.deserialize_any(Either { expected, word, flag, each: PhantomData })
}

/// A whole number within these bounds.
fn number<'de, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
    least: i64,
    most: i64,
) -> Result<i64, D::Error> {
    struct Number(&'static str, i64, i64);
    impl Visitor<'_> for Number {
        type Value = i64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_i64<E: Error>(self, number: i64) -> Result<i64, E> {
            match (self.1..=self.2).contains(&number) {
                true => Ok(number),
                false => Err(E::custom(format!("{number} is not {}", self.0))),
            }
        }
        fn visit_u64<E: Error>(self, number: u64) -> Result<i64, E> {
            self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
        }
    }
    deserializer.deserialize_any(Number(expected, least, most))
}

pub(super) fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let port = number(deserializer, "a TCP port from 1 to 65535", 1, 65535)?;
    Ok(u16::try_from(port).ok())
}

pub(super) fn connections<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU8>, D::Error> {
    let most = i64::try_from(MOST_CONNECTIONS).unwrap_or(i64::MAX);
    let connections = number(deserializer, "a number of connections from 1 to 16", 1, most)?;
    Ok(u8::try_from(connections).ok().and_then(NonZeroU8::new))
}

pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let count = number(deserializer, "a whole number from 0 on", 0, i64::from(u32::MAX))?;
    Ok(u32::try_from(count).ok())
}

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    struct Address(IpAddr);
    impl FromStr for Address {
        type Err = String;
        fn from_str(text: &str) -> Result<Self, String> {
            text.parse().map(Self).map_err(|_| {
                format!("`{}` is not an IP address such as \"127.0.0.1\", \"::1\" or \"0.0.0.0\"", shown(text))
            })
        }
    }
    Ok(Some(from_str::<D, Address>(deserializer, "an IP address such as \"127.0.0.1\"")?.0))
}

pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    struct Flag;
    impl Visitor<'_> for Flag {
        type Value = bool;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("`true` or `false`, without quotes")
        }
        fn visit_bool<E: Error>(self, flag: bool) -> Result<bool, E> {
            Ok(flag)
        }
    }
    deserializer.deserialize_any(Flag).map(Some)
}
