//! Which sites a trigger is for.

use crate::peer::PeerName;

/// Names that an error lists.
const MAX_NAMES: usize = 20;

/// What a trigger's `to` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// No `to`: the only site that there is.
    Only,
    /// `*`
    All,
    /// These, in this order, each once.
    Sites(Vec<String>),
}

/// There are no such sites.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("to={0:?} cannot be used; give the name of a site, several with commas between them, or * for all")]
    Syntax(String),
    #[error("several sites are known here: {}; say which one is meant by ?to=NAME, or all of them by ?to=*", list(.0))]
    Several(Vec<PeerName>),
    #[error("there is no site {name:?}; known are: {}", list(.known))]
    Unknown { name: String, known: Vec<PeerName> },
}

impl Target {
    pub(crate) fn parse(to: Option<&str>) -> Result<Self, TargetError> {
        let Some(text) = to else { return Ok(Self::Only) };
        if text == "*" {
            return Ok(Self::All);
        }
        let mut names: Vec<String> = Vec::new();
        for name in text.split(',') {
            if PeerName::try_from(name.to_owned()).is_err() || name == "*" {
                return Err(TargetError::Syntax(text.chars().take(100).collect()));
            }
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        Ok(Self::Sites(names))
    }

    /// Whether it asks for one site only.
    pub(crate) fn is_one(&self) -> bool {
        match self {
            Self::Only => true,
            Self::All => false,
            Self::Sites(names) => names.len() == 1,
        }
    }
}

fn list(names: &[PeerName]) -> String {
    let shown: Vec<_> = names.iter().take(MAX_NAMES).map(PeerName::as_str).collect();
    match names.len().saturating_sub(MAX_NAMES) {
        0 if names.is_empty() => "none by a name".into(),
        0 => shown.join(", "),
        more => format!("{} and {more} more, which GET /status lists", shown.join(", ")),
    }
}
