//! JSON as the Engine reads it: names of fields in any case. A document that can be read in two ways is
//! refused.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Largest document that is looked into, in bytes.
pub(super) const MAX: usize = 4 << 20;

/// A document without a name that stands twice in an object.
pub(super) struct Strict(pub(super) Value);

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
            if all.insert(name.clone(), field).is_some() {
                return Err(A::Error::custom(format!("`{}` stands twice", name.escape_debug())));
            }
        }
        Ok(Value::Object(all))
    }
}

/// `name` as Go compares names: without regard to case, where two letters that are not ASCII count as
/// an `s` and a `k` (U+017F and U+212A).
pub(super) fn folded(name: &str) -> String {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    name.chars().map(fold).collect()
}

/// The field `name` of an object, however it is written.
///
/// # Errors
/// It stands twice, in different ways.
pub(super) fn field<'a>(object: &'a Value, name: &str) -> Result<&'a Value, String> {
    let wanted = folded(name);
    let mut found = object.as_object().into_iter().flatten().filter(|(key, _)| folded(key) == wanted);
    match (found.next(), found.next()) {
        (None, _) => Ok(&Value::Null),
        (Some((_, value)), None) => Ok(value),
        (Some(_), Some(_)) => Err(format!("{name} stands twice")),
    }
}

/// Does it say as much as nothing?
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}
