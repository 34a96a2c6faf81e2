//! Manifests as text that is going to be edited: documents, and in them the workloads with their pod templates.

use std::ops::Range;

use super::own;
use ferry_config::yaml::{self, Node, Value};
use ferry_config::{Problem, ValueError};

/// The deepest nesting of a document; the schemas of custom resources are among what a file may have.
const MAX_DEPTH: usize = 200;

/// The kinds that have pods, and the keys that lead to the pod's template.
const KINDS: [(&str, &[&str]); 8] = [
    ("Deployment", &["spec", "template"]),
    ("StatefulSet", &["spec", "template"]),
    ("DaemonSet", &["spec", "template"]),
    ("ReplicaSet", &["spec", "template"]),
    ("ReplicationController", &["spec", "template"]),
    ("Job", &["spec", "template"]),
    ("CronJob", &["spec", "jobTemplate", "spec", "template"]),
    ("Pod", &[]),
];

/// A text of one or more documents.
pub(super) struct Manifest {
    text: String,
    documents: Vec<Document>,
}

/// One of them.
pub(super) struct Document {
    /// Its lines, counted from 0, with the `---` in front of it.
    pub(super) lines: Range<usize>,
    text: String,
    root: Value,
}

/// A mapping under a key.
#[derive(Clone)]
pub(super) struct Place<'m> {
    document: &'m Document,
    /// The line of the key, counted from 0 in the whole text; none for a document as a whole.
    pub(super) key_line: Option<usize>,
    pub(super) value: &'m Value,
    /// The keys that lead here, for messages.
    pub(super) path: String,
}

/// An object with a pod's template.
pub(super) struct Workload<'m> {
    pub(super) kind: &'m str,
    pub(super) name: &'m str,
    pub(super) namespace: Option<&'m str>,
    pub(super) replicas: u64,
    /// What has the pod's metadata.
    pub(super) template: Place<'m>,
    /// The pod.
    pub(super) spec: Place<'m>,
}

impl Manifest {
    pub(super) fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        // A line that begins so separates documents, wherever it stands.
        let separates = |line: &str| {
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
        };
        let mut starts: Vec<usize> = (0..lines.len()).filter(|at| separates(lines[*at])).collect();
        if starts.first() != Some(&0) {
            starts.insert(0, 0);
        }
        let ends = starts.iter().skip(1).copied().chain([lines.len()]);
        let (mut documents, mut problems) = (Vec::new(), Vec::new());
        for (start, end) in starts.iter().copied().zip(ends) {
            let text = lines[start..end].concat();
            match yaml::parse_nested(&text, MAX_DEPTH) {
                Ok(root) => documents.push(Document { lines: start..end, text, root }),
                Err(mut problem) => {
                    problem.line = problem.line.map(|line| line + start as u64);
                    problems.push(problem);
                }
            }
        }
        match problems.is_empty() {
            true => Ok(Self { text: text.to_owned(), documents }),
            false => Err(problems),
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn documents(&self) -> &[Document] {
        &self.documents
    }

    pub(super) fn workloads(&self) -> Vec<Workload<'_>> {
        self.documents.iter().filter_map(Document::workload).collect()
    }

    /// The workload called `named`, or the only one.
    pub(super) fn pick(&self, named: Option<&str>) -> Result<Workload<'_>, Vec<Problem>> {
        let mut workloads = self.workloads();
        let all: Vec<_> = workloads.iter().map(Workload::to_string).collect();
        if let Some(named) = named {
            let is_meant = |workload: &Workload<'_>| match named.split_once('/') {
                Some((kind, name)) => workload.kind.eq_ignore_ascii_case(kind) && workload.name == name,
                None => workload.name == named,
            };
            workloads.retain(is_meant);
        }
        let error = match (workloads.len(), all.as_slice()) {
            (1, _) => return Ok(workloads.remove(0)),
            (_, []) => {
                let kinds = KINDS.map(|(kind, _)| kind).join(", ");
                let is_list = self.documents.iter().any(|document| document.kind() == Some("List"));
                let hint = if is_list { "; a List is not looked into: give its items as documents" } else { "" };
                ValueError::new("there is no pod template in it", format!("it has to have one of {kinds}{hint}"))
            }
            (0, _) => ValueError::new(
                format!("it has no workload `{}`", named.unwrap_or_default()),
                format!("there is {}", all.join(", ")),
            ),
            _ => ValueError::new(
                format!("it has several workloads: {}", all.join(", ")),
                "say which one with `--workload KIND/NAME`",
            ),
        };
        Err(vec![Problem::of_document(error)])
    }
}

impl Document {
    fn root(&self) -> Place<'_> {
        Place { document: self, key_line: None, value: &self.root, path: String::new() }
    }

    fn kind(&self) -> Option<&str> {
        self.root().text("kind")
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.root().at(&["metadata", "annotations"])?.value.value.get(name)?.1.value.as_text()
    }

    /// Whether it is of a kind that configuration is in.
    pub(super) fn is_configuration(&self) -> bool {
        matches!(self.kind(), Some("ConfigMap" | "Secret"))
    }

    /// Its kind, name and namespace.
    pub(super) fn identity(&self) -> Option<(&str, &str, Option<&str>)> {
        let metadata = self.root().at(&["metadata"])?;
        Some((self.kind()?, metadata.text("name")?, metadata.text("namespace")))
    }

    fn workload(&self) -> Option<Workload<'_>> {
        let root = self.root();
        let (kind, path) = KINDS.into_iter().find(|(kind, _)| self.kind() == Some(kind))?;
        let metadata = root.at(&["metadata"])?;
        let template = root.at(path)?;
        Some(Workload {
            kind,
            name: metadata.text("name").or_else(|| metadata.text("generateName"))?,
            namespace: metadata.text("namespace"),
            replicas: root.at(&["spec"])?.number("replicas").unwrap_or(1),
            spec: template.at(&["spec"])?,
            template,
        })
    }
}

impl<'m> Place<'m> {
    /// What these keys lead to.
    pub(super) fn at(&self, path: &[&str]) -> Option<Self> {
        path.iter().try_fold(self.clone(), |place, name| {
            let (key_line, value) = place.value.value.get(name)?;
            let dot = if place.path.is_empty() { "" } else { "." };
            Some(Place {
                document: place.document,
                key_line: Some(place.line(key_line)),
                value,
                path: format!("{}{dot}{name}", place.path),
            })
        })
    }

    /// A line of this document as one of the whole text, counted from 0.
    pub(super) fn line(&self, of_document: u64) -> usize {
        self.document.lines.start + index(of_document)
    }

    /// The column, counted from 0, of the dash that an item begins with; none if it begins otherwise.
    pub(super) fn dash(&self, item: &Value) -> Option<usize> {
        let line = self.document.text.lines().nth(index(item.referenced.line()))?;
        let rest = line.trim_start_matches(' ');
        (rest == "-" || rest.starts_with("- ")).then_some(line.len() - rest.len())
    }

    fn text(&self, key: &str) -> Option<&'m str> {
        self.value.value.get(key)?.1.value.as_text()
    }

    fn number(&self, key: &str) -> Option<u64> {
        match self.value.value.get(key)?.1.value {
            Node::Integer(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn is_true(&self, key: &str) -> bool {
        self.value
            .value
            .get(key)
            .is_some_and(|(_, value)| matches!(&value.value, Node::Other(truth) if truth == "true"))
    }

    /// The items of a list in it; none if there is no such list.
    pub(super) fn items(&self, key: &str) -> &'m [Value] {
        match self.value.value.get(key).map(|(_, value)| &value.value) {
            Some(Node::List(items)) => items,
            _ => &[],
        }
    }

    /// A problem with something under this mapping.
    pub(super) fn problem(&self, under: &str, error: ValueError) -> Problem {
        let dot = if self.path.is_empty() || under.is_empty() { "" } else { "." };
        Problem { path: format!("{}{dot}{under}", self.path), ..Problem::of_document(error) }
    }
}

/// A line, counted from 1, as one counted from 0.
fn index(line: u64) -> usize {
    usize::try_from(line).unwrap_or(usize::MAX / 2).saturating_sub(1)
}

impl Workload<'_> {
    /// What says that a tunnel was put into it, and for which workload.
    pub(super) fn mark(&self) -> Option<&str> {
        self.template.at(&["metadata", "annotations"])?.text(own::ANNOTATION)
    }

    pub(super) fn problem(&self, error: ValueError) -> Problem {
        Problem::of_document(ValueError::new(format!("{self}: {}", error.message), error.hint))
    }
}

impl std::fmt::Display for Workload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// What is looked for in a mapping.
pub(super) trait Lookup {
    /// A value by its key, and the line of the key.
    fn get(&self, key: &str) -> Option<(u64, &Value)>;
    fn as_text(&self) -> Option<&str>;
}

impl Lookup for Node {
    fn get(&self, key: &str) -> Option<(u64, &Value)> {
        let Node::Map(entries) = self else { return None };
        entries.iter().find(|(name, _)| name.value == key).map(|(name, value)| (name.referenced.line(), value))
    }

    fn as_text(&self) -> Option<&str> {
        match self {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }
}
