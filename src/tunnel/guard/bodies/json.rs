//! JSON with a single meaning: no duplicate names in an object, names exactly as in Moby, limited depth.
//!
//! [`read`] is a small serde deserializer with four features that serde_json lacks: errors report the place; an error
//! about an unknown name shows the right spelling; errors never repeat values, since they may be secret; and, as in
//! Go, null equals an absent field.

use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, Error as _, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

/// Size limit of a judged document, in bytes.
pub(in crate::tunnel::guard) const MAX: usize = 1 << 20;
/// Limit of a name or value in an error, in characters.
const MAX_SHOWN: usize = 100;

/// Reads a whole document. serde_json limits the depth to 128 and refuses trailing data.
///
/// # Errors
/// What is not allowed, and where.
pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    read_value(parse(text)?)
}

/// Parses a document and refuses duplicate names.
///
/// # Errors
/// It is not such a document.
pub(super) fn parse(text: &[u8]) -> Result<Value, String> {
    let document = serde_json::from_slice(text).map(|Strict(document)| document);
    document.map_err(|e| format!("the body cannot be judged: {e}"))
}

/// Reads a parsed document or a part of one.
///
/// # Errors
/// As [`read`].
pub(super) fn read_value<T: DeserializeOwned>(document: Value) -> Result<T, String> {
    T::deserialize(Node(document)).map_err(|fault| fault.to_string())
}

/// Text from clients or the Engine, made safe for an error message.
pub(in crate::tunnel::guard) fn shown(text: &str) -> String {
    let escaped: String = text.escape_debug().take(MAX_SHOWN + 1).collect();
    match escaped.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &escaped[..end]),
        None => escaped,
    }
}

/// Whether Go treats it like an absent field.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// The fault in a document, and its place.
struct Fault {
    /// Path segments, the innermost first.
    place: Vec<String>,
    said: String,
}

impl Fault {
    fn inside(mut self, place: String) -> Self {
        self.place.push(place);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place: String = self.place.iter().rev().map(String::as_str).collect();
        let place = place.trim_start_matches('.');
        f.write_str(if place.is_empty() { "the body" } else { place })?;
        write!(f, " {}", self.said)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(said: T) -> Self {
        Self { place: Vec::new(), said: said.to_string() }
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("should be {expected}"))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("should be {expected}"))
    }

    fn unknown_variant(variant: &str, _: &'static [&'static str]) -> Self {
        Self::custom(format_args!("{} is not allowed", shown(variant)))
    }
}

/// A part of a document.
struct Node(Value);

impl<'de> Deserializer<'de> for Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(set) => visitor.visit_bool(set),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (.., number) => visitor.visit_f64(number.unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(Items { items: items.into_iter(), at: 0 }),
            Value::Object(fields) => visitor.visit_map(Entries { entries: fields.into_iter(), value: None }),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let fields = match self.0 {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            _ => return Err(Fault::custom("should be an object")),
        };
        let mut kept = Map::new();
        for (name, value) in fields {
            if known.contains(&name.as_str()) {
                if !value.is_null() {
                    kept.insert(name, value);
                }
                continue;
            }
            // Go would read this name as well as an earlier one with the right spelling.
            let name_folded = folded(&name);
            if let Some(right) = known.iter().find(|known| folded(known) == name_folded) {
                let said = format!("is unknown: the Engine's API writes {right}");
                return Err(Fault::custom(said).inside(format!(".{}", shown(&name))));
            }
            // Clients newer than this list send fields that they don't use. Empty ones are left out.
            if !is_empty(&value) {
                return Err(Fault::custom("is not allowed (unknown here)").inside(format!(".{}", shown(&name))));
            }
        }
        visitor.visit_map(Entries { entries: kept.into_iter(), value: None })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(text.into_deserializer()),
            _ => Err(Fault::custom("should be a text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        // Go reads null in a list or map of texts as an empty text.
        if self.0.is_null() { visitor.visit_str("") } else { self.deserialize_any(visitor) }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str
        bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items {
    items: std::vec::IntoIter<Value>,
    at: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let at = self.at;
        self.at += 1;
        seed.deserialize(Node(item)).map(Some).map_err(|fault| fault.inside(format!("[{at}]")))
    }
}

struct Entries {
    entries: serde_json::map::IntoIter,
    value: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((name, value)) = self.entries.next() else { return Ok(None) };
        let key: StringDeserializer<Fault> = name.clone().into_deserializer();
        self.value = Some((name.clone(), value));
        seed.deserialize(key).map(Some).map_err(|fault| fault.inside(format!(".{}", shown(&name))))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (name, value) = self.value.take().ok_or_else(|| Fault::custom("has no value"))?;
        seed.deserialize(Node(value)).map_err(|fault| fault.inside(format!(".{}", shown(&name))))
    }
}

/// A document whose objects have no duplicate names.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((name, Strict(field))) = fields.next_entry::<String, Strict>()? {
            if all.contains_key(&name) {
                return Err(A::Error::custom(format!("`{}` appears twice", shown(&name))));
            }
            all.insert(name, field);
        }
        Ok(Value::Object(all))
    }
}

/// `name` as Go compares names: ignoring case, with two non-ASCII letters that equal `s` and `k` (U+017F and U+212A).
fn folded(name: &str) -> String {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    name.chars().map(fold).collect()
}
