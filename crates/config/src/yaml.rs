//! YAML text to a tree of values that know where they stand.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_saphyr::{
    DuplicateKeyPolicy, MergeKeyPolicy, MessageFormatter as _, NonFiniteFloatPolicy, Spanned, UserMessageFormatter,
};

use crate::report::{Problem, ValueError};

/// The deepest nesting that a document may have; ours has four levels.
const MAX_DEPTH: usize = 32;
/// The most values that aliases may stand for, so that a small text stays a small tree.
const MAX_ALIASED: usize = 10_000;

/// A value and where it stands.
pub type Value = Spanned<Node>;

/// What a YAML document is made of, before anything is known about what it should be.
#[derive(Debug)]
pub enum Node {
    /// Nothing, as behind a key without a value.
    Null,
    /// Text, quoted or plain.
    Text(String),
    /// A whole number that is not negative.
    Integer(u64),
    /// A boolean, a negative number or a fraction, none of which any of our values is.
    Other(String),
    /// A list.
    List(Vec<Value>),
    /// In the order of the document; a key may come twice.
    Map(Vec<(Spanned<String>, Value)>),
}

/// Parses a document with one value, nested no deeper than anything of ours.
///
/// # Errors
///
/// If the text is not YAML.
pub fn parse(text: &str) -> Result<Value, Problem> {
    parse_nested(text, MAX_DEPTH)
}

/// Parses a document with one value that may be nested this deeply.
///
/// # Errors
///
/// If the text is not YAML.
pub fn parse_nested(text: &str, max_depth: usize) -> Result<Value, Problem> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: max_depth },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_ALIASED },
        // Keys that come twice are kept, so that they are reported together with all other problems.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        // Text stays text as far as YAML lets it: `on`, `007` and `1_000` are none of ours to interpret.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let message = UserMessageFormatter.format_message(&error);
        // It may quote the text, and a problem is one printable line.
        let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Problem {
            line: error.location().map(|at| at.line()),
            column: error.location().map(|at| at.column()),
            ..Problem::of_document(ValueError::new(message, ""))
        }
    })
}

impl Node {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text(_) => "text",
            Self::Integer(_) => "a number",
            Self::Other(_) => "a number or a boolean",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> de::Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Node, E> {
        Ok(Node::Text(text))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Integer(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(u64::try_from(number).map_or_else(|_| Node::Other(number.to_string()), Node::Integer))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Node, E> {
        Ok(Node::Other(number.to_string()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Node, E> {
        Ok(Node::Other(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Other(number.to_string()))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Node, E> {
        Ok(Node::Other(truth.to_string()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}
