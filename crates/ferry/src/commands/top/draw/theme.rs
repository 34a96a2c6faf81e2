//! How things look: with colours, or where those are not wanted by weight alone.

use ratatui::style::{Color, Modifier, Style};

use crate::admin::Mood;

/// Styles by their meaning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    has_colours: bool,
}

impl Theme {
    pub(crate) fn new(has_colours: bool) -> Self {
        Self { has_colours }
    }

    fn colour(self, colour: Color) -> Style {
        if self.has_colours { Style::new().fg(colour) } else { Style::new() }
    }

    pub(super) fn good(self) -> Style {
        self.colour(Color::Green)
    }

    pub(super) fn warning(self) -> Style {
        self.colour(Color::Yellow)
    }

    pub(super) fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn traffic(self) -> Style {
        self.colour(Color::Blue)
    }

    pub(super) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(super) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What keys act on.
    pub(super) fn focus(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED)
    }

    /// A sign, for those who see no colours, and its style.
    pub(super) fn sign(self, mood: Mood) -> (char, Style) {
        match mood {
            Mood::Plain => ('·', self.dim()),
            Mood::Good => ('+', self.good()),
            Mood::Warning => ('!', self.warning()),
            Mood::Bad => ('✗', self.bad()),
        }
    }
}
