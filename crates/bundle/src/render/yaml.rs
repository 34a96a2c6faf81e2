//! Values to YAML that reads as people write it.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// The keys that come first in a mapping, in this order; the others follow in alphabetical order.
const FIRST: [&str; 7] = ["apiVersion", "kind", "metadata", "name", "namespace", "image", "type"];

/// Several documents as one text, under a comment.
pub(super) fn documents(comment: &str, documents: impl IntoIterator<Item = Option<String>>) -> String {
    let documents: Vec<String> = documents.into_iter().flatten().collect();
    format!("{}{}", commented(comment), documents.join("---\n"))
}

/// `text` as comment lines.
pub(super) fn commented(text: &str) -> String {
    text.lines().map(|line| format!("# {line}\n")).collect()
}

/// One document. What cannot be put into YAML becomes an error when it is read, and is a fault of this crate: the
/// tests read everything back.
pub(crate) fn document(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_else(|error| Value::String(format!("!! {error}")));
    plain(&Ordered(&value))
}

/// One document with the keys as they come.
pub(crate) fn plain(value: &impl Serialize) -> String {
    let options = serde_saphyr::ser_options! {
        // A line that is broken reads worse than a long one, and a key must stay whole.
        folded_wrap_chars: usize::MAX,
        min_fold_chars: usize::MAX,
    };
    serde_saphyr::to_string_with_options(value, options).unwrap_or_else(|error| format!("!! {error}\n"))
}

struct Ordered<'v>(&'v Value);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                let rank = |key: &str| FIRST.iter().position(|first| *first == key).unwrap_or(FIRST.len());
                entries.sort_by_key(|(key, _)| (rank(key), key.as_str()));
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, &Ordered(value))?;
                }
                map.end()
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(Ordered)),
            scalar => scalar.serialize(serializer),
        }
    }
}
