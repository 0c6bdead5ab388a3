//! Reads a query string into a struct, so that an error names the parameter at fault.
//!
//! The framework's own reader reports "invalid digit found in string" and not where; this one walks the decoded pairs
//! through `serde_path_to_error` and reads numbers and booleans from their text.

use actix_web::web;
use serde::{
    Deserializer,
    de::{
        DeserializeOwned, Error as _, IntoDeserializer, Visitor,
        value::{Error, MapDeserializer},
    },
    forward_to_deserialize_any,
};

use crate::{base::error::FieldError, http::extract::data_fault};

/// Parses a query string; unknown and repeated parameters are errors if `T` denies unknown fields.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, FieldError> {
    let pairs: Vec<(String, String)> = if text.is_empty() {
        Vec::new()
    } else {
        web::Query::<Vec<_>>::from_query(text).map_err(|e| FieldError::new("query", e.to_string()))?.into_inner()
    };
    let pairs = pairs.into_iter().map(|(name, value)| (name, Text(value)));
    serde_path_to_error::deserialize(MapDeserializer::<_, Error>::new(pairs)).map_err(|e| {
        let fault = data_fault(&e.path().to_string(), &e.inner().to_string());
        FieldError { message: fault.message.replacen("known field", "known query parameter", 1), ..fault }
    })
}

/// The text of one parameter, to be read as whatever the field wants.
struct Text(String);

impl IntoDeserializer<'_, Error> for Text {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! from_text {
    ($($method:ident $visit:ident $type:ty, $what:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0.parse::<$type>() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(Error::custom(format_args!(concat!("is `{}`, but must be ", $what), self.0))),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Text {
    type Error = Error;

    from_text! {
        deserialize_bool visit_bool bool, "`true` or `false`";
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number, 0 or more";
        deserialize_u64 visit_u64 u64, "a whole number, 0 or more";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::base::clock::Timestamp;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Colour {
        #[default]
        DarkRed,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        limit: Option<u32>,
        name: Option<String>,
        since: Option<Timestamp>,
        wait: Option<f64>,
        colour: Option<Colour>,
    }

    #[test]
    fn values_are_decoded_and_typed() {
        assert_eq!(parse::<Params>("").unwrap(), Params::default());
        let all = "limit=7&name=a+b%20%C3%BC&since=2026-01-01T00:00:00Z&wait=1.5&colour=dark_red";
        let since = Some(Timestamp::parse("2026-01-01T00:00:00Z").unwrap());
        let name = Some("a b ü".to_owned());
        let expected = Params { limit: Some(7), name, since, wait: Some(1.5), colour: Some(Colour::DarkRed) };
        assert_eq!(parse::<Params>(all).unwrap(), expected);
    }

    #[test]
    fn the_parameter_at_fault_is_named() {
        for (text, field, says) in [
            ("limit=x", "limit", "is `x`, but must be a whole number"),
            ("limit=", "limit", "whole number"),
            ("limit=-1", "limit", "whole number"),
            ("limit=1&limit=2", "limit", "more than once"),
            ("since=yesterday", "since", "RFC 3339"),
            ("colour=blue", "colour", "unknown variant `blue`"),
            ("nonsense=1", "nonsense", "is not a known query parameter: `nonsense`, expected one of `limit`"),
        ] {
            let fault = parse::<Params>(text).unwrap_err();
            assert_eq!(fault.field, field, "{text}: {fault:?}");
            assert!(fault.message.contains(says), "{text}: {fault:?}");
        }
    }
}
